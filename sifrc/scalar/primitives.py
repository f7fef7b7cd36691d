"""Scalar primitives: functions with their own derivative and their own stable code."""

from __future__ import annotations

from typing import Any, ClassVar

import mpmath
import sympy
from sympy import Expr, Function, Rational, S

__all__ = [
    "absolute",
    "erfc",
    "expm1",
    "log1p",
    "power_of_two",
    "quotient",
    "sigmoid",
    "signum",
    "softplus",
    "undefined",
]

_GUARD = 10
"""Further bits in which a constant is computed."""


class _Primitive(Function):  # type: ignore[misc]
    """A function of one argument, whose constants SymPy can compare by their digits."""

    nargs = 1
    at_zero: ClassVar[Expr | None] = None
    """The value at zero, where SymPy is to know it."""

    @staticmethod
    def number(x: Any) -> Any:
        """The function at a number of mpmath, to the precision in force, without cancellation."""
        raise NotImplementedError

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        return cls.at_zero if x.is_zero else None

    def _eval_evalf(self, precision: int) -> Expr | None:
        try:
            argument = self.args[0]._to_mpmath(precision + _GUARD)
        except ValueError:
            return None  # no number
        with mpmath.workprec(precision + _GUARD):
            return Expr._from_mpmath(self.number(argument), precision)


class _RealFunction(_Primitive):
    """A smooth function from the reals to the reals."""

    def _eval_is_extended_real(self) -> bool | None:
        return True if self.args[0].is_extended_real else None

    def _eval_is_finite(self) -> bool | None:
        return True if self.args[0].is_finite else None


class _PositiveFunction(_RealFunction):
    """One whose values are positive."""

    def _eval_is_positive(self) -> bool | None:
        return True if self.args[0].is_real else None


class sigmoid(_PositiveFunction):
    """The logistic function 1 / (1 + exp(-x))."""

    at_zero = Rational(1, 2)

    @staticmethod
    def number(x: Any) -> Any:
        return 1 / (1 + mpmath.exp(-x))

    def fdiff(self, argindex: int = 1) -> Expr:
        """σ' = σ(x) σ(−x): unlike σ (1 − σ) it keeps its relative precision for large x."""
        return sigmoid(self.args[0]) * sigmoid(-self.args[0])


class softplus(_PositiveFunction):
    """log(1 + exp(x))."""

    at_zero = sympy.log(2)

    @staticmethod
    def number(x: Any) -> Any:
        return max(x, mpmath.mpf(0)) + mpmath.log1p(mpmath.exp(-abs(x)))

    def fdiff(self, argindex: int = 1) -> Expr:
        """Softplus' = σ."""
        return sigmoid(self.args[0])


class expm1(_RealFunction):
    """exp(x) − 1 without cancellation near 0."""

    at_zero = S.Zero
    number = staticmethod(mpmath.expm1)

    def fdiff(self, argindex: int = 1) -> Expr:
        """expm1' = exp."""
        return sympy.exp(self.args[0])


class log1p(_Primitive):
    """log(1 + x) without cancellation near 0."""

    at_zero = S.Zero
    number = staticmethod(mpmath.log1p)

    def fdiff(self, argindex: int = 1) -> Expr:
        """log1p' = 1 / (1 + x)."""
        return 1 / (1 + self.args[0])

    def _eval_is_positive(self) -> bool | None:
        return True if self.args[0].is_positive else None


class erfc(_PositiveFunction):
    """1 − erf(x) without cancellation.

    SymPy's own ``erfc`` rewrites ``erfc(-x)`` to ``2 - erfc(x)``, the cancellation this one avoids.
    """

    at_zero = S.One
    number = staticmethod(mpmath.erfc)

    def fdiff(self, argindex: int = 1) -> Expr:
        """erfc' = −2/√π exp(−x²)."""
        return -2 * sympy.exp(-(self.args[0] ** 2)) / sympy.sqrt(sympy.pi)


class absolute(_RealFunction):
    """|x| with derivative ``signum(x)``."""

    @staticmethod
    def number(x: Any) -> Any:
        return abs(x)

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        if x.is_nonnegative:
            return x
        if x.is_nonpositive:
            return -x
        return absolute(-x) if x.could_extract_minus_sign() else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """|x|' = signum(x)."""
        return signum(self.args[0])

    def _eval_is_nonnegative(self) -> bool | None:
        return True if self.args[0].is_real else None


class signum(_RealFunction):
    """The sign of x: −1, 0 or 1; its derivative is taken to be 0 everywhere."""

    number = staticmethod(mpmath.sign)

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        if x.is_positive:
            return S.One
        if x.is_negative:
            return S.NegativeOne
        if x.is_zero:
            return S.Zero
        return -signum(-x) if x.could_extract_minus_sign() else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """Signum' = 0 by convention."""
        return S.Zero


class power_of_two(_PositiveFunction):
    """The largest power of two that is not above x, x ≥ 0; 1 at zero; its derivative is taken to be 0.

    Dividing by it is exact, so that it takes the scale out of numbers and puts it back without rounding.
    """

    def fdiff(self, argindex: int = 1) -> Expr:
        """0 by convention."""
        return S.Zero


class quotient(Function):  # type: ignore[misc]
    """x / y, divided where it is written: (x / y) / z is no x / (y z), whose denominator may overflow."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> Expr:
        """1/y and −x/y²."""
        x, y = self.args
        return 1 / y if argindex == 1 else -x / y**2

    def _eval_is_extended_real(self) -> bool | None:
        return True if all(argument.is_extended_real for argument in self.args) else None


class undefined(Function):  # type: ignore[misc]
    """Not a number, whatever its arguments are; nor is any derivative."""

    def fdiff(self, argindex: int = 1) -> Expr:
        """Not a number."""
        return self

    def _eval_is_extended_real(self) -> bool:
        return True
