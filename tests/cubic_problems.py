"""Cubic models with known structure, and oracles that share nothing with the solver.

A problem is made in the coordinates z_s = w_s η_s, w_s = (λ/2 |D3_s|)^⅓, from eigenvalues and eigenvectors,
and scaled to H, g and D3. There the Hessian of the model at its lowest point is J = K + ‖z‖ + z zᵀ/‖z‖, and
the error of a backward stable solution is at most rounding times the condition number of J. Comparisons of
solutions allow that and no more, also close to the hard case, where K + ‖z‖ is singular and J is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize

__all__ = ["KINDS", "Problem", "condition", "lowest_value", "make", "model_value", "scaled"]

KINDS = ("definite", "semidefinite", "indefinite", "still", "near", "hard", "double")
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Problem:
    """Operands of one cubic model."""

    matrix: np.ndarray
    rhs: np.ndarray
    third: np.ndarray
    strength: float

    @property
    def operands(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """In the order of the solver."""
        return self.matrix, self.rhs, self.third, self.strength


def make(kind: str, size: int, seed: int, spread: float = 0.0, exact: bool = False) -> Problem:
    """A problem.

    Args:
        kind: ``definite``, ``semidefinite`` or ``indefinite`` matrix with any gradient; ``still``, indefinite
            without gradient; ``near`` and ``hard``: the gradient has almost no or no part in the lowest
            eigenspace, and the rest of it is short; ``double``: the same for an eigenspace of dimension 2.
        size: S.
        seed: of all numbers.
        spread: powers of ten by which groups differ in scale, both ways.
        exact: the eigenvectors are unit vectors, and scales are powers of two: nothing is rounded.
    """
    rng = np.random.default_rng(seed)
    vectors = np.eye(size) if exact else np.linalg.qr(rng.standard_normal((size, size)))[0]
    values = np.sort(rng.uniform(0.5, 3.0, size))
    slopes = rng.standard_normal(size) * 10.0 ** rng.uniform(-2, 2)
    if kind == "semidefinite":
        values[0] = 0.0
    elif kind != "definite":
        low = 2 if kind == "double" else 1
        values[:low] = -rng.uniform(0.5, 2.0)
        if kind != "indefinite":
            slopes[:low] = 0.0
            # The solution at ‖z‖ = s, its length at most 0.7 s, so that a part in the lowest space is left.
            length = np.linalg.norm(slopes[low:] / (values[low:] - values[0]))
            slopes[low:] *= -values[0] * rng.uniform(0.1, 0.7) / max(length, 1e-300)
        if kind == "near":
            slopes[0] = 10.0 ** rng.uniform(-11, -3) * rng.choice([-1, 1])
        if kind == "still":
            slopes[:] = 0.0
    strength = 2.0 if exact else 10.0 ** rng.uniform(-3, 3)
    weights = 10.0 ** rng.uniform(-spread, spread, size) if spread else rng.uniform(0.5, 2.0, size)
    if exact:
        weights = 2.0 ** np.round(np.log2(weights))
    signs = rng.choice([-1.0, 1.0], size)
    matrix = (vectors * values) @ vectors.T
    matrix = (matrix + matrix.T) / 2 * np.outer(weights, weights)
    return Problem(matrix, weights * (vectors @ slopes), signs * weights**3 * 2 / strength, strength)


def model_value(problem: Problem, point: np.ndarray) -> float:
    """T(η), as it is defined."""
    return float(_values(problem, point[:, None])[0])


def _values(problem: Problem, points: np.ndarray) -> np.ndarray:
    """T of every column."""
    cubic = np.sum((np.cbrt(np.abs(problem.third))[:, None] * points) ** 2, axis=0) ** 1.5
    quadratic = -problem.rhs @ points + 0.5 * np.sum(points * (problem.matrix @ points), axis=0)
    return np.asarray(quadratic + problem.strength / 6 * cubic)


def lowest_value(problem: Problem, scales: np.ndarray, starts: int = 10) -> float:
    """The least T that quasi-Newton descents from random points find; η is searched in units of 1/scales.

    Slopes are differences, all at once.
    """
    rng = np.random.default_rng(0)
    steps = EPS**0.5 * np.eye(len(scales))

    def both(point: np.ndarray) -> tuple[float, np.ndarray]:
        points = np.column_stack([point, point[:, None] + steps]) / scales[:, None]
        values = _values(problem, points)
        return float(values[0]), (values[1:] - values[0]) / EPS**0.5

    points = [10.0 ** rng.uniform(-1, 1) * rng.standard_normal(len(scales)) for _ in range(starts)]
    return min(scipy.optimize.minimize(both, p, jac=True, method="BFGS", tol=1e-10).fun for p in points)


def scaled(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K, q and the weights that z = weights · η; groups without cubic term have no finite K and q."""
    weights = np.cbrt(problem.strength / 2 * np.abs(problem.third))
    with np.errstate(divide="ignore", invalid="ignore"):
        return problem.matrix / np.outer(weights, weights), problem.rhs / weights, weights


def condition(problem: Problem, point: np.ndarray) -> float:
    """Condition number of J at a solution η."""
    matrix, _, weights = scaled(problem)
    z = weights * point
    radius = np.linalg.norm(z)
    if radius == 0:
        return 1.0
    hessian = matrix + radius * np.eye(len(z)) + np.outer(z, z) / radius
    return float(np.linalg.cond(hessian))
