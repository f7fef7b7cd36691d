"""Equal layers become one loop: the length of a program does not depend on how many of them there are."""

from __future__ import annotations

from typing import Any

import pytest
from newton_blocks import network

from sifrc.lower.access import unrolled
from sifrc.lower.lowering import Passes, lower
from sifrc.lower.program import Program
from sifrc.methods.planning import make_plan
from sifrc.model import build_model
from sifrc.spec import build_spec

METHODS: dict[str, dict[str, Any]] = {"mk": {"name": "mk"}, "esn": {"name": "esn"}}


def program_of(method: dict[str, Any], layers: int, roll: bool = True) -> Program:
    """Of a network with as many layers of four units, and two more."""
    spec = network(method, sizes=(4, *([4] * layers), 3), loss="squared_error", dtype="float64")
    return lower(make_plan(build_model(build_spec(spec))).plan, Passes(roll=roll))


@pytest.mark.parametrize("method", METHODS)
def test_depth_does_not_make_a_program_longer(method: str) -> None:
    """Layers 9 and 10 are as equal as layers 3 and 4."""
    shallow, deep = (program_of(METHODS[method], layers) for layers in (8, 13))
    counts = [{(f.name, f.batched): len(f.body) for f in program.functions} for program in (shallow, deep)]
    assert counts[0] == counts[1]
    straight = program_of(METHODS[method], 8, roll=False)
    for rolled, plain in zip(shallow.functions, straight.functions, strict=True):
        assert len(list(unrolled(rolled.body))) == len(plain.body)
