"""Equations for generic k give every single equation back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import CASES, CHAINS
from networks import LEAKY, chain, derived, named, systems

from sifrc.ir import Axis, Expr, Input, Role
from sifrc.ir.build import add, apply, einsum
from sifrc.ir.evaluate import evaluate
from sifrc.ir.traverse import inputs_of, substitute
from sifrc.report.book import lines_of, names_of
from sifrc.report.generic import generic_key
from sifrc.report.grouping import grouped, sides
from sifrc.report.indices import range_text
from sifrc.report.layout import map_indices
from sifrc.report.uniform import Uniform
from sifrc.scalar import EXP, LOG


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_equation_is_its_generic_one_at_its_layer(name: str) -> None:
    work = named(name)
    names, uniform = names_of(work.model), Uniform(work.model)
    for system in systems(work, newton=name in CHAINS):
        lines = [uniform.line(line) for line in lines_of(system, system.name)]
        seen = 0
        for group in grouped(lines, names):
            start = group.lines[0].layer or 0
            for line in group.lines:
                shift = (line.layer or 0) - start
                expanded = tuple(map_indices(part, lambda k: k + shift) for part in (group.left, group.right))
                assert expanded == sides(line, names)
                seen += 1
        assert seen == len(lines)


@pytest.mark.parametrize("name", sorted(CHAINS))
def test_abbreviations_of_layers_without_an_activation_can_be_taken_back(name: str) -> None:
    work = named(name)
    uniform = Uniform(work.model)
    back: dict[Input, Expr] = {}
    for symbol, value in uniform.table.items():
        (other,) = inputs_of(value)
        back[other] = symbol if value is other else add([(-1, symbol)], symbol.axes)
    for system in systems(work, newton=True):
        for line in lines_of(system, ""):
            assert substitute(uniform.line(line).values[0], back) is line.values[0]


def test_equal_keys_mean_equal_values_at_shifted_inputs() -> None:
    """With the value of an input given by its distance from the layer, equal keys give equal values."""
    case = chain("tanh", 6, last=True, size=3)
    case["network"]["input"]["size"] = 3
    work = derived(case)
    rng = np.random.default_rng(1)
    shared: dict[Any, Any] = {}
    compared = 0
    for system in systems(work, newton=False):
        known: dict[str, Any] = {}
        for e in system.equations:
            layer = e.layer or 0
            inputs = {}
            for s in inputs_of(e.value):
                place = (s.family, None if s.index is None else s.index - layer, len(s.axes))
                inputs[s] = shared.setdefault(place, rng.uniform(0.2, 0.9, tuple(a.size for a in s.axes)))
            value = evaluate({"value": e.value}, inputs)["value"]
            key = f"{e.symbol.family} {generic_key(e.value, layer)}"
            if key in known:
                assert np.allclose(known[key], value, rtol=1e-12)
                compared += 1
            known[key] = value
    assert compared > 30


def x(k: int, size: int = 3) -> Input:
    return Input("x", k, (Axis(f"fc{k}", size),), Role.STATE)


def w(k: int) -> Input:
    return Input("W", k, (Axis(f"fc{k}.out", 3), Axis(f"fc{k}.in", 3)), Role.PARAMETER)


def applied(k: int, transposed: bool = False) -> Expr:
    i, j = Axis(f"fc{k}", 3), Axis(f"fc{k - 1}", 3)
    return einsum([(w(k), (j, i) if transposed else (i, j)), (x(k - 1), (j,))], (i,))


DIFFERENT = {
    "transposition": (applied(2), applied(3, transposed=True)),
    "function": (apply(EXP, x(2)), apply(LOG, x(3))),
    "derivative": (apply(LOG, x(2)), apply(LOG, x(3), orders=(1,))),
    "coefficient": (add([(2, x(2))], x(2).axes), add([(3, x(3))], x(3).axes)),
    "distance": (applied(2), einsum([(w(3), w(3).axes), (x(1), w(3).axes[1:])], w(3).axes[:1])),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_keys_differ_where_expressions_differ_by_more_than_a_shift(name: str) -> None:
    left, right = DIFFERENT[name]
    assert generic_key(left, 2) != generic_key(right, 3)


def test_keys_do_not_depend_on_sizes_or_on_the_order_of_operands() -> None:
    assert generic_key(applied(2), 2) == generic_key(applied(5), 5)
    assert generic_key(apply(EXP, x(2, 3)), 2) == generic_key(apply(EXP, x(3, 7)), 3)


def test_activations_compare_by_what_they_compute() -> None:
    """tanh twice is one function; leaky_relu with two slopes is two."""
    case = chain(LEAKY, 4)
    case["network"]["layers"][1]["activation"] = {"function": "leaky_relu", "parameters": {"slope": 0.2}}
    work = derived(case)
    values = {e.symbol.index: e.value for e in work.first.forward.equations if e.symbol.family == "x"}
    assert generic_key(values[1], 1) == generic_key(values[3], 3)
    assert generic_key(values[1], 1) != generic_key(values[2], 2)


@pytest.mark.parametrize(
    ("members", "last", "expected"),
    [
        ([1, 2, 3], 3, "k = 1..n"),
        ([1, 2], 3, "k = 1..n−1"),
        (range(2, 99), 100, "k = 2..n−2"),
        ([1, 3], 9, "k = 1, 3"),
        ([1, 2, 3], None, "k = 1..3"),
        ([3], 3, "k = n"),
        (range(1, 100, 2), 100, "k = 1, 3, …, n−1"),
    ],
)
def test_ranges(members: Any, last: int | None, expected: str) -> None:
    assert range_text(members, last) == expected
