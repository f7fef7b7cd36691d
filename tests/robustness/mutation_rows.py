"""Rows of ``sifrc verify`` on small networks as killers: numbers that disagree, told from exceptions."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["SPECS", "Verdict", "decided", "rows", "said"]


@dataclass(frozen=True)
class Verdict:
    """What became of a fault.

    Args:
        kind: ``caught``, ``raised`` where only exceptions showed it, ``survived``, or ``undecided`` where the
            time was over.
        by: the row or the test that failed, and what it said; or the first exception.
        killer: what failed, in the words that ``run_killers`` takes.
    """

    kind: str
    by: str
    killer: str = ""


def _spec(layers: list[dict[str, Any]], loss: Any, **more: Any) -> dict[str, Any]:
    return {
        "sifrc": 1,
        "name": "small",
        "network": {"input": {"name": "image", "size": 2}, "layers": layers},
        "loss": loss,
        "regularization": {"state": 0.3},
        "dtype": "float64",
        **more,
    }


def _dense(name: str, units: int, activation: Any = None, **more: Any) -> dict[str, Any]:
    layer = {"name": name, "type": "dense", "units": units, **more}
    return layer if activation is None else {**layer, "activation": activation}


_SKIP = [
    _dense("fc1", 3, "tanh"),
    _dense("fc2", 3, "softplus"),
    {"name": "sum1", "type": "add", "inputs": ["fc1", "fc2"]},
    _dense("fc3", 2, "tanh"),
]
_BRANCHES = {"expression": "where(x > c, x**2/2, a*x)", "parameters": {"a": 0.4, "c": -0.3}}
_SUM = {"reduction": "sum"}
_CONV = {"name": "conv", "type": "conv"}
_OPERATORS = ["loss", "objective", "gradient", "objective_and_gradient", "hessian_vector_product"]
_PRODUCTS = [*_OPERATORS, "gauss_newton_vector_product"]
_BLOCKS = ["block_hessian", "curvature_factors", "block_vector_product", "hessian_diagonal"]
_EXACT_BLOCKS = ["block_hessian", "block_vector_product", "diagonal", "trace"]

SPECS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "chain": _spec(
            [_dense("fc1", 3, "tanh"), _dense("fc2", 2)],
            "cross_entropy",
            method="mk",
            target={"operators": [*_PRODUCTS, "newton_direction"]},
        ),
        "graph": _spec(
            [
                _dense("fc1", 2, "softplus"),
                {"name": "fc2", "type": "dense", "share": "fc1", "activation": "tanh"},
                {"name": "sum1", "type": "add", "inputs": ["fc2", "image"]},
                _dense("fc3", 3, _BRANCHES, bias=False),
            ],
            {"expression": "log(1 + sum((y - t)**2)) + c*logsumexp(y)", "parameters": {"c": 0.4}, **_SUM},
            target={"operators": _PRODUCTS},
        ),
        "places": {
            **_spec([], "cross_entropy", target={"operators": [*_PRODUCTS, *_EXACT_BLOCKS]}),
            "network": {
                "input": {"name": "image", "size": [2, 3]},
                "layers": [
                    _dense("fc1", 2, "tanh"),
                    {"name": "flat", "type": "flatten"},
                    _dense("fc2", 3),
                ],
            },
        },
        "windows": {
            **_spec([], "cross_entropy", target={"operators": [*_PRODUCTS, *_EXACT_BLOCKS]}),
            "network": {
                "input": {"name": "image", "size": [2, 4]},
                "layers": [
                    {**_CONV, "channels": 2, "kernel": 2, "padding": [[1, 0]], "activation": "tanh"},
                    {"name": "pool", "type": "pool", "function": "average", "kernel": 2},
                    {"name": "flat", "type": "flatten"},
                    _dense("fc2", 2),
                ],
            },
        },
        "blocks": _spec(_SKIP, "bounded", method="ea_cg", target={"operators": _BLOCKS}),
        "groups": _spec(
            _SKIP,
            "squared_error",
            partition="weights-biases",
            method={"name": "grouped_newton", "internal_damping": 1.0},
            target={"operators": ["gradient", "summary"]},
        ),
        "spectral": _spec(
            [_dense("fc1", 3, "leaky_relu"), _dense("fc2", 2, "softplus")],
            "binary_cross_entropy",
            regularization={"state": "spectral"},
            curvature=["fisher", "sampled_fisher", "kfra"],
            target={"operators": [*_PRODUCTS, "newton_direction", "curvature_factors"]},
        ),
    }
)
"""Chains and graphs, classes and vectors, blocks, summaries, steps: small, so that all take seconds."""


def said(error: BaseException) -> str:
    return " ".join("".join(traceback.format_exception_only(error)).split())[:200]


def rows(name: str, backend: str = "") -> Iterator[Verdict]:
    """Verdicts of a small network: levels 1 and 2, or level 3 of its module of a backend.

    Args:
        name: of the network in ``SPECS``.
        backend: of the module; none for what is derived and lowered.
    """
    from sifrc.verify import ladder, records

    # The ladder turns exceptions into rows; here they must be told from numbers that disagree. A derivation
    # that refuses itself because its substitution does not leave zero has compared.
    for module in (ladder, records):
        assert callable(module.reason)
        module.reason = lambda error: ("" if decided(error) else _RAISED) + said(error)
    killer = f"{backend or 'verify'}:{name}"
    try:
        found = _rows_of(SPECS[name], backend)
    except _FailedRow as failed:
        found = [failed.row]
    except Exception as error:
        yield Verdict("caught" if decided(error) else "raised", f"verify {name}: {said(error)}", killer)
        return
    for row in found:
        if row.passed is False:
            # A row without an oracle has nothing to compare with: the derivation has refused.
            kind = "raised" if row.note.startswith(_RAISED) or not row.oracle else "caught"
            words = f"verify {name}: {row.quantity}, level {row.level}, {row.oracle} {row.note}"
            yield Verdict(kind, words, killer)


_RAISED = "RAISED "


class _FailedRow(Exception):
    """Ends a report at the first comparison that fails."""

    def __init__(self, row: Any) -> None:
        super().__init__(row.note)
        self.row = row


def _stop(row: Any) -> None:
    if row.passed is False and row.oracle and not row.note.startswith(_RAISED):
        raise _FailedRow(row)


def decided(error: BaseException) -> bool:
    """Whether verification refused by what it compared; it also reports exceptions of modules."""
    from sifrc.errors import VerificationError

    return isinstance(error, VerificationError) and not re.search(r"[A-Z]\w*Error: ", error.message)


def _rows_of(data: dict[str, Any], backend: str) -> Sequence[Any]:
    import sifrc
    from sifrc.verify.ladder import verify

    spec = sifrc.build_spec(data)
    if not backend:
        return verify(spec, levels=(1, 2), digits=20, progress=_stop).rows
    module = sifrc.compile(spec, backend, cache=False)
    return verify(spec, levels=(3,), module=module, progress=_stop).rows
