"""Scalar functions of one or more real arguments, with derivatives of any order in stable form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from types import MappingProxyType

import sympy
from sympy import Expr, Piecewise, Rational, Symbol
from sympy.core.relational import Relational

from sifrc.errors import ModelError
from sifrc.scalar.branches import differentiate, maximum, normalize, substituted
from sifrc.scalar.primitives import absolute, power_of_two, quotient, signum
from sifrc.scalar.stable import stabilize

__all__ = [
    "ABS",
    "EXP",
    "IDENTITY",
    "LOG",
    "POSITIVE_PART",
    "POWER_OF_TWO",
    "QUOTIENT",
    "RECIPROCAL",
    "SIGN",
    "SQRT",
    "SQUARE",
    "ScalarFunction",
    "argument_symbol",
    "check_real",
    "elementary",
    "exact",
    "parameter_symbol",
    "power",
]

_NOT_REAL = (sympy.nan, sympy.zoo, sympy.oo, -sympy.oo, sympy.I)
_MOST_BITS = 14_000
"""Of the numerator or denominator of a constant: 4,200 digits."""


def argument_symbol(name: str) -> Symbol:
    """The real symbol of an argument."""
    return Symbol(name, real=True)


def parameter_symbol(name: str, value: float) -> Symbol:
    """The real symbol of a parameter; it carries the sign of its value, which rewrites rely on."""
    if value > 0:
        return Symbol(name, positive=True)
    return Symbol(name, negative=True) if value < 0 else Symbol(name, real=True)


def exact(value: float | Fraction) -> Rational:
    """The rational a decimal literal stands for.

    Raises:
        ModelError: the value is infinite or NaN.

    Example:
        >>> exact(0.1)
        1/10
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ModelError(f"parameter value {value} is not a finite number", hint="give a finite number")
    fraction = value if isinstance(value, Fraction) else Fraction(repr(float(value)))
    return Rational(fraction.numerator, fraction.denominator)


def check_real(expression: Expr) -> Expr:
    """The expression, if none of its constants is infinite, undefined or complex.

    Raises:
        ModelError: otherwise, e.g. for ``log(0)`` or ``sqrt(-1)``; or one has thousands of digits.
    """
    for node in sympy.preorder_traversal(expression):
        if isinstance(node, sympy.Rational) and max(node.p.bit_length(), node.q.bit_length()) > _MOST_BITS:
            raise ModelError(
                "the expression contains a constant with too many digits",
                hint="powers of powers, written out, are that long",
            )
        if node in _NOT_REAL or (
            isinstance(node, Expr) and node.is_number and node.is_extended_real is False
        ):
            raise ModelError(
                "the expression contains a constant that is not a finite real number",
                hint="constants must be finite real numbers: no division by 0, log(0) or sqrt(-1)",
            )
    return expression


@dataclass(frozen=True)
class ScalarFunction:
    """A function of real arguments, as a SymPy expression.

    Args:
        name: for printing: ``tanh``, ``custom``, …
        arguments: names of the arguments, in order.
        expression: over the symbols of the arguments (:func:`argument_symbol`) and of the parameters
            (:func:`parameter_symbol`), as written, not yet in stable form.
        parameters: names and values.

    Example:
        >>> x = argument_symbol("x")
        >>> f = ScalarFunction("silu", ("x",), x / (1 + sympy.exp(-x)))
        >>> f.derivative((0,)), f.derivative((1,))
        (x*sigmoid(x), x*sigmoid(-x)*sigmoid(x) + sigmoid(x))
    """

    name: str
    arguments: tuple[str, ...]
    expression: Expr
    parameters: tuple[tuple[str, float], ...] = ()

    @property
    def argument_symbols(self) -> tuple[Symbol, ...]:
        """Symbols of the arguments, in order."""
        return tuple(argument_symbol(name) for name in self.arguments)

    @property
    def parameter_symbols(self) -> tuple[Symbol, ...]:
        """Symbols of the parameters, in order."""
        return tuple(parameter_symbol(name, value) for name, value in self.parameters)

    def derivative(self, orders: tuple[int, ...]) -> Expr:
        """Partial derivative in stable form, parameters symbolic.

        Args:
            orders: how often to differentiate by each argument; all zero is the function itself.

        Raises:
            ValueError: ``orders`` does not fit the arguments.
        """
        if len(orders) != len(self.arguments) or any(order < 0 for order in orders):
            raise ValueError(f"orders of {self.name}{self.arguments}: expected one >= 0 each, got {orders}")
        return _derivative(self, orders)

    def value_form(self, orders: tuple[int, ...]) -> Expr:
        """:meth:`derivative` with the parameter values put in as exact rationals.

        Raises:
            ModelError: the values make the expression undefined everywhere, e.g. divide by zero.
        """
        return self.bound().derivative(orders)

    def bound(self) -> ScalarFunction:
        """The function with its parameter values put in; it has no parameters."""
        return _bound(self) if self.parameters else self


@cache
def _bound(function: ScalarFunction) -> ScalarFunction:
    values = {
        symbol: exact(value)
        for symbol, (_, value) in zip(function.parameter_symbols, function.parameters, strict=True)
    }
    kept = _with_numbers_last(function.expression, function.argument_symbols, values)
    expression = check_real(normalize(substituted(kept, values)))
    return ScalarFunction(function.name, function.arguments, expression)


def _with_numbers_last(expression: Expr, arguments: tuple[Symbol, ...], values: dict[Symbol, Expr]) -> Expr:
    """Choices whose second branch loses its arguments by the values, written the other way round.

    What is not a number takes the last branch: ``where(x > 0, x, slope*x)`` is none for a slope of 0 too.
    """

    def loses(branch: Expr) -> bool:
        return bool(branch.has(*arguments)) and not substituted(branch, values).has(*arguments)

    def turned(node: Expr) -> bool:
        if not isinstance(node, Piecewise) or len(node.args) != 2:
            return False
        (chosen, condition), (otherwise, _) = node.args
        return isinstance(condition, Relational) and loses(otherwise) and not loses(chosen)

    def turn(node: Expr) -> Expr:
        (chosen, condition), (otherwise, _) = node.args
        return Piecewise((otherwise, condition.negated), (chosen, True))

    return expression.replace(turned, turn)


@cache
def _derivative(function: ScalarFunction, orders: tuple[int, ...]) -> Expr:
    for i, order in enumerate(orders):
        if order:
            lower = function.derivative((*orders[:i], order - 1, *orders[i + 1 :]))
            return check_real(stabilize(differentiate(lower, function.argument_symbols[i])))
    return check_real(stabilize(normalize(function.expression)))


_X = argument_symbol("x")

IDENTITY = ScalarFunction("identity", ("x",), _X)
RECIPROCAL = ScalarFunction("reciprocal", ("x",), 1 / _X)
EXP = ScalarFunction("exp", ("x",), sympy.exp(_X))
LOG = ScalarFunction("log", ("x",), sympy.log(_X))
SQRT = ScalarFunction("sqrt", ("x",), sympy.sqrt(_X))
SQUARE = ScalarFunction("square", ("x",), _X**2)
ABS = ScalarFunction("abs", ("x",), absolute(_X))
SIGN = ScalarFunction("sign", ("x",), signum(_X))
POSITIVE_PART = ScalarFunction("positive_part", ("x",), maximum(_X, sympy.S.Zero))
POWER_OF_TWO = ScalarFunction("power_of_two", ("x",), power_of_two(_X))
QUOTIENT = ScalarFunction("quotient", ("x", "y"), quotient(_X, argument_symbol("y")))

_ELEMENTARY = MappingProxyType({f.name: f for f in (IDENTITY, RECIPROCAL, EXP, LOG, SQRT, SQUARE, ABS, SIGN)})


def elementary(name: str) -> ScalarFunction:
    """One of the functions the expression language itself needs.

    Raises:
        KeyError: there is no such function.

    Example:
        >>> elementary("reciprocal").derivative((1,))
        -1/x**2
    """
    return _ELEMENTARY[name]


def power(exponent: float | Fraction) -> ScalarFunction:
    """x to a fixed exponent.

    Example:
        >>> power(3).derivative((1,))
        3*x**2
    """
    value = exact(exponent)
    return ScalarFunction(f"power({value})", ("x",), _X**value)
