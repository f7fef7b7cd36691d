"""Differentials of every kind of expression against central differences, and their transposes."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from test_evaluate import EXPRESSIONS, GRAM, VALUES, C, V, W, X, Y

from sifrc.calculus import jvp, vjp
from sifrc.ir import Axis, Expr, Input, Role, Solve
from sifrc.ir.arithmetic import MPMATH, Array
from sifrc.ir.build import add, einsum
from sifrc.ir.evaluate import evaluate

HELD = {"largest magnitude", "positive matrix is its own absolute value"}
"""Constant under differentiation, or refused."""

MANY = Axis("s", 2)
RIGHT = Input("R", 1, (Y.axes[0], MANY), Role.STATE)
SYMBOLS = (W, V, X, Y, C, RIGHT)
ROW, OTHER = GRAM.axes
MATRICES = add(
    [
        (Fraction(1), einsum([(GRAM, (ROW, OTHER))], (MANY, ROW, OTHER))),
        (Fraction(1), einsum([(RIGHT, (ROW, MANY)), (RIGHT, (OTHER, MANY))], (MANY, ROW, OTHER))),
    ],
    (MANY, ROW, OTHER),
)
CASES: dict[str, Expr] = {
    **{name: expr for name, (expr, _) in EXPRESSIONS.items() if name not in HELD},
    "linear system with a moving right side": Solve(GRAM, EXPRESSIONS["matrix times vector"][0]),
    "linear system with several right sides": Solve(GRAM, RIGHT),
    "many linear systems": Solve(MATRICES, einsum([(RIGHT, (ROW, MANY))], (MANY, ROW))),
}


def numbers(seed: int) -> dict[Input, Array]:
    """A point or a direction."""
    rng = np.random.default_rng(seed)
    shapes = {symbol: [axis.size or 1 for axis in symbol.axes] for symbol in SYMBOLS}
    return {symbol: MPMATH.array(rng.uniform(0.5, 2.0, size=shape)) for symbol, shape in shapes.items()}


def value(expr: Expr, values: dict[Input, Array]) -> Array:
    return evaluate({"value": expr}, values, MPMATH)["value"]


def moved(symbol: Input) -> Input:
    return Input(f"∂{symbol.family}", symbol.index, symbol.axes, symbol.role)


@pytest.mark.parametrize("name", CASES)
def test_differentials_are_central_differences_and_their_transposes(name: str) -> None:
    """By 18 digits, which differences of this step have at 60; ⟨ū, J d⟩ = ⟨Jᵀ ū, d⟩."""
    expr = CASES[name]
    with mpmath.workdps(60):
        point, along, step = numbers(1), numbers(2), mpmath.mpf(10) ** -20
        ahead, behind = (
            value(expr, {symbol: point[symbol] + sign * step * along[symbol] for symbol in SYMBOLS})
            for sign in (1, -1)
        )
        difference = (ahead - behind) / (2 * step)
        tangent = jvp(expr, {symbol: moved(symbol) for symbol in SYMBOLS})
        known = {**point, **{moved(symbol): along[symbol] for symbol in SYMBOLS}}
        found = 0 * difference if tangent is None else value(tangent, known)
        scale = max(1, np.max(np.abs(difference)))
        assert np.max(np.abs(found - difference)) < scale * mpmath.mpf(10) ** -18

        cotangent = Input("ū", None, expr.axes, Role.ADJOINT)
        seed = MPMATH.array(np.random.default_rng(3).uniform(0.5, 2.0, size=np.shape(difference)))
        known = {**point, cotangent: seed}
        pulled = vjp(expr, SYMBOLS, cotangent)
        back = sum(np.sum(value(p, known) * along[s]) for p, s in zip(pulled, SYMBOLS, strict=True))
        assert abs(back - np.sum(seed * found)) < scale * mpmath.mpf(10) ** -45


@pytest.mark.parametrize("name", sorted(HELD))
def test_what_is_held_constant_has_no_differential(name: str) -> None:
    """None where nothing moves, an error where something does."""
    expr = EXPRESSIONS[name][0]
    assert jvp(expr, {X: moved(X)}) is None
    with pytest.raises(TypeError, match="held constant"):
        jvp(expr, {W: moved(W)})
    with pytest.raises(TypeError, match="held constant"):
        vjp(expr, [W], Input("ū", None, expr.axes, Role.ADJOINT))


def test_values_of_the_other_tests_are_a_point_too() -> None:
    """Every symbol of the expressions has a direction here."""
    assert set(VALUES) <= set(SYMBOLS)
