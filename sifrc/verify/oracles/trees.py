"""Values of expression trees of a spec over any kind of number: torch tensors, nested dual numbers.

The oracles read activations and losses from the spec's syntax trees through this visitor. It shares
nothing with the derivation (no expression graph, no SymPy), so that agreement means something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any, Protocol

from sifrc.errors import VerificationError
from sifrc.spec.expression import (
    ARITHMETIC,
    COMPARISONS,
    Binary,
    Call,
    Compare,
    Expression,
    Name,
    Negative,
    Number,
)

__all__ = ["Operations", "evaluate_tree"]

_SELU_ALPHA = "1.6732632423543772848170429916717"
_SELU_SCALE = "1.0507009873554804934193349852946"


class Operations(Protocol):
    """Arithmetic on one kind of number and on vectors of it; numbers also have ``+ - * / **``."""

    functions: Mapping[str, Callable[[Any], Any]]
    """The primitive elementwise functions: exp, log, tanh, …"""
    size: int
    """Entries of the vectors."""

    def number(self, numerator: int, denominator: int) -> Any:
        """A rational constant."""

    def parameter(self, value: float) -> Any:
        """A parameter: the decimal number that was written."""

    def power(self, base: Any, exponent: Any) -> Any:
        """``base`` to an exponent, not a number where that is not real."""

    def choose(self, condition: Any, chosen: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        """``where``, entry by entry."""

    def total(self, vector: Any) -> Any:
        """Sum of the entries of a vector, or of ``size`` equal numbers."""

    def log_sum_exp(self, vector: Any) -> Any:
        """log Σ exp, without overflow."""


Scope = Mapping[str, Any]


@singledispatch
def evaluate_tree(tree: Expression, scope: Scope, operations: Operations) -> Any:
    """The value of an expression.

    Args:
        tree: syntax tree of an activation (over ``x``) or of a loss (over ``y`` and ``t``).
        scope: value of every name that occurs.
        operations: the arithmetic.

    Raises:
        VerificationError: a name or a function is not known.
    """
    raise VerificationError(f"no value for a node {type(tree).__name__}")


@evaluate_tree.register
def _(tree: Number, scope: Scope, operations: Operations) -> Any:
    return operations.number(tree.value.numerator, tree.value.denominator)


@evaluate_tree.register
def _(tree: Name, scope: Scope, operations: Operations) -> Any:
    if tree.identifier not in scope:
        raise VerificationError(f"no value for '{tree.identifier}'", location=tree.location)
    return scope[tree.identifier]


@evaluate_tree.register
def _(tree: Negative, scope: Scope, operations: Operations) -> Any:
    return -evaluate_tree(tree.operand, scope, operations)


@evaluate_tree.register
def _(tree: Binary, scope: Scope, operations: Operations) -> Any:
    left = evaluate_tree(tree.left, scope, operations)
    if tree.operator == "**" and isinstance(tree.right, Number) and tree.right.value.denominator == 1:
        return left ** int(tree.right.value)  # exact, also for a negative base
    right = evaluate_tree(tree.right, scope, operations)
    return operations.power(left, right) if tree.operator == "**" else ARITHMETIC[tree.operator](left, right)


@evaluate_tree.register
def _(tree: Compare, scope: Scope, operations: Operations) -> Any:
    left, right = (evaluate_tree(side, scope, operations) for side in (tree.left, tree.right))
    return COMPARISONS[tree.operator](left, right)


@evaluate_tree.register
def _(tree: Call, scope: Scope, operations: Operations) -> Any:
    if tree.function == "where":
        condition, chosen, otherwise = tree.arguments
        return operations.choose(
            evaluate_tree(condition, scope, operations),
            lambda: evaluate_tree(chosen, scope, operations),
            lambda: evaluate_tree(otherwise, scope, operations),
        )
    arguments = [evaluate_tree(argument, scope, operations) for argument in tree.arguments]
    if tree.function in ("max", "min"):
        return _extreme(tree, arguments, operations)
    primitive = operations.functions.get(tree.function)
    if primitive is not None:
        return primitive(*arguments)
    return _composite(tree, arguments, operations)


def _extreme(tree: Call, arguments: list[Any], operations: Operations) -> Any:
    """Maximum or minimum; at a tie the number if one is a literal, otherwise the second.

    What is not a number comes out of it as such.
    """
    a, b = arguments
    if isinstance(tree.arguments[0], Number):
        a, b = b, a
    larger = a > b if tree.function == "max" else a < b
    return operations.choose(a <= a, lambda: operations.choose(larger, lambda: a, lambda: b), lambda: a)


def _composite(tree: Call, arguments: list[Any], operations: Operations) -> Any:
    """Functions made of others, as their textbooks define them."""
    functions = operations.functions
    x = arguments[0]
    zero = operations.number(0, 1)
    match tree.function:
        case "relu":
            return operations.choose(x > 0, lambda: x, lambda: zero * x)
        case "leaky_relu":
            return operations.choose(x > 0, lambda: x, lambda: arguments[1] * x)
        case "elu":
            return operations.choose(x > 0, lambda: x, lambda: arguments[1] * functions["expm1"](x))
        case "selu":
            scale, alpha = (_decimal(text, operations) for text in (_SELU_SCALE, _SELU_ALPHA))
            return scale * operations.choose(x > 0, lambda: x, lambda: alpha * functions["expm1"](x))
        case "square":
            return x * x
        case "gelu":
            root = functions["sqrt"](operations.number(2, 1))
            return x * (1 + functions["erf"](x / root)) / 2
        case "silu":
            return x * functions["sigmoid"](x)
        case "mish":
            return x * functions["tanh"](functions["softplus"](x))
        case "sum":
            return operations.total(x)
        case "mean":
            return operations.total(x) / operations.size
        case "dot":
            return operations.total(x * arguments[1])
        case "logsumexp":
            return operations.log_sum_exp(x)
        case "log_softmax":
            return x - operations.log_sum_exp(x)
        case "softmax":
            return functions["exp"](x - operations.log_sum_exp(x))
    raise VerificationError(f"unknown function '{tree.function}'", location=tree.location)


def _decimal(text: str, operations: Operations) -> Any:
    whole, digits = text.split(".")
    return operations.number(int(whole + digits), 10 ** len(digits))
