"""Differentials of every kind of expression against central differences, and their transposes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import product
from typing import Any, TypeAlias

import mpmath
import numpy as np
import pytest
from test_evaluate import EXPRESSIONS, GRAM, VALUES, C, V, W, X, Y

from sifrc.calculus import jvp, vjp
from sifrc.ir import Affine, ArgMax, Axis, Expr, Input, Reduce, Role, Solve
from sifrc.ir.arithmetic import MPMATH, NUMPY, Array
from sifrc.ir.build import add, apply, einsum, hadamard, inner, total
from sifrc.ir.evaluate import evaluate
from sifrc.ir.selections import joined, window
from sifrc.scalar import EXP

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


COLUMN = X.axes[0]
PLACE, ENTRY = Axis("place", 3), Axis("entry", 2)
SPREAD, LONG, HALF, SIXTH = Axis("spread", 7), Axis("long", 12), Axis("half", 2), Axis("sixth", 6)
POINT = (W, V, X, Y)
Numbers: TypeAlias = Callable[[Array, Array, Array, Array], Array]
"""An expression of W, V, x and y by NumPy, in any numbers."""


def read(source: Expr, *more: Any, padding: int = 1) -> Expr:
    """Windows of two at three places with a stride of two, and what they are multiplied with."""
    before, (axis,) = source.axes[:-1], source.axes[-1:]
    table = window(axis.entries, 3, 2, stride=2, padding=padding)
    return einsum([(table, (axis, PLACE, ENTRY)), (source, source.axes), *more], (*before, PLACE, ENTRY))


def windows(values: Array, padding: int = 1) -> Array:
    """The same by hand."""
    found = np.zeros((*values.shape[:-1], 3, 2), dtype=object)
    for place, entry in product(range(3), range(2)):
        where = 2 * place + entry - padding
        if 0 <= where < values.shape[-1]:
            found[..., place, entry] = values[..., where]
    return found


def transposed(values: Array, kernel: Array) -> Array:
    """Each number spread by a kernel over every second place, with one that is cut off."""
    found = np.zeros(7, dtype=object)
    for place, entry in product(range(len(values)), range(len(kernel))):
        where = 2 * place + entry - 1
        if 0 <= where < 7:
            found[where] += values[place] * kernel[entry]
    return found


def exp(values: Array) -> Array:
    return np.asarray(np.vectorize(mpmath.exp, otypes=[object])(values))


PRODUCT = EXPRESSIONS["matrix times vector"][0]
TABLE = hadamard(W, einsum([(Y, (ROW,)), (X, (COLUMN,))], (ROW, COLUMN)))
FLAT = einsum([(joined((3, 4)), (LONG, ROW, COLUMN)), (TABLE, (ROW, COLUMN))], (LONG,))
SPLIT = einsum([(joined((2, 6)), (LONG, HALF, SIXTH)), (FLAT, (LONG,))], (HALF, SIXTH))
BACK = einsum(
    [(window(7, 3, 4, stride=2, padding=1), (SPREAD, ROW, COLUMN)), (PRODUCT, (ROW,)), (X, (COLUMN,))],
    (SPREAD,),
)
POOLED = Reduce(read(TABLE), ENTRY)
READ: Mapping[str, tuple[Expr, Numbers]] = {
    "windows": (read(hadamard(X, X)), lambda w, v, x, y: windows(x * x)),
    "convolution": (
        einsum([(read(TABLE), (ROW, PLACE, ENTRY)), (read(X), (PLACE, ENTRY))], (ROW, PLACE)),
        lambda w, v, x, y: (windows(w * np.multiply.outer(y, x)) * windows(x)).sum(axis=-1),
    ),
    "transposed convolution": (BACK, lambda w, v, x, y: transposed(w @ x, x)),
    "dilated, flipped": (
        einsum(
            [(Affine((4, 3, 3), (1, 1, -2), 1), (COLUMN, PLACE, ROW)), (X, (COLUMN,)), (Y, (ROW,))], (PLACE,)
        ),
        lambda w, v, x, y: np.array(
            [sum(y[k] * x[1 + 2 * k - p] for k in range(3) if 0 <= 1 + 2 * k - p < 4) for p in range(3)]
        ),
    ),
    "diagonal of windows": (
        einsum([(Affine((4, 2, 2), (1, -1, -1)), (COLUMN, HALF, HALF)), (TABLE, (ROW, COLUMN))], (ROW, HALF)),
        lambda w, v, x, y: (w * np.multiply.outer(y, x))[:, [0, 2]],
    ),
    "joined": (hadamard(FLAT, FLAT), lambda w, v, x, y: ((w * np.multiply.outer(y, x)) ** 2).ravel()),
    "joined and taken apart": (
        hadamard(SPLIT, SPLIT),
        lambda w, v, x, y: ((w * np.multiply.outer(y, x)) ** 2).reshape(2, 6),
    ),
    "largest of windows": (POOLED, lambda w, v, x, y: windows(w * np.multiply.outer(y, x)).max(axis=-1)),
    "largest of two axes": (
        Reduce(Reduce(SPLIT, SIXTH), HALF),
        lambda w, v, x, y: np.asarray((w * np.multiply.outer(y, x)).max()),
    ),
    "largest of what is not linear": (
        Reduce(apply(EXP, hadamard(PRODUCT, Y)), ROW),
        lambda w, v, x, y: np.asarray(exp((w @ x) * y).max()),
    ),
    "square of the largest": (
        hadamard(POOLED, POOLED),
        lambda w, v, x, y: windows(w * np.multiply.outer(y, x)).max(axis=-1) ** 2,
    ),
    "convolution of the largest": (
        einsum([(V, (OTHER, ROW)), (POOLED, (ROW, PLACE)), (read(X), (PLACE, ENTRY))], (OTHER, ENTRY)),
        lambda w, v, x, y: v @ windows(w * np.multiply.outer(y, x)).max(axis=-1) @ windows(x),
    ),
    "the largest under labels of another axis": (
        einsum([(V, (OTHER, ROW)), (POOLED, (OTHER, PLACE))], (ROW, PLACE)),
        lambda w, v, x, y: v.T @ windows(w * np.multiply.outer(y, x)).max(axis=-1),
    ),
    "diagonal of functions of windows": (
        einsum([(apply(EXP, read(W)), (ROW, ROW, ENTRY)), (POOLED, (ROW, ROW))], (ROW, ENTRY)),
        lambda w, v, x, y: np.array(
            [
                exp(windows(w)[i, i]) * windows(w * np.multiply.outer(y, x)).max(axis=-1)[i, i]
                for i in range(3)
            ]
        ),
    ),
    "largest of a transposed convolution": (
        Reduce(read(BACK, padding=0), PLACE),
        lambda w, v, x, y: windows(transposed(w @ x, x), 0).max(axis=0),
    ),
    "what is where the largest is": (
        einsum([(ArgMax(TABLE, COLUMN), (ROW, COLUMN)), (W, (ROW, COLUMN)), (X, (COLUMN,))], (ROW,)),
        lambda w, v, x, y: np.array(
            [w[i, j] * x[j] for i, j in enumerate((w * np.multiply.outer(y, x)).argmax(axis=1))]
        ),
    ),
}


def by_hand(
    name: str, point: Mapping[Input, Array], step: Any = 0, *directions: Mapping[Input, Array]
) -> Array:
    """The value by NumPy, a step away along directions."""
    return np.asarray(READ[name][1](*(point[s] + sum(step * d[s] for d in directions) for s in POINT)))


def differential(name: str, along: Mapping[Input, Array], step: Any) -> Array:
    """By central differences of what NumPy gives."""
    point = numbers(1)
    return (by_hand(name, point, step, along) - by_hand(name, point, -step, along)) / (2 * step)


def unit(symbol: Input, entry: tuple[int, ...]) -> dict[Input, Array]:
    """The direction of one number."""
    found = {s: 0 * values for s, values in numbers(1).items()}
    found[symbol][entry] = mpmath.mpf(1)
    return found


def seeds(shape: tuple[int, ...]) -> Array:
    return MPMATH.array(np.random.default_rng(3).uniform(0.5, 2.0, size=shape))


@pytest.mark.parametrize("name", READ)
def test_what_reads_windows_and_the_largest_is_as_by_numpy(name: str) -> None:
    """Values, differentials along a direction and adjoints, number by number."""
    expr = READ[name][0]
    with mpmath.workdps(60):
        point, along, step = numbers(1), numbers(2), mpmath.mpf(10) ** -20
        expected = by_hand(name, point)
        assert np.max(np.abs(value(expr, point) - expected)) < mpmath.mpf(10) ** -50
        tangent = jvp(expr, {symbol: moved(symbol) for symbol in POINT})
        assert tangent is not None
        found = value(tangent, {**point, **{moved(symbol): along[symbol] for symbol in POINT}})
        difference = differential(name, along, step)
        limit = mpmath.mpf(10) ** -18 * max(1, np.max(np.abs(difference)))
        assert np.max(np.abs(found - difference)) < limit

        cotangent = Input("ū", None, expr.axes, Role.ADJOINT)
        seed = seeds(np.shape(expected))
        for symbol, pulled in zip(POINT, vjp(expr, POINT, cotangent), strict=True):
            back = value(pulled, {**point, cotangent: seed})
            for entry in np.ndindex(back.shape):
                change = differential(name, unit(symbol, entry), step)
                assert abs(back[entry] - np.sum(seed * change)) < 10 * limit


@pytest.mark.parametrize("name", READ)
def test_second_derivatives_of_windows_and_the_largest(name: str) -> None:
    """The adjoint of ⟨adjoint, d⟩ along e is the mixed difference of four values along d and e."""
    expr = READ[name][0]
    with mpmath.workdps(60):
        point, along, across, step = numbers(1), numbers(2), numbers(4), mpmath.mpf(10) ** -15
        seed = seeds(np.shape(by_hand(name, point)))
        corners = [
            sign * by_hand(name, {s: point[s] + step * along[s] for s in POINT}, sign * step, across)
            - sign * by_hand(name, {s: point[s] - step * along[s] for s in POINT}, sign * step, across)
            for sign in (1, -1)
        ]
        expected = np.sum(seed * sum(corners)) / (4 * step**2)

        cotangent = Input("ū", None, expr.axes, Role.ADJOINT)
        adjoints = vjp(expr, POINT, cotangent)
        slope = total((inner(a, moved(s)) for a, s in zip(adjoints, POINT, strict=True)), ())
        known = {**point, cotangent: seed, **{moved(symbol): along[symbol] for symbol in POINT}}
        twice = {s: value(h, known) for s, h in zip(POINT, vjp(slope, POINT), strict=True)}
        found = sum(np.sum(twice[s] * across[s]) for s in POINT)
        assert abs(found - expected) < mpmath.mpf(10) ** -20 * max(1, abs(expected))
        for symbol, adjoint in zip(POINT, adjoints, strict=True):
            tangent = jvp(adjoint, {s: moved(s) for s in POINT})
            same = 0 * point[symbol] if tangent is None else value(tangent, known)
            assert np.max(np.abs(same - twice[symbol])) < mpmath.mpf(10) ** -45


TIED = np.array([[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0], [3.0, 0.0, -1.0, 3.0]])
FIRST = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]], dtype=float)
"""Where the first of the largest entries of each row is."""


@pytest.mark.parametrize("arithmetic", [NUMPY, MPMATH], ids=["float64", "mpmath"])
def test_of_equal_entries_the_derivative_follows_the_first(arithmetic: Any) -> None:
    """Differentials, adjoints and second derivatives go to it alone, also in windows and nested maxima."""
    step = np.arange(12.0).reshape(3, 4) + 1
    seed = np.array([2.0, -3.0, 5.0])
    largest = Reduce(W, COLUMN)
    cotangent = Input("ū", None, (ROW,), Role.ADJOINT)
    known = {W: TIED, moved(W): step, cotangent: seed}

    def number(expr: Expr | None) -> Array:
        assert expr is not None
        return np.asarray(evaluate({"value": expr}, known, arithmetic)["value"], dtype=float)

    assert (number(jvp(largest, {W: moved(W)})) == [2, 5, 9]).all()
    (adjoint,) = vjp(largest, [W], cotangent)
    assert (number(adjoint) == FIRST * seed[:, None]).all()
    (square,) = vjp(hadamard(largest, largest), [W], cotangent)
    assert (number(square) == FIRST * (2 * seed * [3, 5, 3])[:, None]).all()
    (twice,) = vjp(inner(square, moved(W)), [W])
    assert (number(twice) == FIRST * (2 * seed * [2, 5, 9])[:, None]).all()

    (nested,) = vjp(Reduce(largest, ROW), [W])
    assert np.argwhere(number(nested)).tolist() == [[1, 0]]
    assert number(nested).sum() == 1
    assert number(jvp(Reduce(largest, ROW), {W: moved(W)})) == 5

    # Windows of two that overlap: (1, 3), (3, 3), (3, 2); all of one number; (3, 0), (0, -1), (-1, 3).
    table = window(4, 3, 2)
    each = Reduce(einsum([(table, (COLUMN, PLACE, ENTRY)), (W, (ROW, COLUMN))], (ROW, PLACE, ENTRY)), ENTRY)
    (pulled,) = vjp(each, [W], einsum([(cotangent, (ROW,))], (ROW, PLACE)))
    counts = np.array([[0, 2, 1, 0], [1, 1, 1, 0], [1, 1, 0, 1]])
    assert (number(pulled) == counts * seed[:, None]).all()
    assert (number(jvp(each, {W: moved(W)})) == [[2, 2, 3], [5, 6, 7], [9, 10, 12]]).all()
