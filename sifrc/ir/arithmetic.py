"""Number systems an expression can be evaluated in: float64 arrays, and mpmath numbers at any precision."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

import mpmath
import numpy as np
import numpy.typing as npt

from sifrc.scalar.evaluate import EvaluationDialect
from sifrc.scalar.evaluate import evaluate as evaluate_scalar
from sifrc.scalar.function import ScalarFunction

__all__ = ["ARITHMETICS", "MPMATH", "NUMPY", "Arithmetic", "Array"]

Array: TypeAlias = npt.NDArray[Any]


class Arithmetic(Protocol):
    """What the evaluation of expressions needs from a number system."""

    def array(self, values: Any) -> Array:
        """The numbers as an array of this system."""
        ...

    def rational(self, value: Fraction) -> Any:
        """A rational number."""
        ...

    def apply(
        self, function: ScalarFunction, orders: tuple[int, ...], arguments: Mapping[str, Array]
    ) -> Array:
        """A scalar function, or a derivative of it, entry by entry on arrays of one shape."""
        ...

    def log_sum_exp(self, values: Array, axis: int) -> Array:
        """log Σ exp over one axis, without overflow."""
        ...

    def maximum(self, values: Array, axis: int) -> Array:
        """Largest entry over one axis."""
        ...

    def solve(self, matrix: Array, rhs: Array) -> Array:
        """Least-norm u with ``matrix`` u = ``rhs``: matrix (n, n) symmetric, rhs (n,) in its range."""
        ...

    def spectral(self, matrix: Array, kind: str) -> Array:
        """``positive`` part or ``absolute`` value of a symmetric matrix (n, n)."""
        ...


class _Scalars:
    """The elementwise part, from the evaluation of scalar expressions."""

    dialect: EvaluationDialect

    def apply(
        self, function: ScalarFunction, orders: tuple[int, ...], arguments: Mapping[str, Array]
    ) -> Array:
        values = evaluate_scalar(function.value_form(orders), arguments, self.dialect)
        shape = np.broadcast_shapes(*(np.shape(value) for value in arguments.values()))
        return np.broadcast_to(np.asarray(values), shape)

    def maximum(self, values: Array, axis: int) -> Array:
        return np.asarray(np.max(values, axis=axis))


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

    def solve(self, matrix: Array, rhs: Array) -> Array:
        eigenvalues, vectors = np.linalg.eigh(matrix)
        cut = np.max(np.abs(eigenvalues)) * len(rhs) * np.finfo(np.float64).eps
        kept = np.abs(eigenvalues) > cut
        inverse = np.zeros_like(eigenvalues)
        inverse[kept] = 1 / eigenvalues[kept]
        return np.asarray(vectors @ (inverse * (vectors.T @ rhs)))

    def spectral(self, matrix: Array, kind: str) -> Array:
        eigenvalues, vectors = np.linalg.eigh(matrix)
        mapped = np.maximum(eigenvalues, 0) if kind == "positive" else np.abs(eigenvalues)
        return np.asarray((vectors * mapped) @ vectors.T)


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

    def solve(self, matrix: Array, rhs: Array) -> Array:
        eigenvalues, vectors = self._eigen(matrix)
        # A computed zero eigenvalue is of the size of the rounding, far below half of the digits.
        cut = max(abs(value) for value in eigenvalues) * mpmath.mpf(10) ** (-mpmath.mp.dps // 2)
        inverse = self.array([1 / value if abs(value) > cut else 0 for value in eigenvalues])
        return np.asarray(vectors @ (inverse * (vectors.T @ rhs)))

    def spectral(self, matrix: Array, kind: str) -> Array:
        eigenvalues, vectors = self._eigen(matrix)
        mapped = [max(value, mpmath.mpf(0)) if kind == "positive" else abs(value) for value in eigenvalues]
        return np.asarray((vectors * self.array(mapped)) @ vectors.T)

    def _eigen(self, matrix: Array) -> tuple[list[Any], Array]:
        size = len(matrix)
        eigenvalues, vectors = mpmath.eigsy(mpmath.matrix(matrix.tolist()))
        return list(eigenvalues), self.array([[vectors[i, j] for j in range(size)] for i in range(size)])


NUMPY: Arithmetic = _NumPy()
"""float64."""

MPMATH: Arithmetic = _Mpmath()
"""Object arrays of mpmath numbers."""

ARITHMETICS: Mapping[str, Arithmetic] = MappingProxyType({"numpy": NUMPY, "mpmath": MPMATH})
"""Number systems by name."""
