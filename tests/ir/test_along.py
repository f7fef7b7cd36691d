"""Expressions for every value of an index, differentials along many directions, labels of products."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from sifrc.calculus import seeded
from sifrc.ir import Axis, Delta, Expr, Input, LogSumExp, Reduce, Role, Solve, Spectral
from sifrc.ir.along import along, spread
from sifrc.ir.build import add, apply, einsum, hadamard, inner, ones, scale, subtract, total, zero
from sifrc.ir.evaluate import evaluate
from sifrc.scalar import EXP, SQRT

ROW, COLUMN, OTHER, MANY = Axis("i", 3), Axis("j", 4), Axis("k", 3), Axis("class", 5)
W = Input("W", 1, (ROW, COLUMN), Role.PARAMETER)
X = Input("x", 1, (COLUMN,), Role.STATE)
Y = Input("y", 1, (ROW,), Role.STATE)
C = Input("c", None, (), Role.STATE)
MOVING = (X, Y, C)
"""Inputs with a value for each index; W has one for all."""

_GENERATOR = np.random.default_rng(0)
WEIGHT = _GENERATOR.uniform(0.5, 2.0, size=(3, 4))
STACKS: dict[Input, Any] = {
    symbol: _GENERATOR.uniform(0.5, 2.0, size=[5, *(axis.size or 1 for axis in symbol.axes)])
    for symbol in MOVING
}

PRODUCT = einsum([(W, (ROW, COLUMN)), (X, (COLUMN,))], (ROW,))
OUTER = einsum([(Y, (ROW,)), (Y, (OTHER,))], (ROW, OTHER))
MATRIX = add([(Fraction(1), OUTER), (Fraction(2), Delta(ROW, OTHER))], (ROW, OTHER))
EXPRESSIONS: dict[str, Expr] = {
    "input": Y,
    "product": PRODUCT,
    "inner": inner(X, X),
    "outer": OUTER,
    "diagonal": einsum([(OUTER, (ROW, ROW))], (ROW,)),
    "sum of terms of which one moves": total([PRODUCT, einsum([(W, (ROW, COLUMN))], (ROW,))], (ROW,)),
    "matrix": MATRIX,
    "scalar factor": einsum([(C, ()), (W, (ROW, COLUMN))], (ROW, COLUMN)),
    "function": apply(EXP, PRODUCT),
    "function of two": apply(EXP, subtract(PRODUCT, Y)),
    "derivative": apply(SQRT, Y, orders=(2,)),
    "logsumexp": LogSumExp(PRODUCT, ROW),
    "maximum": Reduce(subtract(PRODUCT, Y), ROW),
    "spread": einsum([(Y, (ROW,))], (ROW, COLUMN)),
    "solve": Solve(MATRIX, Y),
    "solve with a fixed right side": Solve(MATRIX, einsum([(W, (ROW, COLUMN))], (ROW,))),
    "spectral": Spectral(MATRIX, "absolute"),
}
FIXED: dict[str, Expr] = {
    "parameter": W,
    "delta": Delta(ROW, OTHER),
    "ones": ones((ROW,)),
    "zero": zero((ROW,)),
    "function": apply(EXP, W),
    "product": einsum([(W, (ROW, COLUMN)), (W, (OTHER, COLUMN))], (ROW, OTHER)),
    "scaled": scale(Fraction(1, 3), W),
}


def lifted(symbol: Input) -> Input:
    if symbol not in MOVING:
        return symbol
    return Input(symbol.family, symbol.index, (MANY, *symbol.slots), symbol.role)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_along_an_axis_is_a_stack_of_its_values(name: str) -> None:
    """The axis comes first, and every entry is the expression at that entry's inputs."""
    expr = EXPRESSIONS[name]
    found = along(expr, MANY, lifted)
    assert found.axes == (MANY, *expr.axes)
    value = evaluate({"v": found}, {W: WEIGHT} | {lifted(s): v for s, v in STACKS.items()})["v"]
    each = [evaluate({"v": expr}, {W: WEIGHT} | {s: v[k] for s, v in STACKS.items()})["v"] for k in range(5)]
    np.testing.assert_allclose(value, np.stack(each), rtol=1e-12, atol=1e-13)


def test_a_system_with_several_right_sides_keeps_their_axis_last() -> None:
    """Matrix and right sides with the axis in front."""
    right = einsum([(Y, (ROW,)), (X, (COLUMN,))], (ROW, COLUMN))
    assert along(Solve(MATRIX, right), MANY, lifted).axes == (MANY, OTHER, COLUMN)


@pytest.mark.parametrize("name", FIXED)
def test_what_does_not_move_is_left_as_it_is(name: str) -> None:
    """Not only equal: the same node, so that nothing is computed for each index."""
    assert along(FIXED[name], MANY, lifted) is FIXED[name]


def test_an_input_may_become_an_expression() -> None:
    """A one-hot target: a Delta in its place gives the loss at every class."""
    label = Axis("class", 4)
    target = Input("t", None, (COLUMN,), Role.DATA)
    loss = subtract(LogSumExp(X, COLUMN), inner(target, X))
    found = along(loss, label, lambda s: Delta(label, COLUMN) if s is target else s)
    assert found.axes == (label,)
    x = STACKS[X][0]
    value = evaluate({"v": found}, {X: x})["v"]
    np.testing.assert_allclose(value, np.log(np.exp(x).sum()) - x, rtol=1e-13)


def test_spread_orders_and_broadcasts() -> None:
    """The axes that are asked for in their order; what is lacking is repeated."""
    assert spread(Y, (ROW,)) is Y
    value = evaluate({"v": spread(Y, (MANY, ROW))}, {Y: STACKS[Y][0]})["v"]
    np.testing.assert_array_equal(value, np.tile(STACKS[Y][0], (5, 1)))
    value = evaluate({"v": spread(W, (COLUMN, ROW))}, {W: WEIGHT})["v"]
    np.testing.assert_array_equal(value, WEIGHT.T)


def difference(expr: Expr, symbol: Input, at: dict[Input, Any], direction: np.ndarray) -> np.ndarray:
    """A central difference of an expression."""
    step = 1e-5
    ends = [
        evaluate({"v": expr}, at | {symbol: at[symbol] + sign * step * direction})["v"] for sign in (1, -1)
    ]
    return np.asarray((ends[0] - ends[1]) / (2 * step))


SMOOTH: dict[str, Expr] = {
    "linear": PRODUCT,
    "quadratic": hadamard(PRODUCT, PRODUCT),
    "outer": einsum([(X, (COLUMN,)), (PRODUCT, (ROW,))], (COLUMN, ROW)),
    "function": apply(EXP, scale(Fraction(1, 5), PRODUCT)),
    "logsumexp": LogSumExp(PRODUCT, ROW),
    "entrywise": apply(SQRT, X),
    "mixed": total([hadamard(PRODUCT, Y), apply(EXP, Y)], (ROW,)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_seeded_moves_along_all_directions_at_once(name: str) -> None:
    """Entry (…, c) is the differential along direction c, against central differences."""
    expr = SMOOTH[name]
    seed = Input("S", None, (COLUMN, MANY), Role.STATE)
    found = seeded(expr, {X: seed}, (MANY,))
    assert found.axes == (*expr.axes, MANY)
    directions = _GENERATOR.normal(size=(4, 5))
    at = {W: WEIGHT, X: STACKS[X][0], Y: STACKS[Y][0]}
    value = evaluate({"v": found}, at | {seed: directions})["v"]
    for c in range(5):
        np.testing.assert_allclose(value[..., c], difference(expr, X, at, directions[:, c]), rtol=1e-7)


@pytest.mark.parametrize("name", SMOOTH)
def test_a_delta_as_seed_gives_the_jacobian(name: str) -> None:
    """No Delta is left but where the Jacobian is diagonal."""
    expr = SMOOTH[name]
    other = Axis("j", 4, 1)
    found = seeded(expr, {X: Delta(COLUMN, other)}, (other,))
    assert found.axes == (*expr.axes, other)
    at = {W: WEIGHT, X: STACKS[X][0], Y: STACKS[Y][0]}
    value = evaluate({"v": found}, at)["v"]
    for j, unit in enumerate(np.eye(4)):
        np.testing.assert_allclose(value[..., j], difference(expr, X, at, unit), rtol=1e-7, atol=1e-9)


def test_several_seeds_add_up_and_others_stay_fixed() -> None:
    """d(x∘y) along both; W does not move."""
    expr = hadamard(PRODUCT, Y)
    first = Input("S", 1, (COLUMN, MANY), Role.STATE)
    second = Input("S", 2, (ROW, MANY), Role.STATE)
    both = seeded(expr, {X: first, Y: second}, (MANY,))
    apart = total([seeded(expr, {X: first}, (MANY,)), seeded(expr, {Y: second}, (MANY,))], (ROW, MANY))
    values = {
        W: WEIGHT,
        X: STACKS[X][0],
        Y: STACKS[Y][0],
        first: _GENERATOR.normal(size=(4, 5)),
        second: _GENERATOR.normal(size=(3, 5)),
    }
    found = evaluate({"both": both, "apart": apart}, values)
    np.testing.assert_allclose(found["both"], found["apart"], rtol=1e-12)


def test_what_does_not_depend_on_a_seed_has_differential_zero() -> None:
    """Zero over the axes of the result, also without seeds."""
    other = Axis("m", 4)
    assert seeded(apply(EXP, Y), {X: Delta(COLUMN, other)}, (other,)) is zero((ROW, other))
    assert seeded(PRODUCT, {}, (MANY,)) is zero((ROW, MANY))


@pytest.mark.parametrize("names", [("#0", "#1"), ("#1", "#0"), ("#0", "i"), ("i", "#1"), ("#2", "#0")])
def test_contracted_labels_do_not_capture_output_axes_with_their_names(names: tuple[str, str]) -> None:
    """A product over an axis named ``#0`` that also sums: the sum must get another name."""
    row, column = Axis(names[0], 3), Axis(names[1], 3)
    first, second = Axis("a", 3), Axis("b", 3)
    p, q, r = (Input(f, None, (Axis("u", 3), Axis("v", 3)), Role.PARAMETER) for f in "PQR")
    product = einsum([(p, (row, first)), (q, (first, second)), (r, (second, column))], (row, column))
    values = {symbol: _GENERATOR.normal(size=(3, 3)) for symbol in (p, q, r)}
    found = evaluate({"v": product}, values)["v"]
    np.testing.assert_allclose(found, values[p] @ values[q] @ values[r], rtol=1e-12)
    same = einsum([(p, (row, first)), (p, (first, second)), (p, (second, column))], (row, column))
    found = evaluate({"v": same}, values)["v"]
    np.testing.assert_allclose(found, np.linalg.matrix_power(values[p], 3), rtol=1e-12)


def test_output_axes_with_primes_are_other_axes() -> None:
    """``#0`` and ``#0'``: names decide, so neither may be taken for the sum."""
    row, column, between = Axis("#0", 3), Axis("#0", 3, 1), Axis("a", 3)
    p = Input("P", None, (Axis("u", 3), Axis("v", 3)), Role.PARAMETER)
    product = einsum([(p, (row, between)), (p, (column, between))], (row, column))
    value = _GENERATOR.normal(size=(3, 3))
    np.testing.assert_allclose(evaluate({"v": product}, {p: value})["v"], value @ value.T, rtol=1e-12)
