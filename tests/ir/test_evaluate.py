"""Values of expressions in float64 and in mpmath, against NumPy written out by hand."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest

from sifrc.ir import ArgMax, Axis, Delta, Expr, Input, LogSumExp, Reduce, Role, Solve, Spectral
from sifrc.ir.arithmetic import MPMATH, NUMPY, Arithmetic
from sifrc.ir.build import add, apply, einsum, hadamard, inner, ones, scale, subtract, total
from sifrc.ir.evaluate import evaluate
from sifrc.ir.normal import expand
from sifrc.scalar import EXP, LOG, RECIPROCAL, SQRT

ROW, COLUMN, OTHER = Axis("i", 3), Axis("j", 4), Axis("k", 3)
W = Input("W", 1, (ROW, COLUMN), Role.PARAMETER)
V = Input("V", 1, (OTHER, ROW), Role.PARAMETER)
X = Input("x", 1, (COLUMN,), Role.STATE)
Y = Input("y", 1, (ROW,), Role.STATE)
C = Input("c", None, (), Role.HYPERPARAMETER)

_GENERATOR = np.random.default_rng(0)
VALUES: dict[Input, Any] = {
    symbol: _GENERATOR.uniform(0.5, 2.0, size=[axis.size or 1 for axis in symbol.axes])
    for symbol in (W, V, X, Y, C)
}
w, v, x, y, c = (VALUES[symbol] for symbol in (W, V, X, Y, C))
SYMMETRIC = w @ w.T + np.eye(3)

PRODUCT = einsum([(W, (ROW, COLUMN)), (X, (COLUMN,))], (ROW,))
GRAM = add(
    [
        (Fraction(1), einsum([(W, (ROW, COLUMN)), (W, (OTHER, COLUMN))], (ROW, OTHER))),
        (Fraction(1), Delta(ROW, OTHER)),
    ],
    (ROW, OTHER),
)

EXPRESSIONS: dict[str, tuple[Expr, Any]] = {
    "matrix times vector": (PRODUCT, w @ x),
    "two matrices": (einsum([(V, (OTHER, ROW)), (W, (ROW, COLUMN))], (COLUMN, OTHER)), (v @ w).T),
    "outer product": (einsum([(Y, (ROW,)), (X, (COLUMN,))], (COLUMN, ROW)), np.outer(x, y)),
    "entrywise": (hadamard(Y, PRODUCT), y * (w @ x)),
    "trace": (einsum([(V, (ROW, ROW))], ()), np.trace(v)),
    "diagonal": (einsum([(V, (ROW, ROW))], (ROW,)), np.diag(v)),
    "sum of entries": (einsum([(W, (ROW, COLUMN))], ()), w.sum()),
    "spread over an axis": (einsum([(Y, (ROW,))], (ROW, COLUMN)), np.repeat(y[:, None], 4, axis=1)),
    "ones": (ones((ROW,)), np.ones(3)),
    "rational factor": (scale(Fraction(1, 3), Y), y / 3),
    "scalar factor": (einsum([(C, ()), (Y, (ROW,))], (ROW,)), c * y),
    "difference": (subtract(Y, PRODUCT), y - w @ x),
    "identity plus product": (GRAM, w @ w.T + np.eye(3)),
    "function": (apply(EXP, PRODUCT), np.exp(w @ x)),
    "derivative": (apply(LOG, Y, orders=(2,)), -1 / y**2),
    "reciprocal of a norm": (apply(RECIPROCAL, apply(SQRT, inner(Y, Y))), 1 / np.linalg.norm(y)),
    "logsumexp": (LogSumExp(W, COLUMN), np.log(np.exp(w).sum(axis=1))),
    "largest entry": (Reduce(W, ROW), w.max(axis=0)),
    "first of the largest entries": (ArgMax(W, ROW), (w == w.max(axis=0)).astype(float)),
    "largest magnitude": (Reduce(W, ROW, "magnitude"), abs(w).max(axis=0)),
    "linear system": (Solve(GRAM, Y), np.linalg.solve(SYMMETRIC, y)),
    "positive matrix is its own absolute value": (Spectral(GRAM, "absolute"), SYMMETRIC),
}


@pytest.mark.parametrize("arithmetic", [NUMPY, MPMATH], ids=["float64", "mpmath"])
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_value_is_the_one_numpy_gives(name: str, arithmetic: Arithmetic) -> None:
    """Every node type has the same meaning in both number systems."""
    expr, expected = EXPRESSIONS[name]
    with mpmath.workdps(30):
        value = evaluate({"value": expr}, VALUES, arithmetic)["value"]
        assert value.shape == np.shape(expected)
        np.testing.assert_allclose(np.asarray(value, dtype=float), expected, rtol=1e-13)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expanding_keeps_the_value(name: str) -> None:
    """Sums of products have the value of what they were expanded from."""
    expr, expected = EXPRESSIONS[name]
    value = evaluate({"value": expand(expr)}, VALUES)["value"]
    np.testing.assert_allclose(value, expected, rtol=1e-13)


@pytest.mark.parametrize("arithmetic", [NUMPY, MPMATH], ids=["float64", "mpmath"])
def test_products_of_many_factors_take_no_longer_than_those_of_two(arithmetic: Arithmetic) -> None:
    """A chain of 30 matrices, a vector and a number: all at once would go through 3³⁰ values of labels."""
    rows = [Axis(f"row{n}", 3) for n in range(31)]
    factors = [(V, pair) for pair in itertools.pairwise(rows)]
    chain = einsum([*factors, (Y, (rows[-1],)), (C, ())], (rows[0],))
    expected = np.linalg.matrix_power(v, 30) @ y * c
    value = np.asarray(evaluate({"value": chain}, VALUES, arithmetic)["value"], dtype=float)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    whole = einsum([*factors, (Y, (rows[0],)), (Y, (rows[-1],)), (C, ())], ())
    value = evaluate({"value": whole}, VALUES, arithmetic)["value"]
    np.testing.assert_allclose(float(value), y @ expected, rtol=1e-12)


@pytest.mark.parametrize("arithmetic", [NUMPY, MPMATH], ids=["float64", "mpmath"])
def test_singular_system_gives_the_solution_of_least_norm(arithmetic: Arithmetic) -> None:
    """(diag p − p pᵀ) u = r with r ⊥ 1, the output system of cross-entropy: u ⊥ 1."""
    p = np.array([0.2, 0.3, 0.5])
    matrix, rhs = np.diag(p) - np.outer(p, p), np.array([1.0, -3.0, 2.0])
    with mpmath.workdps(50):
        p_precise = arithmetic.array(p)
        # Made consistent in the number system itself: 0.2 + 0.3 + 0.5 is not one in binary.
        p_precise = p_precise / p_precise.sum()
        system = arithmetic.array(np.eye(3)) * p_precise - np.multiply.outer(p_precise, p_precise)
        u = arithmetic.solve(system, arithmetic.array(rhs))
        found = np.asarray(u, dtype=float)
    np.testing.assert_allclose(matrix @ found, rhs, atol=1e-13)
    np.testing.assert_allclose(found, np.linalg.pinv(matrix) @ rhs, rtol=1e-12)


def test_precision_is_the_one_in_force() -> None:
    """exp(1/3) to 60 digits: no float64 on the way."""
    with mpmath.workdps(60):
        third = scale(Fraction(1, 3), ones((ROW,)))
        value = evaluate({"value": apply(EXP, third)}, {}, MPMATH)["value"]
        assert abs(value[0] - mpmath.exp(mpmath.mpf(1) / 3)) < mpmath.mpf(10) ** -58


def test_a_missing_value_is_an_error() -> None:
    """An input without a value is named."""
    with pytest.raises(KeyError, match=r"W\[1\]"):
        evaluate({"value": PRODUCT}, {X: x})


def test_a_wrong_shape_is_an_error() -> None:
    """Shapes are compared with the axes."""
    with pytest.raises(ValueError, match=r"expected shape \(4,\), got \(3,\)"):
        evaluate({"value": PRODUCT}, {W: w, X: y})


@pytest.mark.parametrize("seed", range(20))
def test_shuffled_operands_have_one_normal_form(seed: int) -> None:
    """Order of factors and terms and names of summed labels do not matter: one object comes out."""
    shuffle = random.Random(seed)
    a, b = Axis(f"p{seed}", 3), Axis(f"q{seed}", 4)
    factors = [(V, (OTHER, a)), (W, (a, b)), (X, (b,)), (Y, (OTHER,)), (Y, (a,))]
    plain = einsum(factors, (OTHER,))
    shuffle.shuffle(factors)
    assert einsum(factors, (OTHER,)) is einsum(
        [(V, (OTHER, ROW)), (W, (ROW, COLUMN)), (X, (COLUMN,)), (Y, (OTHER,)), (Y, (ROW,))], (OTHER,)
    )
    assert einsum(factors, (OTHER,)) is plain
    terms = [Y, PRODUCT, hadamard(Y, Y)]
    sums = [total(order, (ROW,)) for order in itertools.permutations(terms)]
    assert all(found is sums[0] for found in sums)
