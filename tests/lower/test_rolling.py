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

METHODS: dict[str, tuple[int, int]] = {"mk": (8, 13), "grouped_newton": (4, 7), "ea_cg": (8, 13)}
"""Two numbers of equal layers; between 8 and 13 subscripts get a second digit."""


def program_of(method: str, layers: int, roll: bool = True) -> Program:
    """Of a network with as many layers of four units, and two more."""
    options = {"kind": "ggn"} if method == "ea_cg" else {}
    data: dict[str, Any] = network(
        {"name": method, **options}, sizes=(4, *([4] * layers), 3), loss="squared_error", dtype="float64"
    )
    if method == "grouped_newton":
        data["partition"] = "weights-biases"
    return lower(make_plan(build_model(build_spec(data))).plan, Passes(roll=roll))


@pytest.mark.parametrize("method", METHODS)
def test_depth_does_not_make_a_program_longer(method: str) -> None:
    """Each function has as many statements and loops; unrolled, they are the statements without loops."""
    shallow, deep = (program_of(method, layers) for layers in METHODS[method])
    counts = [{(f.name, f.batched): len(f.body) for f in program.functions} for program in (shallow, deep)]
    assert counts[0] == counts[1]
    straight = program_of(method, METHODS[method][0], roll=False)
    for rolled, plain in zip(shallow.functions, straight.functions, strict=True):
        assert len(list(unrolled(rolled.body))) == len(plain.body)
