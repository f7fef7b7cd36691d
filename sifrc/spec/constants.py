"""Values of constant sub-expressions, for the limits of the parser."""

from __future__ import annotations

from sifrc.spec.expression import Binary, Expression, Negative, Number

__all__ = ["constant_value"]


def constant_value(expression: Expression) -> float | None:
    """Value of an expression of numbers and operators only, None if there is anything else.

    Raises:
        ArithmeticError: it has no finite real value.

    Example:
        >>> from fractions import Fraction
        >>> constant_value(Binary("/", Number(Fraction(1)), Number(Fraction(4))))
        0.25
    """
    match expression:
        case Number(value=value):
            return float(value)
        case Negative(operand=operand):
            inner = constant_value(operand)
            return None if inner is None else -inner
        case Binary(operator=operator, left=left, right=right):
            a, b = constant_value(left), constant_value(right)
            if a is None or b is None:
                return None
            if operator == "**":
                power = a**b
                if isinstance(power, complex):
                    raise ArithmeticError("root of a negative number")
                return float(power)
            if operator == "/":
                return a / b
            return a + b if operator == "+" else a - b if operator == "-" else a * b
        case _:
            return None
