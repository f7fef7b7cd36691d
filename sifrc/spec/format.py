"""Canonical text of an expression: parsing it gives the same tree back."""

from __future__ import annotations

from fractions import Fraction
from functools import singledispatch

from sifrc.spec.expression import Binary, Call, Compare, Expression, Name, Negative, Number

__all__ = ["format_expression"]

# How tightly each operator binds, as in Python: unary minus is looser than a power.
_SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(5)
_LEVELS = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "**": _POWER}


def format_expression(expression: Expression) -> str:
    """Return the canonical text of an expression.

    Example:
        >>> from sifrc.spec.parser import parse_expression
        >>> format_expression(parse_expression("where(x>0,x,-(0.10*x)**2)"))
        'where(x > 0, x, -(0.1*x)**2)'
    """
    return _text(expression)[0]


@singledispatch
def _text(expression: Expression) -> tuple[str, int]:
    """Text, and how tightly its outermost operator binds."""
    raise TypeError(f"no text rule for {type(expression).__name__}")


@_text.register
def _(expression: Number) -> tuple[str, int]:
    return _decimal(expression.value)


@_text.register
def _(expression: Name) -> tuple[str, int]:
    return expression.identifier, _ATOM


@_text.register
def _(expression: Negative) -> tuple[str, int]:
    return f"-{_wrapped(expression.operand, _SIGN)}", _SIGN


@_text.register
def _(expression: Binary) -> tuple[str, int]:
    level = _LEVELS[expression.operator]
    # Sums and products group to the left, powers to the right, where a sign needs no parentheses.
    if expression.operator == "**":
        return f"{_wrapped(expression.left, _ATOM)}**{_wrapped(expression.right, _SIGN)}", level
    operator = f" {expression.operator} " if level == _SUM else expression.operator
    return f"{_wrapped(expression.left, level)}{operator}{_wrapped(expression.right, level + 1)}", level


@_text.register
def _(expression: Compare) -> tuple[str, int]:
    left, right = format_expression(expression.left), format_expression(expression.right)
    return f"{left} {expression.operator} {right}", _SUM


@_text.register
def _(expression: Call) -> tuple[str, int]:
    arguments = ", ".join(format_expression(argument) for argument in expression.arguments)
    return f"{expression.function}({arguments})", _ATOM


def _wrapped(expression: Expression, level: int) -> str:
    text, own = _text(expression)
    return text if own >= level else f"({text})"


def _decimal(value: Fraction) -> tuple[str, int]:
    """Exact decimal text of a number that has one, else a quotient of two integers."""
    if value < 0:
        return f"-{_decimal(-value)[0]}", _SIGN
    numerator, denominator = value.numerator, value.denominator
    places = 0
    while denominator % 10 == 0:
        denominator, places = denominator // 10, places + 1
    for prime, partner in ((2, 5), (5, 2)):
        while denominator % prime == 0:
            denominator, numerator, places = denominator // prime, numerator * partner, places + 1
    if denominator != 1:
        return f"{value.numerator}/{value.denominator}", _PRODUCT
    digits = str(numerator)
    if places == 0:
        stripped = digits.rstrip("0")
        zeros = len(digits) - len(stripped)
        return (f"{stripped}e{zeros}" if zeros > 6 else digits), _ATOM
    if places - len(digits) > 4:
        return f"{digits}e-{places}", _ATOM
    padded = digits.rjust(places + 1, "0")
    return f"{padded[:-places]}.{padded[-places:]}", _ATOM
