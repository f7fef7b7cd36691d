"""A check that fails names the layer whose array it looked at, also inside a loop."""

from __future__ import annotations

from typing import Any

import pytest
from newton_blocks import network

from sifrc.lower.access import absolute, unrolled
from sifrc.lower.lowering import lower
from sifrc.lower.statements import Guard, SolveSystem
from sifrc.methods.planning import make_plan
from sifrc.model import build_model
from sifrc.spec import build_spec

METHODS: dict[str, dict[str, Any]] = {
    "mk": {"name": "mk"},
    "exact": {"name": "esn", "variant": "exact"},
    "ea_cg": {"name": "ea_cg", "kind": "ggn"},
}


@pytest.mark.parametrize("method", METHODS)
def test_codes_are_those_of_the_layers(method: str) -> None:
    """The layer k of a network of fc1, fc2, … is fc<k>; a system belongs to the layer of its solution."""
    data = network(METHODS[method], sizes=(4, 4, 4, 4, 4, 3), loss="squared_error", dtype="float64")
    program = lower(make_plan(build_model(build_spec(data))).plan)
    layers = set()
    for function in program.functions:
        for statement, k in unrolled(function.body):
            if isinstance(statement, Guard):
                (_, index), code = absolute(statement.operand.ref, k), statement.code
                place = code.offset + (k if code.relative and k is not None else 0)
            elif isinstance(statement, SolveSystem) and statement.guard is not None:
                (_, index), place = absolute(statement.target.ref, k), statement.guard
            else:
                continue
            if index is not None:
                assert program.guards[place - 1][0] == f"fc{index}"
                layers.add(index)
    assert len(layers) >= 1
