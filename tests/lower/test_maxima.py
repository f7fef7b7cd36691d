"""Maxima over windows by index: the same values as with masks, and no mask in what is printed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from sifrc.ir.arithmetic import NUMPY
from sifrc.lower.access import flat
from sifrc.lower.lowering import Passes, lower
from sifrc.lower.program import Program
from sifrc.lower.statements import ArgMaxOver, LargestPosition, Loop, MaximumOver, Statement
from sifrc.lower.validate import ProgramError, validate
from sifrc.methods.planning import make_plan
from sifrc.model import Model, build_model
from sifrc.spec import Spec, build_spec
from sifrc.verify.subjects.program import RunningProgram

BATCH = 3
OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "summary")
CONV = {"name": "c", "type": "conv", "channels": 2, "kernel": 1, "activation": "tanh"}


def pool(name: str = "r", **keys: Any) -> dict[str, Any]:
    return {"name": name, "type": "pool", "function": "max", **keys}


WINDOWS: dict[str, tuple[list[int], list[dict[str, Any]]]] = {
    "one axis": ([2, 6], [CONV, pool(kernel=2)]),
    "side by side": ([2, 4, 6], [CONV, pool(kernel=2)]),
    "over each other": ([2, 5, 6], [CONV, pool(kernel=[3, 2], stride=1)]),
    "with gaps and padding": (
        [2, 5, 6],
        [CONV, pool(kernel=[2, 3], stride=2, dilation=[2, 1], padding=[0, 1])],
    ),
    "beyond the image": ([2, 5, 6], [CONV, pool(kernel=3, stride=2, padding=1, ceil=True)]),
    "padded on one side": ([2, 4, 4], [CONV, pool(kernel=2, stride=2, padding=[[1, 0], [0, 1]])]),
    "three axes": ([1, 3, 4, 2], [CONV, pool(kernel=[2, 2, 1], stride=[1, 2, 1])]),
    "one after the other": ([2, 6, 6], [CONV, pool(kernel=2, stride=1), pool("s", kernel=2)]),
    "with an activation": (
        [2, 4, 6],
        [CONV, pool(kernel=2), {"name": "a", "type": "activation", "function": "sigmoid"}],
    ),
    "read twice": (
        [2, 4, 4],
        [CONV, pool(kernel=2), {**CONV, "name": "d"}, {"name": "e", "type": "add", "inputs": ["r", "d"]}],
    ),
}
SUMMED = ("over each other", "with gaps and padding")
OF_DATA = [2, 4, 4], [pool(kernel=2), CONV]
"""A maximum that nothing is derived of."""
MASKED: dict[str, tuple[list[int], list[dict[str, Any]]]] = {
    "places of other windows": ([2, 5, 6], [CONV, pool(output=[3, 2])]),
    "a window of many entries": ([1, 13, 5], [CONV, pool(kernel=[13, 5])]),
    "an axis": ([2, 4], [CONV, {"name": "r", "type": "max", "axes": 2}]),
}


def spec_of(size: list[int], layers: list[dict[str, Any]], **head: Any) -> Spec:
    """The layers before a dense one."""
    end = [{"name": "f", "type": "flatten"}, {"name": "out", "type": "dense", "units": 2}]
    network = {"input": {"name": "x0", "size": size}, "layers": [*layers, *end]}
    data = {"sifrc": 1, "name": "maxima", "dtype": "float64", "loss": "squared_error", "network": network}
    return build_spec(data | {"target": {"operators": list(OPERATORS)}} | head)


@cache
def lowered(case: str, indices: bool) -> tuple[Model, Program]:
    """The program of a case, with positions or with masks; summaries, which are large, of some."""
    operators = OPERATORS if case in SUMMED else OPERATORS[:-1]
    model = build_model(spec_of(*WINDOWS[case], target={"operators": list(operators)}))
    return model, lower(make_plan(model).plan, Passes(validate=True), indices=indices)


def statements(program: Program) -> Iterator[Statement]:
    """All of them."""
    return (statement for function in program.functions for statement in flat(function.body))


def kinds(program: Program) -> set[type]:
    """Statements that have to do with maxima, but those of the summaries' scales."""
    found = {type(s) for s in statements(program) if not (isinstance(s, MaximumOver) and s.magnitude)}
    return found & {ArgMaxOver, LargestPosition, MaximumOver}


def running(case: str, indices: bool) -> RunningProgram:
    """The program at a random batch."""
    model, program = lowered(case, indices)
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(BATCH, *WINDOWS[case][0]))
    params, vector = (
        {t.name: generator.normal(size=[axis.size for axis in t.symbol.axes]) for t in model.tensors}
        for _ in range(2)
    )
    found = RunningProgram(model, program, params, inputs, generator.normal(size=(BATCH, 2)), NUMPY)
    found.give_direction(vector, None)
    return found


@pytest.mark.parametrize("case", WINDOWS)
def test_positions_and_masks_give_the_same(case: str) -> None:
    """All operators, in all their cases; with positions there is neither a mask nor a maximum."""
    assert kinds(lowered(case, True)[1]) == {LargestPosition}
    assert kinds(lowered(case, False)[1]) == {ArgMaxOver, MaximumOver}
    first, second = (running(case, indices) for indices in (True, False))
    compared = 0
    for operator in first.program.operators:
        for kind, _ in operator.starts():
            for one in operator.fitting(kind):
                pairs = zip(first.run(operator, one, kind), second.run(operator, one, kind), strict=True)
                for (_, found), (_, expected) in pairs:
                    for name, value in expected.items():
                        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-13)
                        compared += 1
    assert compared > 5


@pytest.mark.parametrize("case", MASKED)
def test_other_maxima_keep_their_masks(case: str) -> None:
    """Those that are not over windows of one image, or compare many entries."""
    model = build_model(spec_of(*MASKED[case], target={"operators": list(OPERATORS[:2])}))
    assert kinds(lower(make_plan(model).plan, Passes(validate=True))) == {ArgMaxOver, MaximumOver}


def test_no_position_where_nothing_is_derived() -> None:
    """A loss needs the maxima alone, and so does a network that reads them of its input."""
    for spec in (
        spec_of(*WINDOWS["side by side"], target={"operators": ["loss"]}),
        spec_of(*OF_DATA, target={"operators": list(OPERATORS)}),
    ):
        assert kinds(lower(make_plan(build_model(spec)).plan, Passes(validate=True))) == {MaximumOver}


def test_positions_are_integers_and_as_many_as_places() -> None:
    """One for each window of each channel; no array is as large as all windows."""
    _, program = lowered("over each other", True)
    (family,) = (f for f in program.families if f.name == "argmax")
    assert family.classes == {2} and dict(family.shapes) == {2: (None, 2, 3, 5)}
    sizes = [
        np.prod([n for n in shape if n is not None])
        for f in program.families
        for _, shape in f.shapes
        if shape[:1] == (None,)
    ]
    assert max(sizes) == 2 * 5 * 6


def broken(**changes: Any) -> Program:
    """The program with other positions."""
    _, program = lowered("over each other", True)

    def whole(item: Statement | Loop) -> Statement | Loop:
        return replace(item, **changes) if isinstance(item, LargestPosition) else item

    return replace(
        program, functions=tuple(replace(f, body=tuple(map(whole, f.body))) for f in program.functions)
    )


def test_what_no_program_may_have() -> None:
    """Positions that are no integers, of other axes than those of the image, or of other sizes."""
    (own,) = (s for s in statements(lowered("over each other", True)[1]) if isinstance(s, LargestPosition))
    first, second = own.axes
    for changes, message in (
        ({"target": replace(own.target, ref=own.image.ref)}, "has no classes"),
        ({"axes": (second, first)}, "other last axes"),
        ({"axes": (replace(first, sizes=(9, *first.sizes[1:])), second)}, "an axis has the sizes"),
        ({"axes": (replace(first, stride=0), second)}, "do not go on"),
    ):
        with pytest.raises(ProgramError, match=message):
            validate(broken(**changes))
