"""Scalar primitives: functions with their own derivative and their own stable code.

SymPy's ``Abs``, ``sign``, ``Max``, ``Min`` and ``Heaviside`` differentiate into distributions
(``DiracDelta``). Here a kink has a convention instead, and no distribution can appear:

==================  ==============================================================================
``where(c, a, b)``  differentiated branch by branch: at the kink, the branch that ``c`` selects
``absolute(x)``     derivative ``signum(x)``, 0 at 0, as torch
``signum(x)``       derivative 0
``maximum``,        the branch that is taken; at a tie the number, if one operand is a number (so
``minimum``         that ``max(x, 0)`` is relu, with slope 0 at 0), otherwise the second operand.
                    torch splits the gradient of a tie in halves instead.
==================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mpmath
import sympy
from sympy import Abs, Expr, Function, Heaviside, Max, Min, Piecewise, Rational, S
from sympy import sign as sympy_sign
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean

from sifrc.errors import ModelError

_DIGITS = 50
_GUARD = 10
"""Further bits in which a constant is computed."""
_MOST_CASES = 64

__all__ = [
    "absolute",
    "comparison",
    "differentiate",
    "erfc",
    "expm1",
    "log1p",
    "maximum",
    "minimum",
    "normalize",
    "power_of_two",
    "quotient",
    "settled",
    "sigmoid",
    "signum",
    "softplus",
    "substituted",
    "undefined",
    "where",
]


class _Primitive(Function):  # type: ignore[misc]
    """A function of one argument, whose constants SymPy can compare by their digits."""

    nargs = 1

    @staticmethod
    def number(x: Any) -> Any:
        """The function at a number of mpmath, to the precision in force, without cancellation."""
        raise NotImplementedError

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


class sigmoid(_RealFunction):
    """The logistic function 1 / (1 + exp(-x))."""

    @staticmethod
    def number(x: Any) -> Any:
        return 1 / (1 + mpmath.exp(-x))

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        return Rational(1, 2) if x.is_zero else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """σ' = σ(x) σ(−x): unlike σ (1 − σ) it keeps its relative precision for large x."""
        return sigmoid(self.args[0]) * sigmoid(-self.args[0])

    def _eval_is_positive(self) -> bool | None:
        return True if self.args[0].is_real else None


class softplus(_RealFunction):
    """log(1 + exp(x))."""

    @staticmethod
    def number(x: Any) -> Any:
        return max(x, mpmath.mpf(0)) + mpmath.log1p(mpmath.exp(-abs(x)))

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        return sympy.log(2) if x.is_zero else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """Softplus' = σ."""
        return sigmoid(self.args[0])

    def _eval_is_positive(self) -> bool | None:
        return True if self.args[0].is_real else None


class expm1(_RealFunction):
    """exp(x) − 1 without cancellation near 0."""

    @staticmethod
    def number(x: Any) -> Any:
        return mpmath.expm1(x)

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        return S.Zero if x.is_zero else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """expm1' = exp."""
        return sympy.exp(self.args[0])


class log1p(_Primitive):
    """log(1 + x) without cancellation near 0."""

    @staticmethod
    def number(x: Any) -> Any:
        return mpmath.log1p(x)

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        return S.Zero if x.is_zero else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """log1p' = 1 / (1 + x)."""
        return 1 / (1 + self.args[0])

    def _eval_is_positive(self) -> bool | None:
        return True if self.args[0].is_positive else None


class erfc(_RealFunction):
    """1 − erf(x) without cancellation.

    SymPy's own ``erfc`` rewrites ``erfc(-x)`` to ``2 - erfc(x)``, the cancellation this one avoids.
    """

    @staticmethod
    def number(x: Any) -> Any:
        return mpmath.erfc(x)

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        return S.One if x.is_zero else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """erfc' = −2/√π exp(−x²)."""
        return -2 * sympy.exp(-(self.args[0] ** 2)) / sympy.sqrt(sympy.pi)

    def _eval_is_positive(self) -> bool | None:
        return True if self.args[0].is_real else None


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

    @staticmethod
    def number(x: Any) -> Any:
        return mpmath.sign(x)

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


class power_of_two(_RealFunction):
    """The largest power of two that is not above x, x ≥ 0; 1 at zero; its derivative is taken to be 0.

    Dividing by it is exact, so that it takes the scale out of numbers and puts it back without rounding.
    """

    def fdiff(self, argindex: int = 1) -> Expr:
        """0 by convention."""
        return S.Zero

    def _eval_is_positive(self) -> bool | None:
        return True if self.args[0].is_real else None


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


def settled(condition: Boolean) -> Boolean:
    """A condition that SymPy leaves as it is, whatever its symbols are called later.

    A comparison of numbers becomes its truth. SymPy's form of a comparison with sums or signs on both sides
    is not always one that it keeps: such a one becomes a comparison of the difference with a number.

    Example:
        >>> x, y = sympy.symbols("x y", real=True)
        >>> settled(y - x > 2 * (x - y)), settled(sympy.sqrt(8) <= 2 * sympy.sqrt(2)), settled(x < y)
        (-3*x + 3*y > 0, True, x < y)
    """
    if not isinstance(condition, Relational):
        return condition
    left, right = condition.args
    if not condition.free_symbols:
        return sympy.true if _holds(condition) else sympy.false
    if right.is_number or left.is_number or (_keeps_its_side(left) and _keeps_its_side(right)):
        return condition
    return comparison(condition.func, left - right, S.Zero)


def _keeps_its_side(side: Expr) -> bool:
    """Whether no sign and no number can be moved to the other side of a comparison."""
    return isinstance(side, (sympy.Symbol, Piecewise, sympy.exp, softplus, sigmoid, absolute, Abs))


def _holds(condition: Relational) -> bool:
    """The truth of a comparison of numbers; equal to 50 digits is equal.

    Raises:
        ModelError: one of them is not a real number.
    """
    left, right = (side.evalf(_DIGITS) for side in condition.args)
    if not (left.is_real and right.is_real):
        raise _no_real_number()
    difference = (condition.lhs - condition.rhs).evalf(_DIGITS, chop=True)
    size = max(abs(left), abs(right))
    if abs(difference) <= size * sympy.Float(10, _DIGITS) ** (2 - _DIGITS):
        difference = S.Zero
    return bool(condition.func(difference, S.Zero))


def _no_real_number() -> ModelError:
    return ModelError(
        "a comparison of something that is not a finite real number",
        hint="a branch divides by zero, or takes a root or a logarithm of a negative number",
    )


def where(condition: Boolean, chosen: Expr, otherwise: Expr) -> Expr:
    """The value of ``chosen`` where ``condition`` holds, else of ``otherwise``.

    Example:
        >>> x = sympy.Symbol("x", real=True)
        >>> differentiate(where(x > 0, x, x / 10), x)
        Piecewise((1, x > 0), (1/10, True))
    """
    condition = settled(condition)
    if condition in (sympy.true, sympy.false):
        return chosen if condition == sympy.true else otherwise
    inner = condition.atoms(Piecewise)
    if not inner:
        return Piecewise(
            (_decided(chosen, condition, True), condition), (_decided(otherwise, condition, False), True)
        )
    # A choice inside the condition is decided first, the outermost one: conditions stay plain comparisons.
    choice = max(inner, key=lambda node: (node.count_ops(), str(node)))
    pairs: list[tuple[Expr, Boolean]] = []
    for branch, case in choice.args:
        table = {choice: branch}
        test = comparison(condition.func, *(substituted(side, table) for side in condition.args))
        parts = [test, substituted(chosen, table), substituted(otherwise, table)]
        for _, before in pairs:
            parts = [_decided(part, before, False) for part in parts]
        pairs.append((where(*(_decided(part, case, True) for part in parts)), case))
        if sum(_cases(value) for value, _ in pairs) > _MOST_CASES:
            raise ModelError(
                "too many cases: conditions that depend on other conditions",
                hint=f"at most {_MOST_CASES} branches; use fewer where, max and min within each other",
            )
    return Piecewise(*pairs)


def comparison(relation: type[Relational], left: Expr, right: Expr) -> Boolean:
    """A comparison of two expressions.

    Raises:
        ModelError: one of them is not a real number.
    """
    try:
        return relation(left, right)
    except TypeError:
        raise _no_real_number() from None


def _cases(expression: Expr) -> int:
    """Number of branches, those of branches of a choice counted each."""
    if not expression.has(Piecewise):
        return 1
    if isinstance(expression, Piecewise):
        return sum(_cases(branch) for branch, _ in expression.args)
    return max(1, sum(_cases(argument) for argument in expression.args if argument.has(Piecewise)))


def _decided(expression: Any, condition: Boolean, holds: bool) -> Any:
    """An expression, or a comparison, within which a condition is known to hold or not to hold."""
    if not isinstance(expression, sympy.Basic) or not expression.has(Piecewise):
        return expression
    if not isinstance(expression, Piecewise):
        return expression.func(*(_decided(argument, condition, holds) for argument in expression.args))
    pairs = []
    for branch, case in expression.args:
        if case == condition and not holds:
            continue
        always = case == condition
        pairs.append((_decided(branch, condition, holds), sympy.true if always else case))
        if always:
            break
    return Piecewise(*pairs)


def maximum(a: Expr, b: Expr) -> Expr:
    """The larger of two; what a network computes comes out as NaN where it is NaN, beside what is given.

    Example:
        >>> y, t = sympy.symbols("y t", real=True)
        >>> maximum(y, t), maximum(t, y)
        (Piecewise((t, t >= y), (y, True)), Piecewise((t, t > y), (y, True)))
    """
    return _extreme(sympy.LessThan, sympy.StrictGreaterThan, a, b)


def minimum(a: Expr, b: Expr) -> Expr:
    """The smaller of two, as :func:`maximum`."""
    return _extreme(sympy.GreaterThan, sympy.StrictLessThan, a, b)


def _extreme(second: type[Relational], first: type[Relational], a: Expr, b: Expr) -> Expr:
    """One of two by how ``a`` compares with ``b``; a tie goes to ``b``, which is a number if one of them is.

    A comparison with NaN does not hold: the branch without a condition is the one that may be NaN.
    """
    if a.is_number:
        a, b = b, a
    if _is_computed(b) and not _is_computed(a):
        return where(comparison(first, a, b), a, b)
    return where(comparison(second, a, b), b, a)


def _is_computed(expression: Expr) -> bool:
    """Whether it is NaN where what a network computes is: x, y, or a part of a loss with a name as ``_0``.

    Targets t, parts of a loss that are made of them, as ``_t0``, and parameters are given. Of branches the
    last one counts: no comparison with NaN holds.
    """
    while expression.has(Piecewise):
        expression = expression.replace(Piecewise, lambda *pairs: pairs[-1][0])
    names = (symbol.name for symbol in expression.free_symbols)
    return any(name in ("x", "y") or (name[:1] == "_" and name[:2] != "_t") for name in names)


def substituted(expression: Expr, table: Mapping[Expr, Expr]) -> Expr:
    """The expression with all keys replaced at once, and conditions that SymPy leaves as they then are.

    Example:
        >>> x, y = sympy.symbols("x y", real=True)
        >>> substituted(where(x > y, x, y), {x: 2 * y - 3})
        Piecewise((2*y - 3, y > 3), (y, True))
    """
    if expression in table:
        return table[expression]
    if not expression.has(*table):
        return expression
    if not expression.has(Piecewise):
        return expression.xreplace(table)
    if not isinstance(expression, Piecewise):
        return expression.func(*(substituted(argument, table) for argument in expression.args))
    result: Expr | None = None
    for branch, condition in reversed(expression.args):
        chosen = substituted(branch, table)
        if result is None and condition == sympy.true:
            result = chosen
        elif result is None or not isinstance(condition, Relational):
            return expression.xreplace(table)
        else:
            sides = (substituted(side, table) for side in condition.args)
            result = where(comparison(condition.func, *sides), chosen, result)
    assert result is not None
    return result


def normalize(expression: Expr) -> Expr:
    """Replace the SymPy functions that would differentiate into distributions.

    Example:
        >>> x = sympy.Symbol("x", real=True)
        >>> normalize(sympy.sqrt(x**2))
        absolute(x)
    """

    def fold(rule: Any) -> Any:
        def apply(*arguments: Expr) -> Expr:
            result = arguments[0]
            for argument in arguments[1:]:
                result = rule(result, argument)
            return result

        return apply

    if not expression.has(Abs, sympy_sign, Max, Min, Heaviside):
        return expression
    expression = expression.replace(Abs, absolute).replace(sympy_sign, signum)
    expression = expression.replace(Max, fold(maximum)).replace(Min, fold(minimum))
    return expression.replace(Heaviside, lambda x, *_: where(x > 0, S.One, S.Zero))


def differentiate(expression: Expr, symbol: sympy.Symbol) -> Expr:
    """Partial derivative under the conventions of this module, not yet in stable form."""
    return normalize(normalize(expression).diff(symbol))
