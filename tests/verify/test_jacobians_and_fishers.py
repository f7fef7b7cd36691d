"""Products with Jacobians and Fisher matrices in the verification: they pass, and wrong ones do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sampled import one_in

import sifrc
from sifrc.derive import fisher
from sifrc.derive.curvature import scores

OPERATORS = ("jacobian_vector_product", "fisher_vector_product", "empirical_fisher_vector_product")
DENSE = [
    {"name": "fc1", "type": "dense", "units": 3, "activation": "tanh"},
    {"name": "out", "type": "dense", "units": 2},
]
NORM = [DENSE[0], {"name": "norm", "type": "batch_norm"}, DENSE[1]]


def spec(layers: list[dict[str, Any]] = DENSE, size: Any = 2, loss: Any = "cross_entropy") -> dict[str, Any]:
    network = {"input": {"name": "image", "size": size}, "layers": layers}
    return {"sifrc": 1, "name": "outputs", "dtype": "float64", "loss": loss, "network": network}


SPECS = {
    "classes": (spec(), OPERATORS),
    "places": (spec(size=[2, 2]), OPERATORS),
    "bounded": (spec(loss="bounded"), OPERATORS),
    "squares": (spec(loss="squared_error"), OPERATORS),
    "sum": (spec(loss={"function": "cross_entropy", "reduction": "sum"}), OPERATORS),
    "statistics of the batch": (spec(NORM), OPERATORS[:1]),
    "no distribution": (spec(loss="huber"), (OPERATORS[0], OPERATORS[2])),
}


def rows(data: dict[str, Any], operators: tuple[str, ...], backend: str) -> dict[tuple[str, int], Any]:
    asked = {**data, "target": {"backend": backend, "operators": list(operators)}}
    report = sifrc.verify(asked, levels=(2, 3))
    return {(row.quantity, row.level): row.passed for row in report.rows if row.quantity in operators}


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("name", one_in(2, SPECS))
def test_they_pass_at_both_levels(name: str, backend: str, jit_off: None) -> None:
    data, operators = SPECS[name]
    found = rows(data, operators, backend)
    assert found == dict.fromkeys([(one, level) for one in operators for level in (2, 3)], True)


def test_a_wrong_score_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares of all scores."""
    right = scores.score

    def wrong(model: Any, kind: Any) -> Any:
        found = right(model, kind)
        squares = {
            name: None if value is None else fisher.einsum([(value, value.axes)] * 2, value.axes)
            for name, value in (("value", found.value), ("own", found.own))
        }
        return replace(found, **squares)

    monkeypatch.setattr(fisher, "score", wrong)
    data, _ = SPECS["classes"]
    asked = {**data, "target": {"operators": list(OPERATORS)}}
    report = sifrc.verify(asked, levels=(2,), cache=False)
    found = {row.quantity: row.passed for row in report.rows if row.quantity in OPERATORS}
    assert found == {OPERATORS[0]: True, OPERATORS[1]: False, OPERATORS[2]: False}


def test_they_are_looked_at_where_they_are_asked_for() -> None:
    report = sifrc.verify(spec(), levels=(2,))
    assert not {row.quantity for row in report.rows} & {*OPERATORS}


def test_what_cannot_be_derived_is_refused() -> None:
    with pytest.raises(sifrc.DerivationError, match="no distribution of targets is known"):
        sifrc.compile_source(spec(loss="huber"), operators=(OPERATORS[1],))
    with pytest.raises(sifrc.DerivationError, match="which act on each other in batch_norm layer"):
        sifrc.compile_source(spec(NORM), operators=(OPERATORS[2],))
