"""Activations and losses of which something vanishes: derived, compiled, run and written down.

The oracle is torch.func on the syntax trees. Numba modules run with the JIT off.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
import torch
from agreement import check
from compiling import compile_once

import sifrc
from sifrc.cache import load_text
from sifrc.catalogue.derivatives import DERIVATIVES
from sifrc.catalogue.registry import OPERATORS
from sifrc.compiler import Request, apply_request, compile_spec
from sifrc.derive.derived import Derived
from sifrc.errors import DerivationError, SpecError
from sifrc.model import build_model
from sifrc.spec import Spec, build_spec
from sifrc.verify.generated import generated_rows
from sifrc.verify.ladder import verify
from sifrc.verify.records import looked_at
from sifrc.verify.subjects.module import Framework

SMOOTH = tuple(one.name for one in DERIVATIVES.operators if one.name != "newton_direction")
IDENTITIES = ("x", "x + 1", "a*x", "x + log(2)", "log(exp(x)) - 0.5", "where(x > 0, x + 1, x)", "max(x, x)")
MULTIPLES = ("2*x", "-x", "sqrt(2)*x", "1 - x/log(3)")
CONSTANTS = ("0*x + 1", "x - x", "x**0", "0*x + softplus(1)", "where(x > 0, 1 + 0*x, 2)")
CURVED = (
    "sum((y - t)**2/(2*s**2) + log(s))",
    "max(1, 2)*sum((y - t)**2)",
    "softplus(0)*sum((y - t)**2)",
    "tanh(s)*sum((y - t)**2)/log(s + 2)",
    "sum(where(softplus(0.5) <= y, y*y, y/2))",
    "mean((y - mean(y))**2) + mean((y - t)**2)",
    "sum(y)*sum(y)*log(2)",
    "sum(y)**2 + sum((y - t)**2)",
    "sum(sqrt(2)*y*sqrt(2)*y)",
)
FLAT = (
    "sum(max(0.9*(t - y), -0.1*(t - y)))",
    "sum(max(abs(y - t) - 0.1, 0))",
    "mean(abs(y - mean(y)))",
    "sum(t*y)",
    "0*sum(y)",
    "log(2) + sum(t) + 0*sum(y)",
    "sum(y**0)",
    "exp(0*sum(y))",
    "sum((y - t)**2) - sum((y - t)**2)",
    "sum(where(y > t, 1 + 0*y, 2))",
)


def data(
    activation: str = "tanh(x)", loss: str = "sum((y - t)**2)", last: str | None = None
) -> dict[str, Any]:
    def named(text: str, name: str, value: float) -> dict[str, Any]:
        used = name in text.replace("softplus", "").replace("sum", "").replace("sqrt", "").replace("tanh", "")
        used = used and name in ("s", "a") and (f"{name}*" in text or f"({name}" in text)
        return {"expression": text, "parameters": {name: value}} if used else {"expression": text}

    layers = [
        {"name": "fc1", "type": "dense", "units": 3, "activation": named(activation, "a", 1.0)},
        {"name": "fc2", "type": "dense", "units": 2},
    ]
    if last is not None:
        layers[-1]["activation"] = named(last, "a", 1.0)
    return {
        "sifrc": 1,
        "name": "vanishing",
        "network": {"input": {"size": 2}, "layers": layers},
        "loss": named(loss, "s", 0.0 if "s*(t" in loss else 0.7),
        "regularization": {"state": 0.1},
        "dtype": "float64",
    }


def module_of(spec: Spec, backend: str, operators: tuple[str, ...], folder: Path) -> Any:
    text = compile_once(spec, Request(backend=backend, method="none", operators=operators)).text
    path = folder / f"{backend}_{blake2b(text.encode(), digest_size=8).hexdigest()}.py"
    path.write_text(text, encoding="utf-8")
    return load_text(path.stem, path, text)


@pytest.mark.parametrize("text", [*IDENTITIES, *MULTIPLES, *CONSTANTS])
def test_derivatives_with_an_activation_of_constant_slope(text: str) -> None:
    """∇, H v and G v, also with the activation at the output."""
    check(data(text), 3)
    check(data(text, last=text), 4)


@pytest.mark.parametrize("text", [*CURVED, *FLAT])
def test_derivatives_of_losses_of_which_something_vanishes(text: str) -> None:
    """∇, H v and G v."""
    check(data(loss=text), 3)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize(
    "given",
    [
        {"activation": "x + 1"},
        {"activation": "0*x + 1", "last": "0*x + 2"},
        {"activation": "x + log(2)", "loss": "sum(y)*sum(y)*log(2)"},
        pytest.param({"activation": "sqrt(2)*x"}, marks=pytest.mark.slow),
        pytest.param({"loss": "sum(max(0.9*(t - y), -0.1*(t - y)))"}, marks=pytest.mark.slow),
        pytest.param({"loss": "sum((y - t)**2/(2*s**2) + log(s))"}, marks=pytest.mark.slow),
        pytest.param({"loss": "0*sum(y)"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_all_operators_of_a_module(
    given: dict[str, str], backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products, blocks, factors and summaries against torch.func, at the third level."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    spec = build_spec(data(**given))
    # Of a loss that is no distribution of targets there is no Fisher matrix.
    missing = {"newton_direction"} | ({"fisher_vector_product"} if "loss" in given else set())
    operators = tuple(name for name in OPERATORS if name not in missing)
    module = module_of(spec, backend, operators, tmp_path)
    asked = apply_request(spec, Request(backend=backend, method="none", operators=operators))
    rows = verify(asked, levels=[3], module=module).rows
    assert len(rows) > 12
    exact = [row for row in rows if row.quantity not in ("newton_direction", "summary")]
    assert all(row.passed for row in exact), [row for row in exact if not row.passed]
    # Third orders of a network without curvature are roundings.
    assert all(row.digits is not None and row.digits > 10 for row in rows if row.quantity == "summary")


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("method", ["ea_cg", "grouped_newton"])
@pytest.mark.parametrize("given", [{"activation": "x - x"}, {"loss": FLAT[0]}, {"loss": CURVED[0]}], ids=str)
def test_methods_compile(given: dict[str, str], method: str, backend: str) -> None:
    """Methods that need no Newton direction in closed form."""
    assert compile_once(build_spec(data(**given)), Request(backend=backend, method=method)).text


FRAMEWORKS: dict[str, Framework] = {"torch": "torch", "numba": "numpy"}
NONE = "(no Newton direction|no curvature in the output)"


@pytest.mark.parametrize("text", FLAT)
def test_the_equations_say_that_there_is_no_newton_direction(text: str) -> None:
    """And go on; asking for the direction is an error with a reason."""
    spec = build_spec(data(loss=text))
    assert re.search(f"Not derived: .*{NONE}", sifrc.equations(spec, summaries=True).text())
    with pytest.raises(DerivationError, match=NONE):
        compile_spec(spec, Request(method="none", operators=("newton_direction",)))
    with pytest.raises(DerivationError, match=NONE):
        compile_spec(spec, Request(method="mk"))


@pytest.mark.parametrize("text", [CURVED[2], CURVED[3], CURVED[5], CURVED[7]])
def test_the_newton_direction_is_proved(text: str) -> None:
    """With constants that are not rational, and matrices that are the identity plus a constant."""
    derived = Derived(build_model(build_spec(data(loss=text))))
    assert derived.newton.proved
    assert derived.accepted_by == "normal form"


def spectral(activation: str, loss: str) -> dict[str, Any]:
    layers = [{"type": "dense", "units": 3, "activation": {"expression": activation}}]
    network = {"input": {"size": 3}, "layers": layers}
    regularization = {"state": "spectral", "output": "spectral"}
    head = {"sifrc": 1, "name": "spectral", "dtype": "float64", "network": network}
    return {**head, "loss": {"expression": loss}, "regularization": regularization}


def test_a_zero_of_the_loss_is_not_the_slope_of_a_constant() -> None:
    """The maximum's first side is the node that F'(a) ∘ b is."""
    check(data(loss="sum(max(s*(t - y), t - y - sum(y)))*sum(sin(y))", last="0*x + 0.5"), 3)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_sums_of_factors_that_cancel_keep_their_number_of_terms(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Σ_i x_i/x_i has no array over i left."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    spec = build_spec(spectral("tanh(x)", "mean((y*t - mean(y*t))**2)"))
    module = module_of(spec, backend, ("hessian_vector_product",), tmp_path)
    looked = looked_at(spec, ["hessian_vector_product"])
    rows = {name: row for name, _, row in generated_rows(spec, looked, module, FRAMEWORKS[backend], 1)}
    row = rows["hessian_vector_product"]()
    assert row is not None and row.passed, row


@pytest.mark.parametrize("text", ["0*x + 0.3", "sqrt(x - x)"])
def test_a_constant_has_no_slope_to_divide_by(text: str) -> None:
    """As spectral regularisation does."""
    with pytest.raises(DerivationError, match=r"slope.*zero everywhere"):
        compile_spec(build_spec(spectral(text, "sum((y - t)**2)")), Request(method="none"))


def test_an_error_within_an_operator_is_not_a_missing_operator() -> None:
    """A module whose product raises KeyError does not pass as one without a product."""

    def hessian_vector_product(*arguments: Any) -> Any:
        raise KeyError(1)

    module = SimpleNamespace(torch=torch, hessian_vector_product=hessian_vector_product)
    spec = build_spec(data())
    looked = looked_at(spec, ["gradient", "hessian_vector_product"])
    checks = {name: check for name, _, check in generated_rows(spec, looked, module, "torch", 1)}
    assert checks["gradient"]() is None
    with pytest.raises(KeyError):
        checks["hessian_vector_product"]()


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        ("sum(y**2)*s**-1", 0.0, "no value"),
        ("log(s)*sum(y)", -1.0, "no value"),
        ("exp(exp(exp(s)))*sum(y)", 5.0, "too large"),
        ("((s**64)**64)*sum(y)", 1.5, "too large"),
    ],
)
def test_constants_at_the_values_of_parameters(text: str, value: float, message: str) -> None:
    """A constant without a value is an error at its place."""
    spec = data()
    spec["loss"] = {"expression": text, "parameters": {"s": value}}
    with pytest.raises(SpecError, match=message) as caught:
        build_spec(spec)
    assert caught.value.location is not None


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_losses_are_numbers_where_they_were_written_to_be(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cancelled between the terms of a loss keeps its domain, and what did not costs nothing."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    texts = (
        "sum(y + 0*log(y))",
        "sum(sqrt(y)*sqrt(y))",
        "dot(sqrt(y), sqrt(y))",
        "sum(y) + sum(log(y) - log(y))",
    )
    for text in texts:
        layers = [{"name": "fc", "type": "dense", "units": 2}]
        network = {"input": {"size": 2}, "layers": layers}
        spec = build_spec(
            {"sifrc": 1, "name": "d", "network": network, "loss": {"expression": text}, "dtype": "float64"}
        )
        module = module_of(spec, backend, ("loss",), tmp_path)
        for bias, expected in (([1.0, 2.0], 3.0), ([1.0, -2.0], np.nan)):
            arrays: dict[str, Any] = {"fc.weight": np.zeros((2, 2)), "fc.bias": np.array(bias)}
            inputs: Any = np.ones((3, 2))
            if backend == "torch":
                arrays = {name: torch.tensor(value) for name, value in arrays.items()}
                inputs = torch.tensor(inputs)
            with np.errstate(invalid="ignore"):
                found = float(module.loss(arrays, inputs, inputs))
            assert np.isclose(found, expected, equal_nan=True), (text, bias, found)
