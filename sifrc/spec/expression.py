"""Syntax trees of user expressions (custom activations and losses).

A tree is neutral data: numbers, names, operators and calls whose names were checked against the
allow-list of :mod:`sifrc.spec.parser`. The scalar and model stages give it a meaning.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from sifrc.errors import Location

__all__ = [
    "ARITHMETIC",
    "COMPARISONS",
    "MAX_EXPONENT",
    "Binary",
    "Call",
    "Compare",
    "Expression",
    "Name",
    "Negative",
    "Number",
    "children",
    "with_children",
]

MAX_EXPONENT = 64
"""Largest exponent that is a number: of larger ones the exact power may not fit into memory."""

BinaryOperator: TypeAlias = Literal["+", "-", "*", "/", "**"]
CompareOperator: TypeAlias = Literal["<", "<=", ">", ">="]


@dataclass(frozen=True)
class Number:
    """A literal. Decimal literals are kept exactly: ``0.1`` is one tenth."""

    value: Fraction
    location: Location | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Name:
    """A variable (``x``; ``y`` and ``t`` in losses) or a declared parameter."""

    identifier: str
    location: Location | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Negative:
    """Unary minus."""

    operand: Expression
    location: Location | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Binary:
    """An arithmetic operator between two expressions."""

    operator: BinaryOperator
    left: Expression
    right: Expression
    location: Location | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Compare:
    """A comparison; accepted only as the first argument of ``where``."""

    operator: CompareOperator
    left: Expression
    right: Expression
    location: Location | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Call:
    """A call of an allow-listed function, e.g. ``where(x > 0, x, a*x)`` or ``softmax(y)``."""

    function: str
    arguments: tuple[Expression, ...]
    location: Location | None = field(default=None, compare=False, repr=False)


Expression: TypeAlias = Number | Name | Negative | Binary | Compare | Call

ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow}
)
COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
)
"""What the operators are on numbers of any kind, as Python has them."""


def children(expression: Expression) -> tuple[Expression, ...]:
    """Direct sub-expressions, in order."""
    match expression:
        case Negative(operand=operand):
            return (operand,)
        case Binary(left=left, right=right) | Compare(left=left, right=right):
            return (left, right)
        case Call(arguments=arguments):
            return arguments
        case _:
            return ()


def with_children(expression: Expression, change: Callable[[Expression], Expression]) -> Expression:
    """The same node over what becomes of its direct sub-expressions."""
    match expression:
        case Negative(operand=operand):
            return replace(expression, operand=change(operand))
        case Binary(left=left, right=right) | Compare(left=left, right=right):
            return replace(expression, left=change(left), right=change(right))
        case Call(arguments=arguments):
            return replace(expression, arguments=tuple(map(change, arguments)))
        case _:
            return expression
