"""Dual numbers over mpmath that nest to any order: derivatives from the forward pass alone.

A number a + ȧ ε_tag with ε² = 0. The parts may be duals of lower tags, so that seeding one variable with
several tags gives mixed derivatives of any order. A plain mpf, or a dual of a lower tag, is a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import mpmath

__all__ = ["FUNCTIONS", "Dual", "part", "power", "primal", "seed"]

Number = Any  # an mpf or a Dual


class Dual:
    """``value`` + ``slope`` ε with tag ``tag``; parts have lower tags."""

    __slots__ = ("slope", "tag", "value")

    def __init__(self, tag: int, value: Number, slope: Number) -> None:
        self.tag = tag
        self.value = value
        self.slope = slope

    def __add__(self, other: Number) -> Number:
        if not isinstance(other, Dual) or other.tag < self.tag:
            return Dual(self.tag, self.value + other, self.slope)
        if other.tag > self.tag:
            return Dual(other.tag, self + other.value, other.slope)
        return Dual(self.tag, self.value + other.value, self.slope + other.slope)

    __radd__ = __add__

    def __neg__(self) -> Number:
        return Dual(self.tag, -self.value, -self.slope)

    def __sub__(self, other: Number) -> Number:
        return self + (-other)

    def __rsub__(self, other: Number) -> Number:
        return (-self) + other

    def __mul__(self, other: Number) -> Number:
        if not isinstance(other, Dual) or other.tag < self.tag:
            return Dual(self.tag, self.value * other, self.slope * other)
        if other.tag > self.tag:
            return Dual(other.tag, self * other.value, self * other.slope)
        return Dual(self.tag, self.value * other.value, self.value * other.slope + self.slope * other.value)

    __rmul__ = __mul__

    def __truediv__(self, other: Number) -> Number:
        return self * _reciprocal(other)

    def __rtruediv__(self, other: Number) -> Number:
        return _reciprocal(self) * other

    def __pow__(self, exponent: Number) -> Number:
        return power(self, exponent)

    def __rpow__(self, base: Number) -> Number:
        return power(base, self)

    def __lt__(self, other: Number) -> bool:
        return bool(primal(self) < primal(other))

    def __le__(self, other: Number) -> bool:
        return bool(primal(self) <= primal(other))

    def __gt__(self, other: Number) -> bool:
        return bool(primal(self) > primal(other))

    def __ge__(self, other: Number) -> bool:
        return bool(primal(self) >= primal(other))


def seed(value: Number, slope: Number, tag: int) -> Number:
    """The number moved by ``slope`` along ε_tag; the number itself where the slope is zero."""
    return value if slope == 0 else Dual(tag, value, slope)


def part(value: Number, tags: tuple[int, ...]) -> Number:
    """Coefficient of the product of the ε's of the tags, highest first: a mixed derivative."""
    for tag in tags:
        if not isinstance(value, Dual) or value.tag < tag:
            return mpmath.mpf(0)
        value = value.slope
    return primal(value)


def primal(value: Number) -> Number:
    """The number without any ε."""
    while isinstance(value, Dual):
        value = value.value
    return value


def _reciprocal(x: Number) -> Number:
    if not isinstance(x, Dual):
        return 1 / mpmath.mpf(x)
    inverse = _reciprocal(x.value)
    return Dual(x.tag, inverse, -(inverse * inverse) * x.slope)


def _integer_power(x: Number, exponent: int) -> Number:
    if exponent < 0:
        return _reciprocal(_integer_power(x, -exponent))
    if not isinstance(x, Dual):
        return mpmath.mpf(x) ** exponent
    if exponent == 0:
        return mpmath.mpf(1)
    return Dual(
        x.tag, _integer_power(x.value, exponent), exponent * _integer_power(x.value, exponent - 1) * x.slope
    )


def _apply(name: str, x: Number) -> Number:
    """f(a + ȧ ε) = f(a) + f'(a) ȧ ε; f' is itself applied to a dual of a lower tag.

    Raises:
        OverflowError: a number of more than 1e300 has no limit.
    """
    function, slope = _RULES[name]
    if not isinstance(x, Dual):
        return _far(name, x) if name in _FAR and abs(x) > _LARGEST else function(x)
    return Dual(x.tag, _apply(name, x.value), slope(x.value) * x.slope)


def power(base: Number, exponent: Number) -> Number:
    """``base`` to an exponent: a product where that is an integer, else not a number below zero.

    Raises:
        OverflowError: the exponent is more than 1e300.
    """
    if abs(primal(exponent)) > _LARGEST:
        raise OverflowError(f"power with an exponent beyond {_LARGEST:g}")
    if not isinstance(exponent, Dual) and mpmath.isint(exponent):
        return _integer_power(base, int(exponent))
    if not isinstance(base, Dual) and not isinstance(exponent, Dual):
        return _real(lambda a: a**exponent)(base)
    return FUNCTIONS["exp"](FUNCTIONS["log"](base) * exponent)


def _real(function: Callable[[Number], Number]) -> Callable[[Number], Number]:
    """The function where its value is real, and not a number elsewhere."""

    def call(x: Number) -> Number:
        value = function(x)
        return mpmath.nan if isinstance(value, mpmath.mpc) else value

    return call


def _softplus(x: Number) -> Number:
    return max(x, mpmath.mpf(0)) + mpmath.log1p(mpmath.exp(-abs(x)))


_LARGEST = 1e300
"""What is beyond is the limit to more digits than anyone asks for; its own digits would take hours.

Nothing less will do: the logarithm of exp(-1e30) is a number of float64.
"""
_Limit: TypeAlias = Callable[[Number], Number] | int | None
_FAR: Mapping[str, tuple[_Limit, _Limit]] = MappingProxyType(
    {
        "exp": (0, None),
        "expm1": (-1, None),
        "sinh": (None, None),
        "cosh": (None, None),
        "tanh": (-1, 1),
        "sigmoid": (0, 1),
        "softplus": (0, mpmath.mpf),
        "erf": (-1, 1),
        "sin": (None, None),
        "cos": (None, None),
        "tan": (None, None),
    }
)
"""Limits of functions far below and far above zero; None where there is none."""


def _far(name: str, x: Number) -> Number:
    limit = _FAR[name][int(x > 0)]
    if limit is None:
        raise OverflowError(f"{name} beyond {_LARGEST:g}")
    return limit(x) if callable(limit) else mpmath.mpf(limit)


def _sign(x: Number) -> Number:
    return mpmath.sign(primal(x))


def _square(x: Number) -> Number:
    return x * x


_exp, _sin, _cos, _sinh, _cosh = (partial(_apply, name) for name in ("exp", "sin", "cos", "sinh", "cosh"))
_tan, _tanh, _sigmoid, _sqrt = (partial(_apply, name) for name in ("tan", "tanh", "sigmoid", "sqrt"))

_RULES: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = MappingProxyType(
    {
        "abs": (abs, _sign),
        "asinh": (mpmath.asinh, lambda x: _reciprocal(_sqrt(1 + _square(x)))),
        "atan": (mpmath.atan, lambda x: _reciprocal(1 + _square(x))),
        "cos": (mpmath.cos, lambda x: -_sin(x)),
        "cosh": (mpmath.cosh, _sinh),
        "erf": (mpmath.erf, lambda x: 2 / mpmath.sqrt(mpmath.pi) * _exp(-_square(x))),
        "exp": (mpmath.exp, _exp),
        "expm1": (mpmath.expm1, _exp),
        "log": (_real(mpmath.log), _reciprocal),
        "log1p": (_real(mpmath.log1p), lambda x: _reciprocal(1 + x)),
        "sigmoid": (lambda x: 1 / (1 + mpmath.exp(-x)), lambda x: _sigmoid(x) * (1 - _sigmoid(x))),
        "sin": (mpmath.sin, _cos),
        "sinh": (mpmath.sinh, _cosh),
        "softplus": (_softplus, _sigmoid),
        "sqrt": (_real(mpmath.sqrt), lambda x: _reciprocal(2 * _sqrt(x))),
        "tan": (mpmath.tan, lambda x: 1 + _square(_tan(x))),
        "tanh": (mpmath.tanh, lambda x: 1 - _square(_tanh(x))),
    }
)

FUNCTIONS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {name: partial(_apply, name) for name in _RULES}
)
"""Elementary functions of an mpf or a dual number, by name."""
