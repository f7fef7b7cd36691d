"""Structure of linear operators: what is found, what is refused, and that values stay the same.

Values are those of ``sifrc.ir.evaluate`` against dense matrices that are built from the operator itself,
column by column; linear systems are solved here, in NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from newton_blocks import textbook

from sifrc.derive.system import Equation
from sifrc.ir import Axis, Expr, Input, LinearSolve, Role
from sifrc.ir.build import einsum, rename, scale, total
from sifrc.ir.evaluate import evaluate
from sifrc.lower.structure import compressed, kronecker

ROWS, COLUMNS = 3, 4
M, M2, M3, M4 = (Axis("i", ROWS, primes) for primes in range(4))
J, J2 = Axis("j", COLUMNS), Axis("j", COLUMNS, 1)
K = Axis("k", ROWS)


def vector(name: str, *axes: Axis) -> Input:
    return Input(name, 1, axes, Role.DIRECTION)


P, R = vector("p", M, J), vector("r", M, J)
X = vector("X", M, J)
U, V, D = vector("u", J), vector("v", J), vector("d", M)
B, C, A, E = vector("B", M, M2), vector("C", M, M2), vector("A", J, J2), vector("E", J)
ALPHA, LIMIT, TOLERANCE = (Input(name, None, (), Role.HYPERPARAMETER) for name in ("α", "limit", "tolerance"))

DAMPED = einsum([(ALPHA, ()), (P, P.axes)], P.axes)
RANK_ONE = einsum([(B, (M, M2)), (U, (J,)), (U, (J2,)), (P, (M2, J2))], P.axes)
NESTED = einsum(
    [
        (B, (M, M2)),
        (einsum([(U, (J,)), (einsum([(U, (J2,)), (P, (M2, J2))], (M2,)), (M2,))], (M2, J)), (M2, J)),
    ],
    P.axes,
)
TWICE = einsum([(C, (M, M2)), (U, (J,)), (U, (J2,)), (P, (M2, J2))], P.axes)
PRODUCT = einsum([(B, (M, M2)), (C, (M2, M3)), (B, (M3, M4)), (U, (J,)), (U, (J2,)), (P, (M4, J2))], P.axes)
IDENTITY_ROWS = einsum([(U, (J,)), (U, (J2,)), (P, (M, J2))], P.axes)
DIAGONAL_ROWS = einsum([(D, (M,)), (U, (J,)), (U, (J2,)), (P, (M, J2))], P.axes)

FULL_RANK = einsum([(B, (M, M2)), (A, (J, J2)), (P, (M2, J2))], P.axes)
TWO_VECTORS = einsum([(B, (M, M2)), (U, (J,)), (V, (J2,)), (P, (M2, J2))], P.axes)
OTHER_VECTOR = einsum([(C, (M, M2)), (V, (J,)), (V, (J2,)), (P, (M2, J2))], P.axes)
DIAGONAL_COLUMNS = einsum([(B, (M, M2)), (E, (J,)), (P, (M2, J))], P.axes)
ROWS_ALONE = einsum([(B, (M, M2)), (P, (M2, J))], P.axes)
SQUARE = einsum([(P, P.axes), (P, P.axes)], P.axes)
CONSTANT = einsum([(B, (M, M2)), (R, (M2, J))], P.axes)


def values(seed: int = 0) -> dict[Input, Any]:
    """Arrays for the symbols; matrices are positive definite."""
    rng = np.random.default_rng(seed)

    def definite(n: int) -> Any:
        root = rng.normal(size=(n, n))
        return root @ root.T + 0.1 * np.eye(n)

    found: dict[Input, Any] = {s: rng.normal(size=[a.size for a in s.axes]) for s in (U, V, R)}
    found |= {s: rng.uniform(0.5, 2.0, size=[a.size for a in s.axes]) for s in (D, E)}
    found |= {B: definite(ROWS), C: definite(ROWS), A: definite(COLUMNS)}
    return found | {ALPHA: np.array(0.3), LIMIT: np.array(40.0), TOLERANCE: np.array(1e-14)}


def matrix_of(product: Expr, known: dict[Input, Any]) -> Any:
    """The operator as a matrix, column by column."""
    columns = []
    for unit in np.eye(ROWS * COLUMNS):
        given = {**known, P: unit.reshape(ROWS, COLUMNS)}
        columns.append(np.asarray(evaluate({"y": product}, given)["y"]).ravel())
    return np.array(columns).T


def equation(product: Expr, method: str = "cg", rhs: Expr = R) -> Equation:
    options = (LIMIT, TOLERANCE) if method == "cg" else (None, None)
    return Equation(X, LinearSolve((P,), (product,), (rhs,), 0, method, *options), 1, "test")


def value_of(equations: tuple[Equation, ...], known: dict[Input, Any]) -> Any:
    """Of the last symbol; linear systems are solved here, by the textbook or by a dense matrix."""
    found: dict[Any, Any] = dict(known)
    for one in equations:
        for node in _nodes(one.value):
            if isinstance(node, LinearSolve):
                found[node] = solution(node, found)
                found |= {probe: np.zeros([a.size for a in probe.axes]) for probe in node.probes}
        found[one.symbol] = np.asarray(evaluate({"v": one.value}, found)["v"])
    return found[equations[-1].symbol]


def solution(node: LinearSolve, known: dict[Any, Any]) -> Any:
    """One unknown of a system, all of whose unknowns are searched for in one long vector."""
    shapes = [tuple(a.size for a in probe.axes) for probe in node.probes]
    sizes = [int(np.prod(shape)) for shape in shapes]

    def parts(flat: Any) -> list[Any]:
        cut = np.split(flat, np.cumsum(sizes)[:-1])
        return [part.reshape(shape) for part, shape in zip(cut, shapes, strict=True)]

    def apply(flat: Any) -> Any:
        given = {**known, **dict(zip(node.probes, parts(flat), strict=True))}
        products = [evaluate({"y": product}, given)["y"] for product in node.products]
        return np.concatenate([np.ravel(product) for product in products])

    right = np.concatenate([np.ravel(evaluate({"r": rhs}, known)["r"]) for rhs in node.rhs])
    if node.method == "eigen":
        found = np.linalg.solve(np.array([apply(unit) for unit in np.eye(len(right))]).T, right)
    else:
        found = textbook(apply, right, int(known[LIMIT]), float(known[TOLERANCE])).solution
    return parts(found)[node.component]


FOUND: dict[str, Expr] = {
    "one product": total([RANK_ONE, DAMPED], P.axes),
    "products in products": total([NESTED, DAMPED], P.axes),
    "numbers": total([scale(3, einsum([(ALPHA, ()), (RANK_ONE, P.axes)], P.axes)), DAMPED], P.axes),
    "two terms": total([RANK_ONE, TWICE, DAMPED], P.axes),
    "three matrices": total([PRODUCT, DAMPED], P.axes),
    "identity on the rows": total([IDENTITY_ROWS, DAMPED], P.axes),
    "a diagonal on the rows": total([DIAGONAL_ROWS, DAMPED], P.axes),
    "two numbers": total([RANK_ONE, DAMPED, scale(2, P)], P.axes),
}


@pytest.mark.parametrize("name", FOUND)
def test_compressed_equations_have_the_same_solution_and_smaller_unknowns(name: str) -> None:
    """B ⊗ u uᵀ + c: a number and a vector instead of a matrix; the solution is the dense one."""
    before = equation(FOUND[name])
    after = compressed(before)
    assert len(after) == 6 and after[-1].symbol is X
    nodes = [n for n in _nodes(after[-1].value) if isinstance(n, LinearSolve)]
    assert nodes and {probe.axes for node in nodes for probe in node.probes} == {(), (M,)}
    for seed in range(3):
        known = values(seed)
        matrix = matrix_of(FOUND[name], known)
        expected = np.linalg.solve(matrix, known[R].ravel()).reshape(ROWS, COLUMNS)
        np.testing.assert_allclose(value_of(after, known), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("limit", range(6))
def test_compressed_iterates_are_those_of_the_matrix(limit: int) -> None:
    """The same search at every number of iterations, before it converges."""
    before = equation(FOUND["two terms"])
    known = {**values(4), LIMIT: np.array(float(limit)), TOLERANCE: np.array(0.0)}
    np.testing.assert_allclose(value_of(compressed(before), known), value_of((before,), known), rtol=1e-9)


@pytest.mark.parametrize("name", ["one product", "identity on the rows"])
def test_compressed_exact_solutions_are_the_same(name: str) -> None:
    """By eigenvalues the number and the vector are two systems."""
    before, known = equation(FOUND[name], "eigen"), values(1)
    after = compressed(before)
    assert len(after) == 6
    np.testing.assert_allclose(value_of(after, known), value_of((before,), known), rtol=1e-9)


def test_a_vector_of_zeros_leaves_the_number_alone() -> None:
    """u = 0: c X = R, without a division by zero."""
    known = {**values(2), U: np.zeros(COLUMNS)}
    np.testing.assert_allclose(value_of(compressed(equation(FOUND["one product"])), known), known[R] / 0.3)


def test_a_right_side_along_the_vector_has_no_rest() -> None:
    """R = q uᵀ: the first coordinate is zero."""
    known = values(3)
    known[R] = np.outer([1.0, -2.0, 0.5], known[U])
    matrix = matrix_of(FOUND["one product"], known)
    expected = np.linalg.solve(matrix, known[R].ravel()).reshape(ROWS, COLUMNS)
    np.testing.assert_allclose(
        value_of(compressed(equation(FOUND["one product"])), known), expected, rtol=1e-9
    )


REFUSED: dict[str, Expr] = {
    "a matrix on the columns": total([FULL_RANK, DAMPED], P.axes),
    "two different vectors": total([TWO_VECTORS, DAMPED], P.axes),
    "two products of rank one": total([RANK_ONE, OTHER_VECTOR, DAMPED], P.axes),
    "rank one and full rank": total([RANK_ONE, FULL_RANK, DAMPED], P.axes),
    "a diagonal on the columns": total([DIAGONAL_COLUMNS, DAMPED], P.axes),
    "rows alone": total([ROWS_ALONE, DAMPED], P.axes),
    "rank one and rows alone": total([RANK_ONE, ROWS_ALONE], P.axes),
    "a number": DAMPED,
    "not linear": total([SQUARE, DAMPED], P.axes),
    "affine": total([RANK_ONE, CONSTANT], P.axes),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rank_one_structure_stays_as_it_is(name: str) -> None:
    before = equation(REFUSED[name])
    assert compressed(before) == (before,)


def test_other_equations_stay_as_they_are() -> None:
    """No linear system, one axis, several unknowns."""
    q, s = vector("q", M), vector("s", M)
    damped = einsum([(ALPHA, ()), (q, (M,))], (M,))
    both = (P, q), (FOUND["one product"], damped), (R, s)
    for one in (
        Equation(X, scale(2, R), 1, "test"),
        Equation(s, LinearSolve((q,), (damped,), (s,), 0, "cg", LIMIT, TOLERANCE), 1, "test"),
        Equation(X, LinearSolve(*both, 0, "cg", LIMIT, TOLERANCE), 1, "test"),
    ):
        assert compressed(one) == (one,)


def _nodes(expr: Expr) -> Any:
    yield expr
    for child in expr.children():
        yield from _nodes(child)


PRODUCTS: dict[str, Expr] = {
    "both sides": total([FULL_RANK, DAMPED], P.axes),
    "numbers and a factor": total(
        [scale(3, einsum([(ALPHA, ()), (FULL_RANK, P.axes)], P.axes)), DAMPED], P.axes
    ),
    "rank one": FOUND["one product"],
    "rows alone": REFUSED["rows alone"],
    "columns alone": total([einsum([(A, (J, J2)), (P, (M, J2))], P.axes), DAMPED], P.axes),
    "two numbers": total([FULL_RANK, DAMPED, scale(2, P)], P.axes),
    "a number": DAMPED,
    "no number": FULL_RANK,
    "two matrices": einsum([(B, (M, M2)), (C, (M2, M3)), (A, (J, J2)), (P, (M3, J2))], P.axes),
}


def as_matrix(expr: Expr | None, size: int, known: dict[Input, Any]) -> Any:
    return np.eye(size) if expr is None else np.asarray(evaluate({"m": expr}, known)["m"])


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_number_plus_a_kronecker_product_is_the_operator(name: str) -> None:
    """shift + left ⊗ right is the matrix of the operator, entry by entry."""
    found = kronecker(LinearSolve((P,), (PRODUCTS[name],), (R,), 0, "eigen"))
    assert found is not None
    check(found, PRODUCTS[name])


def check(found: Any, product: Expr) -> None:
    known = values(5)
    shift = float(evaluate({"s": found.shift}, known)["s"])
    expected = shift * np.eye(ROWS * COLUMNS)
    if found.left is not None:
        left, right = as_matrix(found.left, ROWS, known), as_matrix(found.right, COLUMNS, known)
        assert left.shape == (ROWS, ROWS) and right.shape == (COLUMNS, COLUMNS)
        expected = expected + np.kron(left, right)
    np.testing.assert_allclose(matrix_of(product, known), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["a diagonal on the rows", "a diagonal on the columns"])
def test_a_diagonal_factor_is_kept_or_refused(name: str) -> None:
    """diag(d) P A: the matrix of the operator, or None."""
    product = {
        "a diagonal on the rows": einsum([(D, (M,)), (A, (J, J2)), (P, (M, J2))], P.axes),
        "a diagonal on the columns": DIAGONAL_COLUMNS,
    }[name]
    found = kronecker(LinearSolve((P,), (total([product, DAMPED], P.axes),), (R,), 0, "eigen"))
    if found is not None:
        check(found, total([product, DAMPED], P.axes))


def test_a_transposition_is_no_kronecker_product() -> None:
    """X → Xᵀ over two axes of one size is symmetric and linear, and mixes the axes."""
    q, r = vector("q", M, K), vector("r2", M, K)
    product = total([einsum([(q, (K, M))], (M, K)), einsum([(ALPHA, ()), (q, (M, K))], (M, K))], (M, K))
    assert kronecker(LinearSolve((q,), (product,), (r,), 0, "eigen")) is None


MIXED = {
    "two products": total([FULL_RANK, einsum([(C, (M, M2)), (P, (M2, J))], P.axes)], P.axes),
    "not linear": REFUSED["not linear"],
    "affine": REFUSED["affine"],
    "one factor on both axes": total(
        [einsum([(vector("Z", M, J), (M, J)), (P, P.axes)], P.axes), DAMPED], P.axes
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_is_no_kronecker_product_is_none(name: str) -> None:
    assert kronecker(LinearSolve((P,), (MIXED[name],), (R,), 0, "eigen")) is None


def test_unknowns_with_one_axis_have_no_right_factor() -> None:
    q, s = vector("q", M), vector("s", M)
    product = einsum([(B, (M, M2)), (rename(q, (M2,)), (M2,))], (M,))
    whole = total([product, einsum([(ALPHA, ()), (q, (M,))], (M,))], (M,))
    found = kronecker(LinearSolve((q,), (whole,), (s,), 0, "eigen"))
    assert found is not None and found.right is None
    known = values(6)
    np.testing.assert_allclose(as_matrix(found.left, ROWS, known), known[B])
    assert float(evaluate({"s": found.shift}, known)["s"]) == 0.3


def test_two_unknowns_are_no_kronecker_product() -> None:
    q, s = vector("q", M), vector("s", M)
    assert kronecker(LinearSolve((P, q), (DAMPED, q), (R, s), 0, "eigen")) is None
