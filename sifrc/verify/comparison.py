"""Comparing tensors by name: digits that agree, and the digits that rounding allows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from math import prod
from types import MappingProxyType
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt

from sifrc.errors import VerificationError
from sifrc.spec.types import Spec

__all__ = [
    "EPSILON",
    "Agreement",
    "agreed_digits",
    "allowed_digits",
    "cancelling_digits",
    "rounded_digits",
    "rounding_bound",
    "separate_digits",
]

EPSILON: Mapping[str, float] = MappingProxyType(
    {"float32": 2.0**-23, "float64": 2.0**-52, "bfloat16": 2.0**-7}
)
"""Spacing of the numbers at 1."""

_SWEEPS: Mapping[str, int] = MappingProxyType({"loss": 1, "objective": 1, "gradient": 2, "summary": 6})
_ROUNDINGS_OF_A_FUNCTION = 16
_ROUNDING_DIGITS = 2
"""Of the digits of a comparison, those that the rounding of numbers of order one may cost."""
_SMALLEST = 1e-8
"""Arrays that are smaller than this against the largest one may be what is left where terms cancel."""


class Agreement(float):
    """Digits that agree, with the two numbers that agree least.

    Args:
        digits: their number.
        difference: which numbers were compared and what they are.

    Example:
        >>> worst = min(Agreement(3.0, "x is 1.001, expected 1"), Agreement(9.0))
        >>> worst < 4, worst.difference
        (True, 'x is 1.001, expected 1')
    """

    difference: str

    def __new__(cls, digits: Any, difference: str = "") -> Agreement:
        self = super().__new__(cls, digits)
        self.difference = difference
        return self


def agreed_digits(found: Mapping[str, Any], expected: Mapping[str, Any], limit: float) -> Agreement:
    """Decimal digits of agreement relative to the largest entry of ``expected``, at most ``limit``.

    Args:
        found, expected: name -> array of floats or mpf; equal names and shapes.

    Raises:
        VerificationError: names or shapes differ, or ``found`` has an entry that is not finite.

    Example:
        >>> round(agreed_digits({"x": np.array([1.001])}, {"x": np.array([1.0])}, 16.0))
        3
    """
    largest, scale, where = mpmath.mpf(0), mpmath.mpf(0), ("", 0)
    for name, value, target in _paired(found, expected):
        for position, (a, b) in enumerate(zip(value.ravel(), target.ravel(), strict=True)):
            if not mpmath.isfinite(a):
                raise VerificationError(f"{name} is not finite")
            if not mpmath.isfinite(b):
                raise VerificationError(f"the oracle's {name} is not finite")
            error = abs(mpmath.mpf(a) - mpmath.mpf(b))
            if error > largest:
                largest, where = error, (name, position)
            scale = max(scale, abs(mpmath.mpf(b)))
    if largest == 0:
        return Agreement(limit)
    if scale <= mpmath.mpf(10) ** (_ROUNDING_DIGITS - limit):
        # The expected result is zero, exactly or to rounding: a rounding error is compared with 1.
        scale = mpmath.mpf(1)
    digits = float(min(mpmath.mpf(limit), mpmath.log10(scale / largest)))
    return Agreement(digits, _difference(found, expected, *where))


def separate_digits(found: Mapping[str, Any], expected: Mapping[str, Any], limit: float) -> Agreement:
    """Digits of agreement of the worst array, each relative to its own largest entry.

    Blocks of one network differ by orders of magnitude from layer to layer, so that the largest among all
    would hide a wrong one.

    Args:
        found, expected: name -> array of floats or mpf; equal names and shapes.

    Raises:
        VerificationError: names or shapes differ, or an entry is not finite.

    Example:
        >>> small, large = np.array([1.001e-5]), np.array([1.0])
        >>> round(separate_digits({"x": small, "y": large}, {"x": np.array([1e-5]), "y": large}, 16.0))
        3
    """
    sizes, errors = {}, {}
    for name, value, target in _paired(found, expected):
        errors[name], sizes[name] = _largest(np.asarray(value - target)), _largest(target)
        if not mpmath.isfinite(_largest(value)):
            raise VerificationError(f"{name} is not finite")
        if not mpmath.isfinite(sizes[name]):
            raise VerificationError(f"the oracle's {name} is not finite")
    overall = max(sizes.values(), default=mpmath.mpf(0)) or mpmath.mpf(1)
    worst, where = mpmath.mpf(limit), ""
    for name, error in errors.items():
        if error != 0:
            digits = mpmath.log10(max(sizes[name], _SMALLEST * overall) / error)
            worst, where = min((worst, where), (digits, name), key=lambda pair: pair[0])
    if errors.get(where, 0) == 0:
        return Agreement(float(worst))
    position = int(np.argmax(np.abs(np.asarray(found[where]) - np.asarray(expected[where]))))
    return Agreement(float(worst), _difference(found, expected, where, position))


def rounded_digits(
    found: Mapping[str, Any], expected: Mapping[str, Any], terms: Mapping[str, Any], limit: float
) -> Agreement:
    """As :func:`separate_digits`, to rounding of what the arrays are sums of.

    Args:
        found, expected: name -> array of floats or mpf; equal names and shapes.
        terms: the same without the signs of what is summed, of some of the arrays.

    Example:
        >>> one, terms = {"x": np.array([-1.0])}, {"x": np.array([1e3])}
        >>> round(rounded_digits({"x": np.array([-1.001])}, one, terms, 16.0))
        6
    """
    return separate_digits(_beside(found, terms), _beside(expected, terms), limit)


def cancelling_digits(
    found: Mapping[str, Any], expected: Mapping[str, Any], terms: Mapping[str, Any], limit: float
) -> Agreement:
    """As :func:`separate_digits`; an array that is what is left where terms cancel, to rounding of the terms.

    Args:
        found, expected: name -> array of floats or mpf; equal names and shapes.
        terms: the same without the signs of what is summed.

    Example:
        >>> zero, terms = {"x": np.array([0.0])}, {"x": np.array([1.0])}
        >>> round(cancelling_digits({"x": np.array([1e-15])}, zero, terms, 16.0))
        15
    """
    sizes = {name: _largest(np.asarray(value)) for name, value in expected.items()}
    known = {name: np.asarray(terms[name]) for name in sizes}
    left = {name: value for name, value in known.items() if sizes[name] < _SMALLEST * _largest(value)}
    return rounded_digits(found, expected, left, limit)


def _beside(values: Mapping[str, Any], terms: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays with the sizes of their terms beside them, which count in what is largest."""
    pairs = {name: (np.asarray(value), np.asarray(terms.get(name))) for name, value in values.items()}
    return {
        name: np.stack([value, size]) if value.shape == size.shape and name in terms else value
        for name, (value, size) in pairs.items()
    }


def _paired(
    found: Mapping[str, Any], expected: Mapping[str, Any]
) -> Iterator[tuple[str, npt.NDArray[Any], npt.NDArray[Any]]]:
    """Name, array and what it must be; names are compared first, shapes one by one."""
    if set(found) != set(expected):
        raise VerificationError(f"expected the names {', '.join(expected)}, got {', '.join(found)}")
    for name in expected:
        value, target = np.asarray(found[name]), np.asarray(expected[name])
        if value.shape != target.shape:
            raise VerificationError(f"{name}: expected shape {target.shape}, got {value.shape}")
        yield name, value, target


def _difference(found: Mapping[str, Any], expected: Mapping[str, Any], name: str, position: int) -> str:
    """One entry of an array and what the oracle has for it."""
    value, target = (np.asarray(tensors[name]) for tensors in (found, expected))
    index = ", ".join(map(str, np.unravel_index(position, value.shape))) if value.ndim else ""
    entries = (mpmath.nstr(mpmath.mpf(array.ravel()[position]), 12) for array in (value, target))
    return f"{name}{f'[{index}]' if index else ''} is {{}}, expected {{}}".format(*entries)


def _largest(value: npt.NDArray[Any]) -> Any:
    """Largest absolute entry; NaN and infinity are kept."""
    if value.dtype != object:
        return mpmath.mpf(float(np.max(np.abs(value), initial=0.0)))
    entries = [abs(mpmath.mpf(entry)) for entry in value.ravel()]
    if not all(mpmath.isfinite(entry) for entry in entries):
        return mpmath.inf
    return max(entries, default=mpmath.mpf(0))


def rounding_bound(spec: Spec, quantity: str, dtype: str) -> float:
    """Relative error that rounding may cause: eps · sweeps · Σ_k (fan-in_k + fan-out_k + 16).

    Every sweep through the network (one for the loss, two for the gradient, four for products with a
    curvature matrix, six for summaries, which have tangents of order 2 and of the adjoints too) accumulates
    sums of fan-in or fan-out terms, and a scalar function costs a few more roundings. The bound is linear in
    their number, where rounding errors are rather of its square root: that leaves room for the growth of
    errors from layer to layer. The fan of a state with several axes is its last one, along which layers sum;
    to that come the places where it is used, over which gradients do.

    Example:
        >>> from sifrc.spec import parse_spec, starter_spec
        >>> 1e-13 < rounding_bound(parse_spec(starter_spec("digits")), "gradient", "float64") < 1e-12
        True
    """
    terms = {name: shape[-1] + prod(shape[:-1]) - 1 for name, shape in spec.shapes.items()}
    operations = 0
    for layer in spec.layers:
        operations += sum(terms[name] for name in (*layer.inputs, layer.name)) + _ROUNDINGS_OF_A_FUNCTION
    return EPSILON[dtype] * _SWEEPS.get(quantity, 4) * operations


def allowed_digits(bound: float) -> float:
    """Digits that a relative error of ``bound`` leaves."""
    return -math.log10(bound)
