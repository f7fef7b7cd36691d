"""Recursions without what no step needs of another one have the values that all their equations give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from sifrc.derive.recurrence import Recursion, recursions
from sifrc.derive.system import Equation, System
from sifrc.ir import Add, Affine, Axis, Expr, Input, Role
from sifrc.ir.build import apply, einsum, hadamard, scale, total
from sifrc.ir.normal import operands_of
from sifrc.lower.feedback import Feedback, feedback
from sifrc.scalar import scalar_from_tree
from sifrc.spec.functionspec import built_in_expression
from sifrc.verify.precise.systems import evaluate_system

T, S, U, V, TWO, BOTH = Axis("t", 4), Axis("s", 4), Axis("u", 3), Axis("v", 3), Axis("w", 6), Axis("b", 6)
AT, WIDE = (T, U), (T, TWO)
TANH = scalar_from_tree(built_in_expression("activation", "tanh"), ("x",), (), "tanh")


def symbol(family: str, *axes: Axis) -> Input:
    return Input(family, 1, axes, Role.ADJOINT)


H, C, D, X, F, G = (symbol(family, *AT) for family in "hcdxfg")
A, B, K = (symbol(family, *WIDE) for family in "abk")
P, Q = (symbol(family, *AT) for family in "pq")
W = Input("W", 1, (U, V), Role.PARAMETER)
M = Input("M", 1, (TWO, U), Role.PARAMETER)


def before(*factors: Input) -> Expr:
    """A product of what the step before has."""
    return einsum([(Affine((4, 4), (1, -1), -1), (S, T)), *((factor, (S, U)) for factor in factors)], AT)


def through(state: Input) -> Expr:
    """W times a state of the step before."""
    return einsum([(W, (U, V)), (Affine((4, 4), (1, -1), -1), (S, T)), (state, (S, V))], AT)


def of_wide(wide: Input) -> Expr:
    """Mᵀ times a wide array of the step before."""
    shift = Affine((4, 4), (1, -1), -1), (S, T)
    return einsum([(M, (TWO, U)), shift, (wide, (S, TWO))], AT)


def to_wide(state: Input) -> Expr:
    """M times a state of the step before."""
    return einsum([(M, (TWO, U)), (Affine((4, 4), (1, -1), -1), (S, T)), (state, (S, U))], WIDE)


def part(wide: Input, start: int) -> Expr:
    """Three of six entries."""
    return einsum([(Affine((6, 3), (1, -1), start), (TWO, U)), (wide, WIDE)], AT)


def placed(narrow: Input, start: int) -> Expr:
    """Three entries among six."""
    return einsum([(Affine((6, 3), (1, -1), start), (TWO, U)), (narrow, AT)], WIDE)


SYSTEMS: Mapping[str, tuple[list[tuple[Input, Expr]], str]] = {
    "a factor": ([(C, hadamard(F, before(H))), (H, total([X, hadamard(G, C)], AT))], "h"),
    "a factor, and what is given": (
        [
            (C, total([X, hadamard(F, H)], AT)),
            (D, scale(-2, hadamard(C, G))),
            (H, total([X, through(D)], AT)),
        ],
        "dh",
    ),
    "one term, twice": (
        [
            (C, hadamard(F, H)),
            (D, total([hadamard(C, G), hadamard(C, X)], AT)),
            (H, total([X, through(D), through(H)], AT)),
        ],
        "dh",
    ),
    "three terms, twice": (
        [
            (C, total([hadamard(F, before(H)), hadamard(G, before(D)), before(H)], AT)),
            (D, total([hadamard(C, G), through(D)], AT)),
            (H, total([X, hadamard(C, X), through(D)], AT)),
        ],
        "cdh",
    ),
    "parts of an array": (
        [
            (A, total([K, to_wide(H)], WIDE)),
            (P, part(A, 0)),
            (Q, part(A, 3)),
            (C, apply(TANH, P)),
            (H, hadamard(Q, C)),
        ],
        "ach",
    ),
    "side by side": (
        [
            (H, total([X, of_wide(A)], AT)),
            (C, hadamard(F, H)),
            (D, total([hadamard(G, H), X], AT)),
            (B, total([placed(C, 0), placed(D, 3)], WIDE)),
            (A, hadamard(K, B)),
        ],
        "ah",
    ),
    "zeros beside": (
        [(H, total([X, of_wide(A)], AT)), (A, placed(H, 3))],
        "ah",
    ),
    "read by a function": ([(C, hadamard(F, before(H))), (H, apply(TANH, total([X, C], AT)))], "ch"),
    "read at another step": ([(C, apply(TANH, H)), (H, total([X, before(C)], AT))], "ch"),
    "beyond an array": (
        [
            (H, total([X, of_wide(A)], AT)),
            (A, einsum([(Affine((6, 3), (1, -1), 4), (TWO, U)), (H, AT), (K, WIDE)], WIDE)),
        ],
        "ah",
    ),
}


def taken_apart(name: str) -> tuple[Recursion, Feedback]:
    equations = [Equation(symbol, value, 1, "definition") for symbol, value in SYSTEMS[name][0]]
    (recursion,) = recursions(equations)
    assert isinstance(recursion, Recursion)
    return recursion, feedback(recursion)


@pytest.mark.parametrize("name", SYSTEMS)
def test_all_have_the_values_of_their_equations(name: str) -> None:
    recursion, parts = taken_apart(name)
    generator = np.random.default_rng(1)
    given = (X, F, G, K, W, M)
    values = {s: generator.normal(size=[axis.entries for axis in s.axes]) for s in given}
    expected = evaluate_system(System("whole", "", recursion.equations), values)
    split = (*parts.recursion.equations, *parts.after)
    found = evaluate_system(System("parts", "", split), values)
    for equation in recursion.equations:
        np.testing.assert_allclose(found[equation.symbol], expected[equation.symbol], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_steps_need_of_each_other(name: str) -> None:
    recursion, parts = taken_apart(name)
    kept = sorted(equation.symbol.family for equation in parts.recursion.equations)
    assert "".join(kept) == SYSTEMS[name][1]
    assert [equation.symbol for equation in parts.defined] == [e.symbol for e in parts.recursion.equations]
    assert {*parts.defined, *parts.after} == {*recursion.equations}


def test_factors_meet_in_a_product_of_the_shortest_arrays() -> None:
    """A wide factor of what is placed in a wide array is read where the narrow one is."""
    _, parts = taken_apart("side by side")
    (wide,) = [equation.value for equation in parts.recursion.equations if equation.symbol is A]
    assert isinstance(wide, Add)
    for _, term in wide.terms:
        labels = {label for operand, own in operands_of(term) if isinstance(operand, Input) for label in own}
        assert not labels & {TWO}
