"""Checks of a parsed expression: which names it uses, and whether a loss is one number.

Ranks are ``number`` and ``vector``; elementwise operations broadcast numbers over vectors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import singledispatch
from typing import Literal, TypeAlias

from sifrc.errors import SpecError
from sifrc.spec.constants import constant_value
from sifrc.spec.expression import Binary, Call, Compare, Expression, Name, Negative, Number, children
from sifrc.spec.functions import LOSS_FUNCTIONS
from sifrc.spec.parser import MAX_MAGNITUDE

__all__ = [
    "Rank",
    "check_constants",
    "check_dependence",
    "check_loss_rank",
    "entrywise_reduction",
    "rank_of",
    "used_names",
]

Rank: TypeAlias = Literal["number", "vector"]


def used_names(expression: Expression, *, conditions: bool = True) -> frozenset[str]:
    """Names that occur in an expression; without those inside conditions on request.

    Example:
        >>> from sifrc.spec.parser import parse_expression
        >>> sorted(used_names(parse_expression("where(x > 0, a, 0)", parameters=["a"])))
        ['a', 'x']
    """
    if isinstance(expression, Name):
        return frozenset({expression.identifier})
    if isinstance(expression, Compare) and not conditions:
        return frozenset()
    return frozenset().union(*(used_names(child, conditions=conditions) for child in children(expression)))


def check_dependence(expression: Expression, variable: str, role: str) -> None:
    """Require that the value depends on ``variable`` other than by a jump.

    Args:
        expression: a parsed activation or loss.
        variable: ``x`` or ``y``.
        role: what the expression is, for messages.

    Raises:
        SpecError: the variable does not occur, or occurs in conditions only, so that the
            derivative is zero wherever it exists.

    Example:
        >>> from sifrc.spec.parser import parse_expression
        >>> check_dependence(parse_expression("x*x"), "x", "an activation expression")
    """
    if variable in used_names(expression, conditions=False):
        return
    if variable in used_names(expression):
        raise SpecError(
            f"non-differentiable expression: {role} that is constant on both sides of its jumps",
            location=expression.location,
            hint=f"'{variable}' must occur outside conditions, e.g. where({variable} > 0, {variable}, 0)",
        )
    raise SpecError(
        f"{role} must depend on '{variable}', this one is constant",
        location=expression.location,
        hint=f"use '{variable}' in the formula",
    )


def check_constants(expression: Expression, parameters: Mapping[str, float]) -> None:
    """Require what is constant at the values of the parameters to be a finite real number.

    Args:
        expression: a parsed expression.
        parameters: values by name.

    Raises:
        SpecError: a constant part has no value, or one beyond the limit; its location is that part.

    Example:
        >>> from sifrc.spec.parser import parse_expression
        >>> check_constants(parse_expression("x/log(s)", parameters=["s"]), {"s": 2.0})
    """
    for child in children(expression):
        check_constants(child, parameters)
    if isinstance(expression, Name | Number | Compare):
        return
    try:
        value = constant_value(expression, parameters)
    except OverflowError:
        value = math.inf
    except ArithmeticError:
        raise SpecError(
            "this constant has no value",
            location=expression.location,
            hint="no division by zero, no root or logarithm of a negative number",
        ) from None
    if value is not None and abs(value) > MAX_MAGNITUDE:
        limit = f"{MAX_MAGNITUDE:g}".replace("+", "")
        raise SpecError(
            "this constant is too large", location=expression.location, hint=f"at most {limit} in magnitude"
        )


@singledispatch
def rank_of(expression: Expression, vectors: Collection[str]) -> Rank:
    """Infer whether an expression is a number or a vector.

    Args:
        expression: a parsed expression.
        vectors: names that are vectors; every other name is a number.

    Raises:
        SpecError: a function of vectors is given a number.
        TypeError: an unknown node.

    Example:
        >>> from sifrc.spec.parser import parse_expression
        >>> rank_of(parse_expression("dot(y, y)", variables=["y"]), ["y"])
        'number'
    """
    raise TypeError(f"no rank rule for {type(expression).__name__}")


@rank_of.register
def _(expression: Number, vectors: Collection[str]) -> Rank:
    return "number"


@rank_of.register
def _(expression: Name, vectors: Collection[str]) -> Rank:
    return "vector" if expression.identifier in vectors else "number"


@rank_of.register
def _broadcast(expression: Negative | Binary | Compare | Call, vectors: Collection[str]) -> Rank:
    # Every child is visited, also after the first vector, so that errors inside are found.
    ranks = [rank_of(child, vectors) for child in children(expression)]
    return "vector" if "vector" in ranks else "number"


@rank_of.register
def _(expression: Call, vectors: Collection[str]) -> Rank:
    function = LOSS_FUNCTIONS[expression.function]
    if function.kind in ("elementwise", "condition"):
        return _broadcast(expression, vectors)
    for argument in expression.arguments:
        if rank_of(argument, vectors) == "number":
            raise SpecError(
                f"'{function.name}' takes a vector, this is a number",
                location=argument.location,
                hint=f"vectors here: {', '.join(vectors)}, and what is computed from them entry by entry",
            )
    return "number" if function.kind == "reduction" else "vector"


def check_loss_rank(expression: Expression) -> None:
    """Require a loss over the vectors ``y`` and ``t`` to be one number.

    Raises:
        SpecError: it is a vector, or gives a number to a function of vectors.

    Example:
        >>> from sifrc.spec.parser import parse_expression
        >>> check_loss_rank(parse_expression("sum((y - t)**2)", variables=["y", "t"]))
    """
    if rank_of(expression, ("y", "t")) == "vector":
        raise SpecError(
            "a loss must be one number, this is a vector",
            location=expression.location,
            label="did you mean sum(…)?",
            hint="sum(v), mean(v) and dot(a, b) make one number of vectors",
        )


def entrywise_reduction(expression: Expression) -> Literal["mean", "sum"] | None:
    """What a loss makes of a function of each entry; None where it is no such.

    Example:
        >>> from sifrc.spec.parser import parse_expression
        >>> entrywise_reduction(parse_expression("sum((y - t)**2)/2", variables=["y", "t"]))
        'sum'
        >>> entrywise_reduction(parse_expression("dot(t, log_softmax(y))", variables=["y", "t"]))
    """
    vectors = ("y", "t")
    match expression:
        case Negative(operand=operand):
            return entrywise_reduction(operand)
        case Binary(operator="*" | "/", left=left, right=right) if not used_names(right) & {*vectors}:
            return entrywise_reduction(left)
        case Binary(operator="*", left=left, right=right) if not used_names(left) & {*vectors}:
            return entrywise_reduction(right)
        case Call(function="mean" | "sum" as found, arguments=(argument,)) if _is_entrywise(argument):
            return found
    return None


def _is_entrywise(expression: Expression) -> bool:
    """Whether no function of vectors is in it."""
    own = isinstance(expression, Call) and LOSS_FUNCTIONS[expression.function].kind in ("reduction", "vector")
    return not own and all(map(_is_entrywise, children(expression)))
