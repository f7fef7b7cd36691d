"""The lowest point of a cubic model: its optimality conditions, and descents from many points.

A point is a global minimiser of T if and only if it is stationary and H + λ/2 ‖Dη‖ D² has no negative
eigenvalue, so that these two are the whole check where all groups have a cubic term.
"""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from cubic_problems import EPS, KINDS, Problem, condition, lowest_value, make, model_value, scaled
from hypothesis import given, settings
from hypothesis import strategies as st

from sifrc.calculus import jvp, vjp
from sifrc.ir import Axis, CubicNewton, Input, Role, cubic
from sifrc.ir.along import along
from sifrc.ir.arithmetic import MPMATH, NUMPY
from sifrc.ir.build import scale, total
from sifrc.ir.evaluate import evaluate
from sifrc.ir.nodes import AxisError
from sifrc.ir.traverse import substitute
from sifrc.report.generic import generic_key
from sifrc.report.latex import latex
from sifrc.report.layout import Symbol
from sifrc.report.notation import Notation, notation
from sifrc.report.text import text

checked = settings(derandomize=True, deadline=None, max_examples=60)
sizes, seeds, spreads = st.integers(2, 6), st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 4.0, 12.0])
problems = st.builds(make, st.sampled_from(KINDS), sizes, seeds, spreads, st.booleans())

unique = st.one_of(
    st.builds(make, st.sampled_from((*KINDS[:3], "near")), sizes, seeds, spreads),
    st.builds(make, st.sampled_from(("still", "hard", "double")), sizes, seeds, spreads, st.just(True)),
)
"""Problems for which rounding does not choose between two lowest points."""


def solve(problem: Problem, unbounded: str = "refuse") -> np.ndarray:
    """In float64."""
    return NUMPY.cubic_newton(*problem.operands, unbounded)


def precise(problem: Problem, unbounded: str = "refuse") -> np.ndarray:
    """At 60 digits, on the same numbers."""
    with mpmath.workdps(60):
        operands = [MPMATH.array(operand) for operand in problem.operands]
        return MPMATH.cubic_newton(*operands, unbounded).astype(float)


def assert_lowest(problem: Problem, point: np.ndarray) -> None:
    """Both conditions for a global minimiser, in the coordinates in which nothing depends on scales."""
    matrix, slopes, weights = scaled(problem)
    z = weights * point
    radius = np.linalg.norm(z)
    residual = matrix @ z + radius * z - slopes
    size = np.linalg.norm(matrix, 2) * radius + radius**2 + np.linalg.norm(slopes)
    assert np.linalg.norm(residual) <= 64 * len(z) * EPS * size
    eigenvalues = np.linalg.eigvalsh(matrix) + radius
    assert eigenvalues[0] >= -64 * len(z) * EPS * (np.linalg.norm(matrix, 2) + radius)


@checked
@given(problems)
def test_point_is_stationary_and_the_lowest(problem: Problem) -> None:
    assert_lowest(problem, solve(problem))


def no_descent_ends_lower(problem: Problem) -> None:
    """Quasi-Newton on T as it is written in the paper, by differences."""
    point = solve(problem)
    weights = scaled(problem)[2]
    value = model_value(problem, point)
    size = abs(problem.rhs @ point) + abs(point @ problem.matrix @ point)
    assert value <= lowest_value(problem, weights) + 1e-12 * size


@settings(checked, max_examples=20)
@given(problems)
def test_no_descent_from_many_points_ends_lower(problem: Problem) -> None:
    no_descent_ends_lower(problem)


@pytest.mark.slow
@checked
@given(problems)
def test_no_descent_from_many_points_ends_lower_for_many_problems(problem: Problem) -> None:
    no_descent_ends_lower(problem)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", KINDS[:6])
def test_no_point_of_a_grid_is_lower(kind: str, seed: int) -> None:
    """In one and two dimensions, by looking everywhere."""
    problem = make(kind, 2 if kind == "near" or kind == "hard" else 1 + seed % 2, seed)
    point, weights = solve(problem), scaled(problem)[2]
    reach = 3 * np.linalg.norm(weights * point) + 1
    axes = [np.linspace(-reach, reach, 301) / weight for weight in weights]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(weights))
    lengths = np.linalg.norm(grid * np.cbrt(np.abs(problem.third)), axis=1)
    values = -grid @ problem.rhs + 0.5 * np.sum(grid @ problem.matrix * grid, axis=1)
    values += problem.strength / 6 * lengths**3
    assert model_value(problem, point) <= values.min() + 1e-12 * np.abs(values).max()


@settings(checked, max_examples=40)
@given(unique)
def test_float64_and_sixty_digits_agree(problem: Problem) -> None:
    """On the same numbers, within what the condition of the lowest point allows."""
    found, expected = solve(problem), precise(problem)
    weights = scaled(problem)[2]
    allowed = 300 * len(found) * EPS * condition(problem, expected) * np.linalg.norm(weights * expected)
    assert np.linalg.norm(weights * (found - expected)) <= allowed


@pytest.mark.parametrize("spread", [3.0, 5.0])
@pytest.mark.parametrize("seed", range(10))
def test_entries_of_groups_that_are_far_apart_have_their_digits(seed: int, spread: float) -> None:
    """Third derivatives that differ by 1e18 to 1e30 put entries of very different size into K."""
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((4, 4))
    problem = Problem(
        factor @ factor.T + 0.1 * np.eye(4),
        rng.standard_normal(4),
        10.0 ** (3 * rng.uniform(-spread, spread, 4)),
        1.0,
    )
    np.testing.assert_allclose(solve(problem), precise(problem), rtol=1e-9)


@pytest.mark.parametrize("power", [-12, -6, 6, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_scale_of_the_model_does_not_matter(kind: str, power: int) -> None:
    """H, g and D3 all times a number: the same point."""
    problem, by = make(kind, 4, 3, exact=kind in ("hard", "double")), 10.0**power
    more = Problem(problem.matrix * by, problem.rhs * by, problem.third * by, problem.strength)
    np.testing.assert_allclose(solve(more), solve(problem), rtol=1e-9)


@checked
@given(
    st.sampled_from(["definite", "semidefinite", "indefinite", "near"]),
    st.integers(2, 6),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.3]),
)
def test_groups_that_are_scaled_take_steps_that_are_scaled(
    kind: str, size: int, seed: int, zeros: float
) -> None:
    """H_st c_s c_t, g_s c_s, D3_s c_s³ give η_s / c_s, outside the hard case; D3_s = 0 as well."""
    rng = np.random.default_rng(seed)
    problem = make(kind, size, seed)
    third = np.where(rng.random(size) < zeros, 0.0, problem.third)
    problem = Problem(problem.matrix, problem.rhs, third, problem.strength)
    by = rng.choice([-1.0, 1.0], size) * 10.0 ** rng.uniform(-4, 4, size)
    other = Problem(problem.matrix * np.outer(by, by), problem.rhs * by, third * by**3, problem.strength)
    for unbounded in ("refuse", "absolute"):
        found, expected = by * solve(other, unbounded), solve(problem, unbounded)
        assert np.array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_allclose(
            found, expected, rtol=1e-6, atol=1e-9 * np.nanmax(np.abs(expected), initial=0.0)
        )


def test_hard_case_takes_the_side_where_the_largest_entry_is_positive() -> None:
    """g along the second eigenvector of a rotated saddle: two lowest points, one of them chosen."""
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    for first, sign in ((turn, 1), (-turn, 1), (turn[:, ::-1], 1)):
        for low in (0, 1):
            values = np.where(np.arange(2) == low, -1.0, 1.0)
            slopes = first[:, 1 - low]
            problem = Problem((first * values) @ first.T, slopes, np.ones(2), 2.0)
            point = solve(problem)
            along_low = first[:, low] @ point
            largest = first[np.argmax(np.abs(first[:, low])), low]
            assert sign * along_low * np.sign(largest) == pytest.approx(np.sqrt(0.75), rel=1e-12)
            assert first[:, 1 - low] @ point == pytest.approx(0.5, rel=1e-12)


def test_hard_case_of_equal_eigenvalues_and_of_equal_entries_takes_the_first() -> None:
    both = Problem(-np.eye(3), np.zeros(3), np.ones(3), 2.0)
    np.testing.assert_allclose(solve(both), [1.0, 0.0, 0.0], atol=1e-15)
    coupled = Problem(np.array([[0.0, 1.0], [1.0, 0.0]]), np.zeros(2), np.ones(2), 2.0)
    np.testing.assert_allclose(solve(coupled), np.sqrt([0.5, 0.5]) * [1, -1], rtol=1e-14)


@pytest.mark.parametrize("seed", range(10))
def test_of_two_largest_entries_that_rounding_tells_apart_the_first_is_positive(seed: int) -> None:
    """Two groups that are alike: the lowest eigenvector is (1, −1, 0)/√2 up to rounding."""
    a, b, c, d = np.random.default_rng(seed).uniform(0.1, 0.9, 4)
    matrix = np.array([[a - 3, 3 + b, c], [3 + b, a - 3, c], [c, c, d]])
    point = solve(Problem(matrix, np.array([0.3, 0.3, -0.2]), np.ones(3), 2.0))
    assert point[0] > point[1]


@pytest.mark.parametrize("kind", ["definite", "semidefinite", "indefinite", "near"])
@pytest.mark.parametrize("seed", range(10))
def test_a_few_steps_find_the_radius(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newton's iteration by itself, from its first point to rounding; bisection would take fifty steps."""
    monkeypatch.setattr(cubic, "_ROOT_STEPS", 9)
    matrix, slopes, _ = scaled(make(kind, 5, seed, 1.0))
    values, vectors = np.linalg.eigh(matrix)
    shift = max(-values[0], 0.0)
    gaps, rotated = values + shift, vectors.T @ slopes
    start = cubic._lower_bound(shift, gaps, rotated)
    root = cubic._radius(NUMPY, shift, gaps, rotated, start)
    assert np.linalg.norm(rotated / (gaps + root)) == pytest.approx(shift + root, rel=1e-13)


@pytest.mark.parametrize("seed", range(20))
def test_digits_that_are_lost_make_nan(seed: int) -> None:
    """Third derivatives apart by up to 1e60, definite: the lowest point, or none, and not another one."""
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((4, 4))
    third = 10.0 ** rng.uniform(-30, 30, 4)
    problem = Problem(factor @ factor.T + 0.1 * np.eye(4), rng.standard_normal(4), third, 1.0)
    found = solve(problem)
    assert np.isnan(found).all() or np.allclose(found, precise(problem), rtol=1e-3)


def test_at_the_edge_of_the_hard_case_the_part_in_the_lowest_space_is_zero() -> None:
    """‖(K − λ_min)⁺ q‖ = |λ_min|: from both sides it is continuous."""
    for slope in (2.0, 2.0 * (1 - 1e-15), 2.0 * (1 + 1e-15)):
        point = solve(Problem(np.diag([-1.0, 1.0]), np.array([0.0, slope]), np.ones(2), 2.0))
        np.testing.assert_allclose(point, [0.0, 1.0], atol=1e-7)


@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("third", [1e-12, -1.0, 1e12])
def test_one_group_is_the_root_of_a_quadratic_equation(third: float, strength: float) -> None:
    """h η + λ/2 |D3| |η| η = g, for either sign of h."""
    for h in (-2.0, 0.0, 3.0):
        for g in (-1e-3, 5.0):
            c = strength / 2 * abs(third)
            size = (-h + np.sqrt(h * h + 4 * c * abs(g))) / (2 * c)
            if h > 0:
                size = 2 * abs(g) / (h + np.sqrt(h * h + 4 * c * abs(g)))
            problem = Problem(np.array([[h]]), np.array([g]), np.array([third]), strength)
            np.testing.assert_allclose(solve(problem), [np.sign(g) * size], rtol=1e-13)


def test_without_gradient_a_semidefinite_model_stays() -> None:
    nothing = Problem(np.zeros((2, 2)), np.zeros(2), np.ones(2), 1.0)
    np.testing.assert_array_equal(solve(nothing), np.zeros(2))
    for kind in ("definite", "semidefinite"):
        problem = make(kind, 4, 0, exact=True)
        still = Problem(problem.matrix, 0 * problem.rhs, problem.third, problem.strength)
        np.testing.assert_array_equal(solve(still), np.zeros(4))
        np.testing.assert_array_equal(precise(still), np.zeros(4))


# -- groups without cubic term


some_free = given(st.sampled_from(KINDS), st.integers(3, 6), st.integers(0, 10**6))


@settings(checked, max_examples=25)
@some_free
def test_groups_without_cubic_term_are_minimised_over(kind: str, size: int, seed: int) -> None:
    groups_without_cubic_term(kind, size, seed)


@pytest.mark.slow
@checked
@some_free
def test_groups_without_cubic_term_in_many_problems(kind: str, size: int, seed: int) -> None:
    groups_without_cubic_term(kind, size, seed)


def groups_without_cubic_term(kind: str, size: int, seed: int) -> None:
    """A definite block of them: the residual is zero, and no descent ends lower."""
    rng = np.random.default_rng(seed)
    problem = make(kind, size, seed)
    count = int(rng.integers(1, size))
    free = rng.permutation(size)[:count]
    factor = rng.standard_normal((count, count))
    matrix, third = problem.matrix.copy(), problem.third.copy()
    matrix[np.ix_(free, free)] = factor @ factor.T + 0.3 * np.eye(count)
    third[free] = 0.0
    problem = Problem(matrix, problem.rhs, third, problem.strength)
    point, weights = solve(problem), np.where(third == 0, 1.0, scaled(problem)[2])
    d = np.cbrt(np.abs(third))
    slope = matrix @ point + problem.strength / 2 * np.linalg.norm(d * point) * d**2 * point
    sizes = np.abs(matrix) @ np.abs(point) + np.abs(problem.rhs)
    sizes += problem.strength / 2 * np.linalg.norm(d * point) * d**2 * np.abs(point)
    assert np.max(np.abs(slope - problem.rhs)) <= 1e-12 * np.max(sizes)
    size_of_value = abs(problem.rhs @ point) + abs(point @ matrix @ point)
    assert model_value(problem, point) <= lowest_value(problem, weights) + 1e-9 * size_of_value
    other = precise(problem)
    if abs(model_value(problem, point) - model_value(problem, other)) <= 1e-12 * size_of_value:
        # Of an eigenvalue that is there twice there may be other points, as low and as long.
        lengths = [np.linalg.norm(d * found) for found in (point, other)]
        np.testing.assert_allclose(lengths[0], lengths[1], rtol=1e-7, atol=1e-7 * np.abs(d * point).max())
        if kind == "double":
            return
    np.testing.assert_allclose(point, other, rtol=1e-7, atol=1e-7 * np.abs(point).max())


BOTH = np.array([[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, -1.0]])
"""The first two groups have a null direction, (1, −1, 0)."""


@pytest.mark.parametrize("solver", [solve, precise])
def test_null_directions_without_a_slope_are_bounded(solver) -> None:  # type: ignore[no-untyped-def]
    """The least-norm solution in units of 1/√H_ss; the third group has the cubic term."""
    problem = Problem(BOTH, np.array([1.0, 1.0, 0.5]), np.array([0.0, 0.0, 1.0]), 2.0)
    alone = solve(Problem(BOTH[2:, 2:], np.array([0.5]), np.ones(1), 2.0))[0]
    np.testing.assert_allclose(solver(problem), [0.25, 0.25, alone], rtol=1e-14)
    by = np.array([-3.0, 0.5, 7.0])
    other = Problem(BOTH * np.outer(by, by), problem.rhs * by, problem.third * by**3, 2.0)
    np.testing.assert_allclose(by * solver(other), solver(problem), rtol=1e-13)
    free = Problem(np.diag([4.0, 0.0]), np.array([2.0, 0.0]), np.zeros(2), 1.0)
    np.testing.assert_allclose(solver(free), [0.5, 0.0])


@pytest.mark.parametrize("solver", [solve, precise])
@pytest.mark.parametrize(
    ("matrix", "rhs"),
    [
        (BOTH, [1.0, -1.0, 0.5]),
        (
            BOTH + np.outer([1.0, -1.0, 0.0], [0, 0, 1e-3]) + np.outer([0, 0, 1e-3], [1.0, -1, 0]),
            [1.0, 1, 0.5],
        ),
        (np.diag([1.0, 0.0, 1.0]), [1.0, 1e-9, 1.0]),
        (np.diag([1.0, -1.0, 1.0]), [1.0, 0.0, 1.0]),
        (np.diag([-1.0, -1.0, 1.0]), [0.0, 0.0, 0.0]),
        (np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), [0.0, 0.0, 0.0]),
    ],
    ids=["slope", "coupled", "flat", "indefinite", "negative", "saddle"],
)
def test_unbounded_models_are_refused_or_turned(solver, matrix, rhs) -> None:  # type: ignore[no-untyped-def]
    """``refuse``: NaN for the groups without cubic term; ``absolute``: their block by its absolute value."""
    problem = Problem(matrix, np.array(rhs), np.array([0.0, 0.0, -2.0]), 1.0)
    refused = solver(problem, "refuse")
    np.testing.assert_array_equal(np.isnan(refused), [True, True, False])
    scales = np.sqrt(np.abs(np.diag(matrix)[:2])) + (np.diag(matrix)[:2] == 0)
    values, vectors = np.linalg.eigh(matrix[:2, :2] / np.outer(scales, scales))
    kept = np.abs(values) > 1e-12
    inverse = (vectors[:, kept] / np.abs(values[kept])) @ vectors[:, kept].T / np.outer(scales, scales)
    across = matrix[:2, 2]
    reduced = Problem(
        matrix[2:, 2:] - across @ inverse @ across,
        problem.rhs[2:] - across @ inverse @ problem.rhs[:2],
        problem.third[2:],
        1.0,
    )
    last = solve(reduced)
    expected = [*(inverse @ (problem.rhs[:2] - across * last[0])), last[0]]
    np.testing.assert_allclose(solver(problem, "absolute"), expected, rtol=1e-12, atol=1e-13)


def test_without_cubic_terms_it_is_the_newton_step() -> None:
    problem = make("definite", 4, 1)
    expected = np.linalg.solve(problem.matrix, problem.rhs)
    none = Problem(problem.matrix, problem.rhs, 0 * problem.third, problem.strength)
    zero = Problem(problem.matrix, problem.rhs, problem.third, 0.0)
    np.testing.assert_allclose(solve(none), expected, rtol=1e-12)
    np.testing.assert_allclose(solve(zero), expected, rtol=1e-12)
    weak = Problem(problem.matrix, problem.rhs, problem.third, 1e-12)
    np.testing.assert_allclose(solve(weak), expected, rtol=1e-9)
    saddle = make("indefinite", 4, 1)
    assert np.isnan(solve(Problem(saddle.matrix, saddle.rhs, saddle.third, 0.0))).all()


def test_what_is_not_finite_or_negative_damping_makes_all_of_it_nan() -> None:
    problem = make("definite", 3, 0)
    for position in range(4):
        for value in (np.nan, np.inf):
            operands = [np.array(operand, dtype=float) for operand in problem.operands]
            operands[position].flat[0] = value
            assert np.isnan(NUMPY.cubic_newton(*operands, "absolute")).all()
    assert np.isnan(NUMPY.cubic_newton(*problem.operands[:3], -1.0, "absolute")).all()


numbers = st.one_of(
    st.floats(width=64), st.sampled_from([0.0, -0.0, 5e-324, -2e-310, 1e-160, 1e160, -1e300, 1.7e308, 1.0])
)


@settings(checked, max_examples=300)
@given(st.integers(1, 4), st.data(), st.sampled_from(["refuse", "absolute"]))
def test_any_input_ends_with_numbers_or_nan(size: int, data: st.DataObject, unbounded: str) -> None:
    """Rubbish, denormal numbers, overflow: no exception, no endless loop."""
    entries = data.draw(
        st.lists(numbers, min_size=size * size + 2 * size + 1, max_size=size * size + 2 * size + 1)
    )
    values = np.array(entries)
    matrix = values[: size * size].reshape(size, size)
    rest = values[size * size :]
    with np.errstate(all="ignore"):
        matrix = np.tril(matrix) + np.tril(matrix, -1).T
        found = NUMPY.cubic_newton(matrix, rest[:size], rest[size : 2 * size], abs(rest[-1]), unbounded)
    assert found.shape == (size,)


# -- the node

GROUP = Axis("group", 3)
AXES = (GROUP, GROUP.primed)
H = Input("H", None, AXES, Role.DIRECTION)
G = Input("g", None, (GROUP,), Role.DIRECTION)
D3 = Input("D", None, (GROUP,), Role.DIRECTION)
L = Input("λ", None, (), Role.HYPERPARAMETER)
NODE = CubicNewton(H, G, D3, L, "refuse")


@pytest.mark.parametrize("arithmetic", [NUMPY, MPMATH], ids=["float64", "mpmath"])
def test_value_of_the_node(arithmetic) -> None:  # type: ignore[no-untyped-def]
    problem = make("indefinite", 3, 5)
    given = dict(zip((H, G, D3, L), problem.operands, strict=True))
    with mpmath.workdps(30):
        found = evaluate({"η": NODE}, given, arithmetic)["η"]
    np.testing.assert_allclose(found.astype(float), solve(problem), rtol=1e-12)


def test_equal_nodes_are_one_and_the_treatment_of_the_unbounded_counts() -> None:
    other = CubicNewton(H, G, D3, L, "absolute")
    assert CubicNewton(H, G, D3, L, "refuse") is NODE and other is not NODE
    assert generic_key(NODE, 1) != generic_key(other, 1)
    assert substitute(other, {G: D3}) is CubicNewton(H, D3, D3, L, "absolute")
    assert substitute(NODE, {G: D3}).axes == (GROUP,)


@pytest.mark.parametrize(
    "operands",
    [
        (G, G, D3, L, "refuse"),
        (H, H, D3, L, "refuse"),
        (H, G, L, L, "refuse"),
        (H, G, D3, G, "refuse"),
        (H, G, D3, L, "guess"),
        (H, Input("g", None, (Axis("other", 3),), Role.DIRECTION), D3, L, "refuse"),
    ],
)
def test_operands_that_do_not_fit_are_an_error(operands) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AxisError):
        CubicNewton(*operands)


def test_it_has_no_derivative_and_no_value_for_each_sample() -> None:
    move = Input("v", None, (GROUP,), Role.TANGENT)
    with pytest.raises(TypeError, match="CubicNewton is held constant"):
        jvp(NODE, {G: move})
    with pytest.raises(TypeError, match="CubicNewton is held constant"):
        vjp(NODE, [G], move)
    assert jvp(NODE, {move: move}) is None
    sample = Axis("class", 2)
    assert along(NODE, sample, lambda symbol: symbol) is NODE
    many = Input("g", None, (sample, GROUP), Role.DIRECTION)
    with pytest.raises(TypeError, match="cubic model"):
        along(NODE, sample, lambda symbol: many if symbol is G else symbol)


def test_notation() -> None:
    """As an equation for its own symbol, and inside another expression."""
    left, right = Notation(0, {}).sides(Symbol("η"), NODE)
    assert text(left) == "η"
    assert text(right) == "argmin_η −⟨g, η⟩ + ½ ⟨η, H η⟩ + λ / 6 ‖|D|^⅓ ∘ η‖³"
    assert latex(right).startswith(r"\operatorname*{arg\,min}_{\eta} -\left\langle g, \eta \right\rangle")
    assert r"\frac{\lambda}{6} \, \left\| \left| D \right|^{1/3} \circ \eta \right\|^{3}" in latex(right)
    inside = notation(total([scale(2, NODE), G], (GROUP,)))
    assert "2 (argmin_{unknown}" in text(inside)
