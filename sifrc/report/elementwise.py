"""Functions of entries in mathematical notation."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import sympy

from sifrc.ir import Input, LogSoftmax, Map
from sifrc.report.layout import (
    ONE,
    Function,
    Layout,
    Named,
    Norm,
    Quotient,
    Scalar,
    Sum,
    coefficient_of,
    sum_of,
)
from sifrc.scalar import EXP, QUOTIENT, RECIPROCAL, SQRT, ScalarFunction

__all__ = ["elementwise", "is_function"]


def is_function(expr: Map, function: ScalarFunction) -> bool:
    """Whether a node is a function itself, and no derivative of it."""
    return expr.function == function and not any(expr.orders)


def elementwise(expr: Map, arguments: list[Layout], activations: Mapping[int, ScalarFunction]) -> Layout:
    """A function of entries: an activation by its name, the rest written out.

    Args:
        expr: the function.
        arguments: notation of what it is of.
        activations: k -> F_k, which prints by name on ``a[k]``.
    """
    operand = expr.operands[0][0] if expr.operands else None
    layer = operand.index if isinstance(operand, Input) and operand.family == "a" else None
    if layer is not None and activations.get(layer) == expr.function:
        return Function(layer, expr.orders[0], arguments[0])
    if is_function(expr, EXP) and isinstance(operand, LogSoftmax) and isinstance(arguments[0], Named):
        return Named("softmax", arguments[0].arguments)
    if is_function(expr, RECIPROCAL):
        number, below = coefficient_of(arguments[0])
        return sum_of(((1 / number, Quotient(ONE, below, entrywise=bool(expr.out))),))
    if is_function(expr, QUOTIENT):
        above, below = arguments
        return Quotient(above, below, entrywise=bool(expr.operands[1][1]))
    if is_function(expr, SQRT) and isinstance(arguments[0], Norm) and arguments[0].kind == "squared":
        return Norm(arguments[0].operand)
    body: sympy.Expr = expr.function.value_form(expr.orders)
    named = tuple(zip(expr.function.arguments, arguments, strict=True))
    if body.is_Mul and body.args[0] == -1:
        return Sum(((Fraction(-1), Scalar(-body, named)),))
    return Scalar(body, named)
