"""A recursion, step by step: the values that its equations give when they are evaluated again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from sifrc.derive.recurrence import Recursion, recursions
from sifrc.derive.system import Equation, System
from sifrc.errors import DerivationError
from sifrc.ir import Affine, Axis, Expr, Input, Role
from sifrc.ir.build import apply, einsum, scale, total
from sifrc.ir.evaluate import evaluate
from sifrc.ir.nodes import LogSoftmax
from sifrc.ir.traverse import inputs_of
from sifrc.lower.recurrence import Split, split
from sifrc.scalar import EXP
from sifrc.verify.precise.systems import evaluate_system

T, S, U, V = Axis("t", 4), Axis("s", 4), Axis("u", 3), Axis("v", 3)
AT = (T, U)


def symbol(family: str, *axes: Axis) -> Input:
    return Input(family, 1, axes, Role.STATE)


H, C, X, F = (symbol(family, *AT) for family in "hcxf")
W = Input("W", 1, (U, V), Role.PARAMETER)
ONE = Affine((4, 1), (1, -1), 2)
"""1 at one step, else 0."""


def shift(distance: int) -> tuple[Expr, tuple[Axis, Axis]]:
    """1 where s = t + distance."""
    return Affine((4, 4), (1, -1), distance), (S, T)


def moved(distance: int, *factors: Input) -> Expr:
    """A product of what is at another step."""
    return einsum([shift(distance), *((factor, (S, U)) for factor in factors)], AT)


def through(distance: int, state: Input) -> Expr:
    """W times a state at another step."""
    return einsum([(W, (U, V)), shift(distance), (state, (S, V))], AT)


def bent(value: Expr) -> Expr:
    """A function of every entry that stays small."""
    return apply(EXP, LogSoftmax(value, U))


SYSTEMS: Mapping[str, list[tuple[Input, Expr]]] = {
    "one step before": [(H, total([X, through(-1, H)], AT))],
    "one step after": [(H, total([X, through(1, H)], AT))],
    "a constant that has a value at each step": [
        (
            H,
            total(
                [X, einsum([(ONE, (T, Axis("one", 1))), (W, (U, V)), shift(-1), (H, (S, V)), (F, AT)], AT)],
                AT,
            ),
        )
    ],
    "a constant of the step and what it computes": [
        (H, total([X, moved(-1, C)], AT)),
        (C, einsum([(ONE, (T, Axis("one", 1))), (H, AT)], AT)),
    ],
    "two steps before": [(H, total([X, through(-2, H)], AT))],
    "one and two steps before": [(H, total([X, moved(-1, H), through(-2, H)], AT))],
    "a function along the units": [(H, bent(total([X, through(-1, H)], AT)))],
    "a product at the step before": [(H, total([X, moved(-1, F, H)], AT))],
    "a product with what is given at another step": [
        (C, einsum([(moved(-1, F), AT), (H, AT)], AT)),
        (H, total([X, scale(2, moved(-1, C))], AT)),
    ],
    "two states, the later one first": [
        (C, total([einsum([(F, AT), (moved(-1, C), AT)], AT), bent(moved(-1, H))], AT)),
        (H, total([X, einsum([(C, AT), (F, AT)], AT)], AT)),
    ],
    "an order that is none": [
        (H, total([X, C, F], AT)),
        (C, bent(through(-1, H))),
    ],
    "a sum within a product": [
        (H, einsum([(F, AT), (total([X, moved(-1, H), F], AT), AT)], AT)),
    ],
}


def stepped(parts: Split, values: dict[Input, Any]) -> dict[Input, Any]:
    """What the loop stores."""
    recursion = parts.recursion
    values = evaluate_system(System("given", "", tuple(parts.given)), values)
    before = {symbol: np.zeros([axis.entries for axis in symbol.axes]) for _, symbol in parts.carried}
    found: dict[Input, list[Any]] = {now: [] for now in parts.stored}
    order = range(recursion.steps)
    for step in reversed(order) if recursion.backwards else order:
        at = dict(values) | before
        for piece, (array, slot) in parts.slices.items():
            at[piece] = np.take(values[array], step, slot)
        for equation in parts.steps:
            used = {s: at[s] for s in inputs_of(equation.value)}
            at[equation.symbol] = evaluate({"value": equation.value}, used)["value"]
        for now, later in parts.carried:
            before[later] = at[now] if now not in before else before[now]
        for now, rows in found.items():
            rows.append(at[now])
    stored = {}
    for now, rows in found.items():
        whole = parts.stored[now]
        ordered = rows[::-1] if recursion.backwards else rows
        stored[whole] = np.stack(ordered, recursion.slots[whole.family, whole.index])
    return stored


@pytest.mark.parametrize("name", SYSTEMS)
def test_steps_are_what_the_equations_say(name: str) -> None:
    equations = tuple(Equation(symbol, value, 1, "definition") for symbol, value in SYSTEMS[name])
    generator = np.random.default_rng(1)
    values = {s: generator.normal(size=[a.entries for a in s.axes]) for s in (X, F, W)}
    expected = evaluate_system(System("whole", "", equations), values)
    (recursion,) = recursions(equations)
    assert isinstance(recursion, Recursion)
    counts: dict[tuple[str, str], int] = {}

    def named(owner: Input, word: str, axes: tuple[Axis, ...]) -> Input:
        counts[owner.family, word] = counts.get((owner.family, word), 0) + 1
        assert counts[owner.family, word] == 1, "two arrays of one name"
        return Input(f"{owner.family}.{word}", owner.index, axes, owner.role)

    parts = split(recursion, named)
    members = {equation.symbol for equation in equations}
    assert not members & set(inputs_of(*(e.value for e in (*parts.given, *parts.steps))))
    found = stepped(parts, values)
    for member in members:
        np.testing.assert_allclose(found[member], expected[member], rtol=1e-12, atol=1e-14)


def test_what_is_given_is_no_part_of_a_step() -> None:
    """Functions and sums without the recursion are arrays over all steps."""
    rest = total([apply(EXP, X), F], AT)
    equation = Equation(H, einsum([(rest, AT), (moved(-1, H), AT), (apply(EXP, F), AT)], AT), 1, "definition")
    (recursion,) = recursions([equation])
    assert isinstance(recursion, Recursion)
    parts = split(recursion, lambda owner, word, axes: Input(f"{owner.family}.{word}", 1, axes, owner.role))
    assert len(parts.given) == 1
    (step,) = parts.steps
    assert len(inputs_of(step.value)) == 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda: total([moved(-1, H), moved(1, H)], AT), "before and after"),
        (lambda: total([X, einsum([(H, AT), (F, AT)], AT)], AT), "refer to themselves"),
        (lambda: einsum([(F, AT), (H, (S, U))], AT), "refer to themselves"),
    ],
)
def test_what_is_no_recursion(value: Callable[[], Expr], words: str) -> None:
    """A state at the same step, at all steps, or on both sides."""
    with pytest.raises(DerivationError, match=words):
        recursions([Equation(H, value(), 1, "definition")])


def test_equations_in_order_stay_as_they_are() -> None:
    equations = (Equation(C, X, 1, "definition"), Equation(H, bent(C), 1, "definition"))
    assert recursions(equations) == equations
