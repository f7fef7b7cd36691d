"""Least value of a quadratic function with a cubic regularisation, GN3(10): the reference algorithm.

T(η) = −⟨η, g⟩ + ½ ⟨η, H η⟩ + λ/6 ‖D η‖³ with D = diag(|D3|^⅓). With λ put into the weights,
d_s = (λ/2 |D3_s|)^⅓ and z_s = d_s η_s, this is −⟨q, z⟩ + ½ ⟨z, K z⟩ + ⅓ ‖z‖³ for q_s = g_s / d_s and
K_st = H_st / (d_s d_t), the K of GN3's appendix D up to a number. A group that is scaled by a number changes
at most signs of K and q, so that all that is compared here is compared in these coordinates.

Numbers below the smallest normal one have lost digits, and count as zero; so does a gradient that is not
above their rounding error relative to one, because the curvature that belongs to it may be among them.

The functions work in any number system of :mod:`sifrc.ir.arithmetic`; generated modules have them in float64.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import mpmath
import numpy as np
import numpy.typing as npt

__all__ = ["CubicArithmetic", "cubic_newton"]

Array: TypeAlias = npt.NDArray[Any]

_ROOT_STEPS = 200
_POLISHING_STEPS = 20
_TIE = 1e-6
"""Relative difference below which two entries of a unit vector count as equally large."""


class CubicArithmetic(Protocol):
    """What the algorithm needs from a number system."""

    def eigen(self, matrix: Array) -> tuple[Array, Array]:
        """Eigenvalues, ascending, and eigenvectors (columns) of a symmetric matrix."""

    def solve(self, matrix: Array, rhs: Array) -> Array:
        """Least-norm solution of a symmetric system."""

    def cube_root(self, values: Array) -> Array:
        """Entry by entry, of numbers that are not negative."""

    def negligible(self, size: int) -> Any:
        """Relative size below which a computed eigenvalue of a matrix of this size counts as zero."""

    def epsilon(self) -> Any:
        """Distance from one to the next number."""

    def smallest(self) -> Any:
        """Smallest number with all its digits."""


def cubic_newton(
    system: CubicArithmetic, matrix: Array, rhs: Array, third: Array, strength: Any, unbounded: str
) -> Array:
    """The η of least T; NaN where there is none, or where an operand is not finite.

    Args:
        system: number system of the operands.
        matrix: H (S, S), symmetric.
        rhs: g (S,).
        third: D3 (S,), of any sign; groups where it is zero have no cubic term.
        strength: λ, at least zero; zero is no cubic term for any group.
        unbounded: where T has no least value: ``refuse``, NaN for the groups without cubic term and zero
            for the others; ``absolute``, eigenvalues of their block of H are replaced by their magnitudes.

    Returns:
        η (S,). Where two points are lowest (the hard case): the one with the positive component along the
        eigenvector of K that has its largest entry positive.

    Example:
        >>> from sifrc.ir.arithmetic import NUMPY
        >>> saddle, one = np.diag([-1.0, 1.0]), np.array([1.0, 1.0])
        >>> print(cubic_newton(NUMPY, saddle, 0 * one, one, 2.0, "refuse"))
        [1. 0.]
        >>> print(cubic_newton(NUMPY, saddle, one, 0 * one, 2.0, "refuse"))
        [nan nan]
        >>> print(cubic_newton(NUMPY, saddle, one, 0 * one, 2.0, "absolute"))
        [1. 1.]
    """
    unknown = np.full(len(rhs), np.nan, dtype=rhs.dtype)
    if not (_finite(matrix, rhs, third, strength) and strength >= 0):
        return unknown
    least = system.smallest()
    matrix, third = _above(least, matrix / 2 + matrix.T / 2), _above(least, third)
    rhs = _above(least / system.epsilon(), rhs)
    weights = system.cube_root(abs(third)) * system.cube_root(strength / 2)
    free, held = np.flatnonzero(weights == 0), np.flatnonzero(weights != 0)
    inner, slopes = matrix[np.ix_(held, held)], rhs[held]
    inverse = None
    if len(free):
        inverse = _free_inverse(system, matrix, rhs, free, held, unbounded)
        if inverse is None:
            return np.where(weights == 0, unknown, 0 * weights)
        across = matrix[np.ix_(held, free)]
        inner = inner - across @ inverse @ across.T if len(held) else inner
        slopes = slopes - across @ (inverse @ rhs[free]) if len(held) else slopes
    result = 0 * rhs
    if len(held):
        scaled, pull = inner / weights[held] / weights[held, None], slopes / weights[held]
        if not _finite(scaled, pull):
            return unknown
        result[held] = _lowest(system, scaled / 2 + scaled.T / 2, pull) / weights[held]
    if inverse is not None:
        moved = matrix[np.ix_(free, held)] @ result[held] if len(held) else 0
        result[free] = inverse @ (rhs[free] - moved)
    return result


def _above(least: Any, values: Array) -> Array:
    """The numbers, zero where their magnitude is less."""
    return np.where(abs(values) < least, 0 * values, values)


def _finite(*arrays: Any) -> bool:
    return all(mpmath.isfinite(value) for array in arrays for value in np.ravel(array))


def _norm(values: Array) -> Any:
    """Euclidean norm, without squares that overflow or vanish."""
    top = max(abs(values), default=0)
    return top * sum((values / top) ** 2) ** 0.5 if top > 0 else 0 * top


def _free_inverse(
    system: CubicArithmetic, matrix: Array, rhs: Array, free: Array, held: Array, unbounded: str
) -> Array | None:
    """Inverse of the block without cubic term, zero on its null space; None where T is to be refused.

    The block is scaled to a diagonal of ±1, which makes the tests, the null part of the solution and the
    absolute value the same for groups that are scaled by numbers; only a group with a zero on the diagonal
    keeps its own scale. It is bounded with a null space where that is orthogonal to the gradient and to the
    columns of the other groups.
    """
    block = matrix[np.ix_(free, free)]
    diagonal = abs(np.diag(block))
    scales = np.where(diagonal > 0, diagonal, 0 * diagonal + 1) ** 0.5
    scaled = block / scales / scales[:, None]
    sides = np.column_stack([rhs[free], matrix[np.ix_(free, held)]])
    if not _finite(scaled, sides / scales[:, None]):
        return None
    values, vectors = system.eigen(scaled)
    rounding = system.negligible(len(free))
    null = abs(values) <= rounding * max(abs(values))
    lowered = vectors[:, null].T @ (sides / scales[:, None]) if any(null) else sides[:0]
    tolerance = rounding**0.5
    bounded = all(values >= -rounding * max(abs(values))) and all(
        _norm(part) <= tolerance * _norm(side)
        for part, side in zip(lowered.T, (sides / scales[:, None]).T, strict=True)
    )
    # What has no curvature of its own, but is pulled or coupled, goes down without end.
    pulled = np.count_nonzero(np.column_stack([block, sides]), axis=1) > 0
    if any((diagonal == 0) & pulled):
        bounded = False
    if not bounded and unbounded == "refuse":
        return None
    inverse = np.where(null, 0 * values, 1 / np.where(null, 0 * values + 1, abs(values)))
    return np.asarray((vectors * inverse) @ vectors.T / scales / scales[:, None])


def _lowest(system: CubicArithmetic, matrix: Array, pull: Array) -> Array:
    """The z of least −⟨pull, z⟩ + ½ ⟨z, matrix z⟩ + ⅓ ‖z‖³, from the eigenvectors of the matrix.

    With the eigenvalue −s, s > 0, lowest, ‖z‖ = s + t; unknown is t ≥ 0, so that t may be far below the
    rounding of s. It is zero in the hard case, where z has a part in the lowest eigenspace that pull has not.
    """
    size = max(np.max(abs(matrix)), max(abs(pull)) ** 0.5)
    if size == 0:
        return 0 * pull
    matrix, pull = matrix / size, pull / size / size
    values, vectors = system.eigen(matrix)
    rounding = system.negligible(len(pull))
    limit = rounding * max(abs(values))
    shift = -values[0] if values[0] < -limit else 0 * limit
    gaps = values + shift
    lowest = gaps <= (limit if shift > 0 else 0)
    gaps = np.where(lowest, 0 * gaps, gaps)
    rotated = vectors.T @ pull
    if shift > 0 and _norm(rotated[lowest]) <= rounding * _norm(rotated):
        rotated = np.where(lowest, 0 * rotated, rotated)
    start = _lower_bound(shift, gaps, rotated)
    found = _divided(rotated, gaps + start)
    if _norm(found) > shift + start:
        found = _divided(rotated, gaps + _radius(system, shift, gaps, rotated, start))
    elif start == 0 and shift > 0:
        rest = _norm(found) / shift
        found = found + shift * (1 - rest**2) ** 0.5 * _canonical(vectors, lowest)
    return np.asarray(size * _polished(system, matrix, pull, vectors @ found))


def _divided(values: Array, by: Array) -> Array:
    """values / by, zero where both are."""
    return np.where(by > 0, values / np.where(by > 0, by, 1), 0 * values)


def _canonical(vectors: Array, lowest: Array) -> Array:
    """Coordinates of the unit vector of the lowest eigenspace with the largest possible positive entry.

    Of an eigenspace of one dimension it is the eigenvector with its largest entry positive; the first of
    entries that are equal up to rounding counts as largest.
    """
    own = np.where(lowest, vectors, 0 * vectors)
    lengths = np.sum(own**2, axis=1)
    first = next(j for j in range(len(lengths)) if lengths[j] >= (1 - _TIE) * max(lengths))
    return np.asarray(own[first] / lengths[first] ** 0.5)


def _lower_bound(shift: Any, gaps: Array, rotated: Array) -> Any:
    """The largest t with s + t = |a_i| / (gap_i + t) for an i: less than t, by a factor √S at most."""
    rest = abs(rotated) - shift * gaps
    below = shift + gaps + ((shift - gaps) ** 2 + 4 * abs(rotated)) ** 0.5
    return max(np.where(rest > 0, 2 * rest, 0 * rest) / np.where(rest > 0, below, 1))


def _radius(system: CubicArithmetic, shift: Any, gaps: Array, rotated: Array, start: Any) -> Any:
    """The t with s + t = ‖a / (gaps + t)‖, by Newton's iteration on 1/‖…‖ − 1/(s + t), from below.

    That function is concave and rises, so that the iteration rises too; the bracket is for rounding.
    """
    length = _norm(rotated)
    low, high = start, 4 * length / (shift + (shift**2 + 4 * length) ** 0.5)
    rounding = system.epsilon()
    root = start
    for _ in range(_ROOT_STEPS):
        found = _divided(rotated, gaps + root)
        norm, radius = _norm(found), shift + root
        ratio = radius / norm if norm > 0 else 2 + 0 * radius
        low, high = (root, high) if ratio < 1 else (low, root)
        slope = sum(_divided((found / norm) ** 2, gaps + root)) if norm > 0 else 0
        new = root + (1 - ratio) * radius / (1 + ratio * slope * radius)
        if abs(1 - ratio) <= rounding or abs(new - root) <= rounding * root:
            break
        root = new if low < new < high else (low + high) / 2
    return root


def _polished(system: CubicArithmetic, matrix: Array, pull: Array, point: Array) -> Array:
    """Newton's steps on the equation for z, as long as they halve a residual above rounding; NaN if it stays.

    Entries of K of very different size cost eigenvectors digits; here each row has its own scale. The matrix
    K + ‖z‖ + z zᵀ/‖z‖ is regular also where K + ‖z‖ is nearly singular, close to the hard case.
    """
    rounding = system.negligible(len(pull))
    for _ in range(_POLISHING_STEPS):
        radius = _norm(point)
        if radius == 0:
            return point
        bent = np.outer(point, point / radius) + radius * np.eye(len(pull))
        scales = _row_scales(matrix, bent, rounding)
        residual = (matrix @ point + radius * point - pull) / scales
        whole = _norm((abs(matrix) @ abs(point) + radius * abs(point) + abs(pull)) / scales)
        scaled = (matrix + bent) / scales / scales[:, None]
        if _norm(residual) <= rounding * whole or not _finite(scaled, residual):
            return point
        moved = point - system.solve(scaled, residual) / scales
        after = (matrix @ moved + _norm(moved) * moved - pull) / scales
        if not 2 * _norm(after) < _norm(residual):
            break
        point = moved
    return point if _norm(residual) <= rounding**0.5 * whole else np.nan * point


def _row_scales(matrix: Array, bent: Array, rounding: Any) -> Array:
    """Roots of the diagonal of ``matrix + bent``, or of its rounding error where it vanishes."""
    own, other = np.diag(matrix), np.diag(bent)
    return np.asarray(np.maximum(own + other, rounding * (abs(own) + other)) ** 0.5)
