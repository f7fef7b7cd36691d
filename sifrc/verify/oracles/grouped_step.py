"""Steps of grouped Newton by the oracle: GN3 Algorithm 4, with derivatives from the forward pass alone.

Gradients and summaries are nested duals. The minimiser of −⟨η, g⟩ + ½ ⟨η, H η⟩ + λ/6 ‖D η‖³ is found without
eigenvalues: with r = ‖D η‖ it is η = (H + ½ λ r D²)⁻¹ g, the matrix positive definite, and r is bisected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import mpmath
import numpy as np

from sifrc.ir.arithmetic import MPMATH, Array
from sifrc.spec.types import OptionValue, Spec
from sifrc.verify.oracles.batch_mpmath import PreciseBatch
from sifrc.verify.points import Point
from sifrc.verify.summary_parts import parts_of

__all__ = ["GroupedSteps", "NoMinimiserError", "least_cubic"]

Arrays = Mapping[str, Array]
_MOST_DOUBLINGS = 500


class NoMinimiserError(Exception):
    """The model has no single minimiser that the bisection finds: it is unbounded, or in the hard case."""


class GroupedSteps:
    """Steps from a point, always on the same batch, with a summary in each.

    Args:
        spec: the network.
        options: of the method, all of them.
        point: start, and batch.
        digits: precision in force.

    Attributes:
        params: by name.
        rates: of the last step, (S,).
    """

    def __init__(self, spec: Spec, options: Mapping[str, OptionValue], point: Point, digits: int) -> None:
        self.spec, self.options, self.point, self.digits = spec, options, point, digits
        self.params: dict[str, Array] = {name: MPMATH.array(v) for name, v in point.params.items()}
        self.rates: Array | None = None
        self._average: dict[str, Array] | None = None
        self._squares: dict[str, Array] | None = None
        self._steps = 0

    def step(self) -> None:
        """One step.

        Raises:
            NoMinimiserError: the rates are not determined.
        """
        self._steps += 1
        batch = PreciseBatch(self.spec, replace(self.point, params=self.params), 0, self.digits)
        parts = parts_of(self.spec, self._direction(batch.whole_gradient()))
        rates = self._bounded(self._rates(*self._summaries(batch, parts)))
        if self.rates is not None:
            old = self._number("rate_momentum")
            rates = old * self.rates + (1 - old) * rates
        self.rates = rates
        size = self._number("learning_rate")
        kept = 1 - size * self._number("weight_decay") if "weight_decay" in self.options else 1
        self.params = {name: kept * value for name, value in self.params.items()}
        for rate, part in zip(rates, parts, strict=True):
            self.params = {name: value - size * rate * part[name] for name, value in self.params.items()}

    def _number(self, name: str) -> Any:
        return mpmath.mpf(repr(float(self.options[name])))

    def _direction(self, gradient: Arrays) -> dict[str, Array]:
        """The gradient, its moving average, or Adam's direction; averages begin with their first value."""
        kind = self.options["direction"]
        if kind == "gradient":
            return dict(gradient)
        if kind == "momentum":
            old = self._number("momentum")
            before = gradient if self._average is None else self._average
            self._average = {k: old * before[k] + (1 - old) * gradient[k] for k in gradient}
            return dict(self._average)
        beta1, beta2 = self._number("beta1"), self._number("beta2")
        none = {name: 0 * value for name, value in gradient.items()}
        first, second = self._average or none, self._squares or none
        self._average = {k: beta1 * first[k] + (1 - beta1) * gradient[k] for k in gradient}
        self._squares = {k: beta2 * second[k] + (1 - beta2) * gradient[k] * gradient[k] for k in gradient}
        root = np.frompyfunc(mpmath.sqrt, 1, 1)
        scale1, scale2 = 1 - beta1**self._steps, 1 - beta2**self._steps
        return {
            k: (self._average[k] / scale1) / (root(self._squares[k] / scale2) + self._number("epsilon"))
            for k in gradient
        }

    def _summaries(self, batch: PreciseBatch, parts: Sequence[Arrays]) -> tuple[Array, Array, Array]:
        size = range(len(parts))
        matrix = np.empty((len(parts), len(parts)), dtype=object)
        for i in size:
            for j in range(i + 1):
                matrix[i, j] = matrix[j, i] = batch.derivative([parts[i], parts[j]])
        if self.options["interactions"] == "diagonal":
            matrix = np.where(np.eye(len(parts), dtype=bool), matrix, mpmath.mpf(0))
        cubic = self.options["regularization"] == "cubic"
        third = [batch.derivative([part] * 3) if cubic else mpmath.mpf(0) for part in parts]
        return np.asarray([batch.derivative([part]) for part in parts]), matrix, np.asarray(third)

    def _rates(self, gradient: Array, matrix: Array, third: Array) -> Array:
        if self.options["regularization"] == "cubic":
            return least_cubic(matrix, gradient, third, self._number("internal_damping"), self.digits)
        if self.options["regularization"] == "ridge":
            matrix = matrix + self._number("ridge") * np.eye(len(gradient), dtype=int)
        return _solved(matrix, gradient)

    def _bounded(self, rates: Array) -> Array:
        clip = self._number("clip")
        if clip > 0:
            rates = np.asarray([min(rate, clip) for rate in rates])
        return np.asarray([max(rate, mpmath.mpf(0)) for rate in rates]) if self.options["positive"] else rates


def least_cubic(matrix: Array, gradient: Array, third: Array, strength: Any, digits: int) -> Array:
    """The minimiser of −⟨η, g⟩ + ½ ⟨η, H η⟩ + λ/6 ‖|D3|^⅓ ∘ η‖³.

    A point with η = (H + ½ λ r D²)⁻¹ g and r = ‖D η‖, the matrix positive definite, is the only minimiser:
    ‖w‖³ is at least 3/2 r ‖w‖² − ½ r³, with equality where ‖w‖ = r.

    Args:
        matrix: (S, S), mpf.
        gradient: (S,).
        third: (S,).
        strength: λ.
        digits: precision in force.

    Raises:
        NoMinimiserError: no such point: the hard case, or the matrix is not definite where D3 is zero.
    """
    roots = np.asarray([mpmath.cbrt(abs(value)) for value in third])

    def at(radius: Any) -> Array | None:
        """η for a radius; None where the matrix is not positive definite."""
        bent = matrix + np.diag(strength / 2 * radius * roots * roots)
        return _solved(bent, gradient) if _definite(bent) else None

    def length(point: Array) -> Any:
        return mpmath.sqrt(((roots * point) ** 2).sum())

    high = mpmath.mpf(1)
    for _ in range(_MOST_DOUBLINGS):
        point = at(high)
        if point is not None and length(point) <= high:
            break
        high *= 2
    else:
        raise NoMinimiserError("the cubic model has no minimiser")
    low = mpmath.mpf(0)
    for _ in range(4 * digits):
        middle = (low + high) / 2
        point = at(middle)
        low, high = (low, middle) if point is not None and length(point) <= middle else (middle, high)
    point = at(high)
    if point is None or abs(length(point) - high) > high * mpmath.mpf(10) ** (-digits // 2):
        # With no radius left that fits, the missing length is along an eigenvector.
        raise NoMinimiserError("the cubic model is in the hard case")
    return point


def _matrix(values: Array) -> Any:
    return mpmath.matrix(values.tolist())


def _definite(matrix: Array) -> bool:
    try:
        mpmath.cholesky(_matrix(matrix))
    except ValueError:
        return False
    return True


def _solved(matrix: Array, rhs: Array) -> Array:
    try:
        return np.asarray(list(mpmath.lu_solve(_matrix(matrix), _matrix(rhs))), dtype=object)
    except ZeroDivisionError as error:
        raise NoMinimiserError("the matrix of the summaries is singular") from error
