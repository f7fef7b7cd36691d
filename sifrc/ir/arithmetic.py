"""Number systems an expression can be evaluated in: float64 arrays, and mpmath numbers at any precision."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

import mpmath
import numpy as np
import numpy.typing as npt

from sifrc.ir.cubic import CubicArithmetic, cubic_newton
from sifrc.scalar.evaluate import EvaluationDialect
from sifrc.scalar.evaluate import evaluate as evaluate_scalar
from sifrc.scalar.function import ScalarFunction

__all__ = ["ARITHMETICS", "MPMATH", "NUMPY", "Arithmetic", "Array", "NumberSystem"]

Array: TypeAlias = npt.NDArray[Any]


class Arithmetic(Protocol):
    """What the evaluation of expressions needs from a number system."""

    def array(self, values: Any) -> Array:
        """The numbers as an array of this system."""

    def rational(self, value: Fraction) -> Any:
        """A rational number."""

    def apply(
        self, function: ScalarFunction, orders: tuple[int, ...], arguments: Mapping[str, Array]
    ) -> Array:
        """A scalar function, or a derivative of it, entry by entry on arrays of one shape."""

    def log_sum_exp(self, values: Array, axis: int) -> Array:
        """log Σ exp over one axis, without overflow."""

    def log_softmax(self, values: Array, axis: int) -> Array:
        """u − log Σ exp u over one axis, exact whatever all entries have in common."""

    def maximum(self, values: Array, axis: int) -> Array:
        """Largest entry over one axis."""

    def solve(self, matrix: Array, rhs: Array) -> Array:
        """Least-norm solution: matrix (n, n) symmetric, rhs (n,) or (n, m) in its range."""

    def spectral(self, matrix: Array, kind: str) -> Array:
        """``positive`` part or ``absolute`` value of a symmetric matrix (n, n)."""

    def cubic_newton(self, matrix: Array, rhs: Array, third: Array, strength: Array, unbounded: str) -> Array:
        """η (n,) of least value, see :func:`sifrc.ir.cubic.cubic_newton`."""


class NumberSystem(Arithmetic, CubicArithmetic, Protocol):
    """What running a program needs besides."""

    @property
    def dialect(self) -> EvaluationDialect:
        """Name of the number system for scalar expressions."""

    def sylvester(self, left: Array, right: Array, rhs: Array) -> Array:
        """Least-norm X of ``left`` X + X ``right`` = ``rhs``, matrices symmetric positive semi-definite."""

    def kronecker(self, left: Array, right: Array, rhs: Array, shift: Array) -> Array:
        """X of ``shift`` X + ``left`` X ``right`` = ``rhs``, matrices symmetric."""


class _Scalars(NumberSystem):
    """What follows from eigenvalues and from the evaluation of scalar expressions."""

    dialect: EvaluationDialect

    def apply(
        self, function: ScalarFunction, orders: tuple[int, ...], arguments: Mapping[str, Array]
    ) -> Array:
        values = evaluate_scalar(function.value_form(orders), arguments, self.dialect)
        shape = np.broadcast_shapes(*(np.shape(value) for value in arguments.values()))
        return np.broadcast_to(np.asarray(values), shape)

    def log_softmax(self, values: Array, axis: int) -> Array:
        below = values - np.max(values, axis=axis, keepdims=True)
        return np.asarray(below - np.expand_dims(self.log_sum_exp(below, axis), axis))

    def maximum(self, values: Array, axis: int) -> Array:
        return np.asarray(np.max(values, axis=axis))

    def cubic_newton(self, matrix: Array, rhs: Array, third: Array, strength: Array, unbounded: str) -> Array:
        return cubic_newton(self, matrix, rhs, third, np.asarray(strength)[()], unbounded)

    def _inverse(self, values: Array, size: int) -> Array:
        """Entrywise 1/v, zero where v is negligible against the largest."""
        limit = np.max(np.abs(values)) * self.negligible(size)
        kept = np.abs(values) > limit
        return np.asarray(np.where(kept, 1 / np.where(kept, values, 1), 0 * values))

    def solve(self, matrix: Array, rhs: Array) -> Array:
        eigenvalues, vectors = self.eigen(matrix)
        inverse = self._inverse(eigenvalues, len(eigenvalues))
        rotated = vectors.T @ rhs
        return np.asarray(vectors @ (rotated * (inverse if rhs.ndim == 1 else inverse[:, None])))

    def sylvester(self, left: Array, right: Array, rhs: Array) -> Array:
        (a, u), (b, v) = self.eigen(left), self.eigen(right)
        inverse = self._inverse(a[:, None] + b[None, :], max(len(a), len(b)))
        return np.asarray(u @ ((u.T @ rhs @ v) * inverse) @ v.T)

    def kronecker(self, left: Array, right: Array, rhs: Array, shift: Array) -> Array:
        (a, u), (b, v) = self.eigen(left), self.eigen(right)
        return np.asarray(u @ ((u.T @ rhs @ v) / (shift + a[:, None] * b[None, :])) @ v.T)

    def spectral(self, matrix: Array, kind: str) -> Array:
        eigenvalues, vectors = self.eigen(matrix)
        absolute = np.abs(eigenvalues)
        if kind == "definite":
            least = -max(absolute) * self.negligible(len(matrix))
            return matrix if min(eigenvalues) >= least else matrix * np.nan
        mapped = absolute if kind == "absolute" else (absolute + eigenvalues) / 2
        return np.asarray((vectors * mapped) @ vectors.T)


class _NumPy(_Scalars):
    """Floating-point numbers of 64 bits."""

    dialect: EvaluationDialect = "numpy"

    def array(self, values: Any) -> Array:
        return np.asarray(values, dtype=np.float64)

    def rational(self, value: Fraction) -> float:
        return value.numerator / value.denominator

    def log_sum_exp(self, values: Array, axis: int) -> Array:
        largest = np.max(values, axis=axis, keepdims=True)
        total = np.sum(np.exp(values - largest), axis=axis)
        return np.asarray(np.squeeze(largest, axis=axis) + np.log(total))

    def eigen(self, matrix: Array) -> tuple[Array, Array]:
        eigenvalues, vectors = np.linalg.eigh(matrix)
        return eigenvalues, vectors

    def negligible(self, size: int) -> float:
        return float(16 * size * np.finfo(np.float64).eps)

    def epsilon(self) -> float:
        return float(np.finfo(np.float64).eps)

    def smallest(self) -> float:
        return float(np.finfo(np.float64).tiny)

    def cube_root(self, values: Array) -> Array:
        return np.asarray(np.cbrt(values))


class _Mpmath(_Scalars):
    """mpmath numbers in object arrays, at the precision in force (``mpmath.workdps``)."""

    dialect: EvaluationDialect = "mpmath"

    def array(self, values: Any) -> Array:
        return np.asarray(np.frompyfunc(mpmath.mpf, 1, 1)(np.asarray(values, dtype=object)), dtype=object)

    def rational(self, value: Fraction) -> Any:
        return mpmath.mpf(value.numerator) / value.denominator

    def log_sum_exp(self, values: Array, axis: int) -> Array:
        largest = np.max(values, axis=axis, keepdims=True)
        total = np.sum(np.frompyfunc(mpmath.exp, 1, 1)(values - largest), axis=axis)
        return np.asarray(
            np.squeeze(largest, axis=axis) + np.frompyfunc(mpmath.log, 1, 1)(total), dtype=object
        )

    def eigen(self, matrix: Array) -> tuple[Array, Array]:
        size = len(matrix)
        eigenvalues, vectors = mpmath.eigsy(mpmath.matrix(matrix.tolist()))
        columns = [[vectors[i, j] for j in range(size)] for i in range(size)]
        return self.array(list(eigenvalues)), self.array(columns)

    def negligible(self, size: int) -> Any:
        # A computed zero eigenvalue is of the size of the rounding, far below half of the digits.
        return mpmath.mpf(10) ** (-mpmath.mp.dps // 2)

    def epsilon(self) -> Any:
        return +mpmath.eps

    def smallest(self) -> Any:
        return mpmath.mpf(0)

    def cube_root(self, values: Array) -> Array:
        return np.asarray(np.frompyfunc(mpmath.cbrt, 1, 1)(values), dtype=object)


NUMPY: NumberSystem = _NumPy()
"""float64."""

MPMATH: NumberSystem = _Mpmath()
"""Object arrays of mpmath numbers."""

ARITHMETICS: Mapping[str, NumberSystem] = MappingProxyType({"numpy": NUMPY, "mpmath": MPMATH})
"""Number systems by name."""
