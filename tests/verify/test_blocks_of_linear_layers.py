"""Blocks of curvature before layers that are linear in a state: the reference has their matrices itself."""

from __future__ import annotations

from typing import Any

import pytest
from sampled import one_in

import sifrc

GATE = {"name": "gate", "size": 4}
CASES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "a multiple": ([], [{"name": "m", "type": "scale", "value": 0.5, "shift": 1.0}]),
    "a mean": ([], [{"name": "m", "type": "mean", "axes": 1, "keep": True}]),
    "a product with data": ([GATE], [{"name": "m", "type": "multiply", "inputs": ["fc1", "gate"]}]),
    "a function that is linear in one argument": (
        [GATE],
        [{"name": "m", "type": "entrywise", "expression": "x2*(x1 + sin(x2))", "inputs": ["fc1", "gate"]}],
    ),
}


@pytest.mark.parametrize("name", one_in(2, CASES))
def test_blocks_are_those_of_the_reference(name: str) -> None:
    """Of all kinds, also those that take expectations where the matrix is another one for each sample."""
    more, between = CASES[name]
    layers = [
        {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
        *between,
        {"name": "out", "type": "dense", "units": 3},
    ]
    network = {"inputs": [{"name": "x0", "size": 3}, *more], "layers": layers}
    spec = sifrc.build_spec(
        {
            "sifrc": 1,
            "name": "linear",
            "loss": "cross_entropy",
            "dtype": "float64",
            "network": network,
            "target": {"operators": ["block_hessian"]},
        }
    )
    report = sifrc.verify(spec)
    checked = {row.level for row in report.rows if row.quantity == "block_hessian" and row.passed}
    assert report.passed and {2, 3} <= checked
