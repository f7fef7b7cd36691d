"""Level 2 of the ladder: the lowered program, interpreted at many digits, against the forward pass alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mpmath
import numpy as np

from sifrc.ir.arithmetic import MPMATH, Array
from sifrc.spec.types import Spec
from sifrc.verify.comparison import agreed_digits
from sifrc.verify.oracles.forward_mpmath import ForwardMpmath
from sifrc.verify.points import capped, near_targets, parameter_count, random_point
from sifrc.verify.precise.programs import ProgramSample
from sifrc.verify.table import Row

__all__ = ["precise_rows"]

_ORACLE = "nested duals"
_CAP = 4
_FULL = 80
"""Up to this many parameters every entry is compared, beyond it the results along random directions."""
_ATTEMPTS = 5

Tensors = Mapping[str, Array]


class _Point:
    """One random point: the program and the oracle there."""

    def __init__(self, spec: Spec, seed: int, near: bool = False) -> None:
        self.spec = spec
        self.oracle = ForwardMpmath(spec)
        point = random_point(spec, seed)
        if near:
            output = self.oracle.output(_precise(point.params), MPMATH.array(point.inputs[0]))
            point = near_targets(spec, point, output[np.newaxis], seed)
        self.params = _precise(point.params)
        self.vector = _precise(point.vector)
        self.probes = [_precise(random_point(spec, seed + k).vector) for k in (1, 2, 3)]
        sample, self.target = point.sample()
        self.sample = MPMATH.array(sample)
        if spec.loss.targets == "vectors":
            self.target = MPMATH.array(self.target)
        self.full = parameter_count(spec) <= _FULL
        self.systems = ProgramSample(spec, self.params, self.sample, self.target, MPMATH)

    def compare(self, found: Tensors, expected: Callable[[Tensors], Any], limit: float) -> float:
        """Digits between a result and the oracle's bilinear form with it."""
        if self.full:
            return agreed_digits(found, self._entries(expected), limit)
        products = [
            sum(((found[name] * probe[name]).sum() for name in found), mpmath.mpf(0)) for probe in self.probes
        ]
        right = [expected(probe) for probe in self.probes]
        return agreed_digits({"probe": np.asarray(products)}, {"probe": np.asarray(right)}, limit)

    def _entries(self, expected: Callable[[Tensors], Any]) -> dict[str, Array]:
        result: dict[str, Array] = {}
        for name, given in self.params.items():
            entries = np.empty(given.shape, dtype=object)
            for index in np.ndindex(given.shape):
                unit = {other: np.zeros(value.shape, dtype=object) for other, value in self.params.items()}
                unit[name][index] = mpmath.mpf(1)
                entries[index] = expected(unit)
            result[name] = entries
        return result

    def derivative(self, *directions: Tensors) -> Any:
        return self.oracle.derivative(self.params, self.sample, self.target, directions)


def _precise(tensors: Tensors) -> dict[str, Array]:
    return {name: MPMATH.array(value) for name, value in tensors.items()}


def _scalar(found: Any, expected: Any, limit: float) -> float:
    return agreed_digits({"value": np.asarray(found)}, {"value": np.asarray(expected)}, limit)


def _loss(point: _Point, limit: float) -> float:
    return _scalar(point.systems.loss(), point.oracle.loss(point.params, point.sample, point.target), limit)


def _objective(point: _Point, limit: float) -> float:
    return _scalar(
        point.systems.objective(), point.oracle.objective(point.params, point.sample, point.target), limit
    )


def _gradient(point: _Point, limit: float) -> float:
    return point.compare(point.systems.gradient(), point.derivative, limit)


def _hessian(point: _Point, limit: float) -> float:
    found = point.systems.hessian_vector_product(point.vector)
    return point.compare(found, lambda probe: point.derivative(point.vector, probe), limit)


def _gauss_newton(point: _Point, limit: float) -> float:
    found = point.systems.gauss_newton_vector_product(point.vector)

    def expected(probe: Tensors) -> Any:
        return point.oracle.ggn_bilinear(point.params, point.sample, point.target, probe, point.vector)

    return point.compare(found, expected, limit)


def _newton(point: _Point, limit: float) -> float:
    """H(N, η) by the oracle against the oracle's gradient."""
    direction = point.systems.newton_direction()
    if point.full:
        product = point.oracle.hvp(point.params, point.sample, point.target, direction)
        return agreed_digits(product, point.oracle.gradient(point.params, point.sample, point.target), limit)
    products = [point.derivative(direction, probe) for probe in point.probes]
    right = [point.derivative(probe) for probe in point.probes]
    return agreed_digits({"probe": np.asarray(products)}, {"probe": np.asarray(right)}, limit)


def precise_rows(spec: Spec, digits: int, seed: int) -> Iterator[tuple[str, str, Callable[[], Row | None]]]:
    """The checks of level 2 as (quantity, oracle, check)."""
    used = spec if parameter_count(spec) <= _FULL else capped(spec, _CAP)
    checks = {
        "loss": _loss,
        "objective": _objective,
        "gradient": _gradient,
        "hessian_vector_product": _hessian,
        "gauss_newton_vector_product": _gauss_newton,
        "newton_direction": _newton,
    }
    for quantity, check in checks.items():
        yield quantity, _ORACLE, lambda q=quantity, c=check: _row(q, c, used, used is not spec, digits, seed)  # type: ignore[misc]


def _row(
    quantity: str, check: Callable[[_Point, float], float], spec: Spec, small: bool, digits: int, seed: int
) -> Row:
    notes = [f"layers capped at {_CAP} units"] if small else []
    with mpmath.workdps(digits):
        found, skipped = _first_regular(quantity, check, spec, digits, seed)
    if skipped:
        notes.append(f"{skipped} random points where a run-time condition fails were skipped")
    if parameter_count(spec) > _FULL:
        notes.append("along random directions")
    if quantity == "newton_direction":
        notes.insert(0, "H(N, η) against the gradient")
    required = digits - 10.0
    return Row(quantity, 2, _ORACLE, found, required, found >= required, "; ".join(notes))


def _first_regular(
    quantity: str, check: Callable[[_Point, float], float], spec: Spec, digits: int, seed: int
) -> tuple[float, int]:
    """Digits at the first point where the quantity exists: a Newton direction needs its conditions."""
    attempts = _ATTEMPTS if quantity == "newton_direction" else 1
    for attempt in range(attempts):
        try:
            return check(_Point(spec, seed + 101 * attempt, near=attempt > 0), digits), attempt
        except (ZeroDivisionError, FloatingPointError):
            if attempt == attempts - 1:
                raise
    raise AssertionError("unreachable")
