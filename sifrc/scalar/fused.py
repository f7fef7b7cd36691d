"""Scalar expressions in terms of functions that Torch computes in one pass.

They are found by what they are, not by what a spec calls them: max(x, 0) is ``torch.relu`` wherever it is.
"""

from __future__ import annotations

from collections.abc import Collection

import sympy
from sympy import Expr, Mul, Piecewise, Pow, Symbol

__all__ = ["fused"]


class _Fused(sympy.Function):  # type: ignore[misc]
    """A function that is left as it is."""

    is_real = True


class relu(_Fused):
    """max(x, 0)."""


class leaky_relu(_Fused):
    """x where it is positive, else a number times x."""


class silu(_Fused):
    """x/(1 + exp(−x))."""


class threshold_backward(_Fused):
    """The first argument where the second one is larger than the third, else 0."""


class leaky_relu_backward(_Fused):
    """The first argument where the second one is positive, else a number times it."""


class rsqrt(_Fused):
    """1/√x."""


def fused(expression: Expr, tensors: Collection[str] = ()) -> Expr:
    """The expression with such functions in it, and choices between numbers taken around what they multiply.

    Args:
        expression: what is printed.
        tensors: names of its symbols that are tensors: what has none of them is a number, which choices
            between numbers stay apart from.

    Example:
        >>> x, y = sympy.symbols("x y", real=True)
        >>> fused(2 * Piecewise((0, x <= 0), (x, True)))
        2*relu(x)
        >>> fused(y * Piecewise((0, x <= 0), (1, True)), ["x", "y"])
        threshold_backward(y, x, 0)
    """
    if not expression.has(Piecewise, Pow, sympy.Function):
        return expression
    return _rewritten(expression, frozenset(tensors))


def _rewritten(node: Expr, tensors: frozenset[str]) -> Expr:
    if not node.args or node.is_number:
        return node
    node = node.func(*(_rewritten(argument, tensors) for argument in node.args))
    if isinstance(node, Piecewise):
        return _rectified(node)
    if isinstance(node, Pow) and node.exp == -sympy.S.Half:
        return rsqrt(node.base)
    if isinstance(node, Mul):
        return _multiplied(node, tensors)
    return node


def _rectified(node: Piecewise) -> Expr:
    """Of two pieces, zero or a multiple of what the condition is about, and it."""
    if len(node.args) != 2 or not isinstance(node.args[0][1], sympy.core.relational.Relational):
        return node
    (first, condition), (second, _) = node.args
    x = condition.lhs - condition.rhs
    if condition.rhs != 0 or x.is_number:
        return node
    if isinstance(condition, sympy.Lt | sympy.Le):
        first, second = second, first
    elif not isinstance(condition, sympy.Gt | sympy.Ge):
        return node
    if first != x:
        return node
    if second == 0:
        return relu(x)
    slope = second / x
    return leaky_relu(x, slope) if slope.is_number else node


def _chosen(factor: Piecewise, rest: Expr, tensors: frozenset[str]) -> Expr:
    """A choice between two numbers by the sign of something, times something else."""
    if len(factor.args) == 2 and isinstance(factor.args[0][1], sympy.core.relational.Relational):
        (first, condition), (second, _) = factor.args
        x = condition.lhs
        if isinstance(condition, sympy.Le | sympy.Lt):
            first, second = second, first
        strict = isinstance(condition, sympy.Gt | sympy.Le)
        known = any(symbol.name in tensors for symbol in x.free_symbols)
        if strict and condition.rhs == 0 and known and first == 1:
            return threshold_backward(rest, x, 0) if second == 0 else leaky_relu_backward(rest, x, second)
    return Piecewise(*((value * rest, condition) for value, condition in factor.args))


def _multiplied(node: Mul, tensors: frozenset[str]) -> Expr:
    """A choice between numbers times something as a choice between multiples of it; x/(1 + exp(−x))."""
    for position, factor in enumerate(node.args):
        others = [*node.args[:position], *node.args[position + 1 :]]
        if isinstance(factor, Piecewise) and all(value.is_number for value, _ in factor.args):
            rest = Mul(*others)
            # What stands in several branches is computed for each of them.
            once = sum(value != 0 for value, _ in factor.args) == 1
            several = any(symbol.name in tensors for symbol in rest.free_symbols)
            if several and (once or isinstance(rest, Symbol)):
                return _chosen(factor, rest, tensors)
        if type(factor).__name__ == "sigmoid" and factor.args[0] in others:
            others.remove(factor.args[0])
            return Mul(silu(factor.args[0]), *others)
    return node
