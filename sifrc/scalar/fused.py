"""Scalar expressions in terms of functions that Torch computes in one pass.

They are found by what they are, not by what a spec calls them: max(x, 0) is ``torch.relu`` wherever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

import sympy
from sympy import Add, Expr, Min, Mul, Piecewise, Pow, Symbol

from sifrc.scalar.primitives import erfc, expm1

__all__ = ["TIMES_FIRST", "Tensors", "fused"]

Tensors: TypeAlias = Mapping[str, tuple[str, ...]]
"""Names of symbols that are tensors, and labels of their axes."""


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


class tanh_backward(_Fused):
    """The first argument times 1 − y², y the second one: the slope of tanh where that is y."""


class elu_backward(_Fused):
    """The first argument times the slope of ``elu`` where that is the second one, for the number 1."""


class rsqrt(_Fused):
    """1/√x."""


class elu(_Fused):
    """x where it is positive, else a number times exp(x) − 1."""


class gelu(_Fused):
    """x times the normal distribution function of x."""


class gelu_backward(_Fused):
    """The first argument times the slope of ``gelu`` at the second one."""


class where_not_positive(_Fused):
    """The first argument where the second one is not positive, else 0."""


TIMES_FIRST = (
    threshold_backward,
    leaky_relu_backward,
    gelu_backward,
    tanh_backward,
    elu_backward,
    where_not_positive,
)
"""Functions that are something times their first argument."""
_GELU = sympy.Symbol("x", real=True) * erfc(-sympy.Symbol("x", real=True) / sympy.sqrt(2)) / 2
_GELU_SLOPE = _GELU.diff(sympy.Symbol("x", real=True))


def fused(expression: Expr, tensors: Tensors = MappingProxyType({}), *, single: bool = False) -> Expr:
    """The expression with such functions in it, and choices between numbers taken around what they multiply.

    Args:
        expression: what is printed.
        tensors: names of its symbols that are tensors, and labels of their axes: what has none of them is a
            number, which choices between numbers stay apart from.
        single: with Torch's gelu, which is right to rounding errors of its argument.

    Example:
        >>> x, y = sympy.symbols("x y", real=True)
        >>> fused(2 * Piecewise((0, x <= 0), (x, True)))
        2*relu(x)
        >>> fused(y * Piecewise((0, x <= 0), (1, True)), {"x": (), "y": ()})
        threshold_backward(y, x, 0)
    """
    if not expression.has(Piecewise, Pow, sympy.Function):
        return expression
    return _rewritten(_with_gelu(expression) if single else expression, tensors)


def _rewritten(node: Expr, tensors: Tensors) -> Expr:
    if not node.args or node.is_number:
        return node
    node = node.func(*(_rewritten(argument, tensors) for argument in node.args))
    if isinstance(node, Piecewise):
        return _rectified(node, tensors)
    if isinstance(node, Pow) and node.exp == -sympy.S.Half:
        return rsqrt(node.base)
    if isinstance(node, Mul):
        return _multiplied(node, tensors)
    return node


def _with_gelu(node: Expr) -> Expr:
    """The expression with gelu and its slope in it."""
    if not node.has(erfc):
        return node
    node = node.func(*(_with_gelu(argument) for argument in node.args))
    if isinstance(node, Add):
        return _with_gelu_slopes(node)
    for factor in node.args if isinstance(node, Mul) else ():
        x = _argument_of_gelu(factor)
        if x is not None and x in node.args:
            return node / (factor * x) * 2 * gelu(x)
    return node


def _argument_of_gelu(node: Expr) -> Symbol | None:
    """x of erfc(−x/√2)."""
    x = -node.args[0] * sympy.sqrt(2) if isinstance(node, erfc) else None
    return x if isinstance(x, Symbol) else None


def _with_gelu_slopes(node: Add) -> Expr:
    """Two terms of a sum that are the slope of gelu as that."""
    terms = list(node.args)
    for found in sorted(node.atoms(erfc), key=str):
        x = _argument_of_gelu(found)
        slope = () if x is None else _GELU_SLOPE.xreplace({Symbol("x", real=True): x}).args
        if slope and set(slope) <= set(terms):
            terms = [*(term for term in terms if term not in slope), gelu_backward(sympy.S.One, x)]
    return Add(*terms)


def _rectified(node: Piecewise, tensors: Tensors) -> Expr:
    """Two pieces by the sign of something, as a function of it or a choice that needs no comparison."""
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
        joined = _joined(x, first, second)
        return joined if joined is not None else _chosen(node, sympy.S.One, tensors)
    if second == 0:
        return relu(x)
    number, rest = second.as_coeff_Mul()
    if rest == expm1(Min(x, 0)):
        return elu(x, number)
    slope = second / x
    return leaky_relu(x, slope) if slope.is_number else node


def _joined(x: Expr, above: Expr, below: Expr) -> Expr | None:
    """A number where x is positive, else what is that number at zero: a bound on x is the choice then."""
    bound, y = Min(x, 0), sympy.Dummy(real=True)
    bounded = below.xreplace({bound: y})
    if not bounded.has(y) and isinstance(below, Add) and below - x == above:
        bounded = below.xreplace({x: y})
    joins = above.is_number and bounded.free_symbols == {y} and bounded.subs(y, 0) == above
    return bounded.xreplace({y: bound}) if joins else None


def _chosen(factor: Piecewise, rest: Expr, tensors: Tensors) -> Expr:
    """A choice by the sign of something, times something else.

    ``torch.where`` takes each entry by itself on a CPU: where one branch is zero, or both are multiples of
    one thing, Torch has functions that do not.
    """
    if len(factor.args) == 2 and isinstance(factor.args[0][1], sympy.core.relational.Relational):
        (first, condition), (second, _) = factor.args
        x = condition.lhs
        if isinstance(condition, sympy.Le | sympy.Lt):
            first, second = second, first
        strict = isinstance(condition, sympy.Gt | sympy.Le)
        known = any(symbol.name in tensors for symbol in x.free_symbols)
        if strict and condition.rhs == 0 and known:
            if second == 0 and (first * rest == 1 or _has_tensors(first * rest, tensors)):
                return threshold_backward(first * rest, x, 0)
            # Where x is not a number, the second branch is what it is of it.
            if first == 0 and x.free_symbols <= second.free_symbols:
                return where_not_positive(second * rest, x)
            if first == 1 and second.is_number:
                return leaky_relu_backward(rest, x, second)
    return Piecewise(*((value * rest, condition) for value, condition in factor.args))


def _has_tensors(node: Expr, tensors: Tensors) -> bool:
    return any(symbol.name in tensors for symbol in node.free_symbols)


def _fits(factor: Expr, rest: Expr, tensors: Tensors) -> bool:
    """Whether a function takes something else times its first argument: not every one repeats entries."""
    if not isinstance(factor, gelu_backward):
        return True
    own, other = (
        {label for s in e.free_symbols for label in tensors.get(s.name, ())} for e in (factor, rest)
    )
    return own == other


def _slope_of_value(node: Expr, tensors: Tensors) -> Expr:
    """A slope that Torch computes from the function's value y, 1 − y² or min(y, 0) + 1, as its function."""
    found = [symbol for symbol in node.free_symbols if symbol.name in tensors]
    if not isinstance(node, Add) or len(found) != 1:
        return node
    y = found[0]
    forms = {1 - y**2: tanh_backward, 1 + Min(y, 0): elu_backward}
    return forms[node](sympy.S.One, y) if node in forms else node


def _multiplied(node: Mul, tensors: Tensors) -> Expr:
    """A choice between numbers times something as a choice between multiples of it; x/(1 + exp(−x))."""
    for position, factor in enumerate(node.args):
        others = [*node.args[:position], *node.args[position + 1 :]]
        rest = Mul(*others)
        if isinstance(factor, Piecewise) and all(value.is_number for value, _ in factor.args):
            # What stands in several branches is computed for each of them.
            once = sum(value != 0 for value, _ in factor.args) == 1
            if _has_tensors(rest, tensors) and (once or isinstance(rest, Symbol)):
                return _chosen(factor, rest, tensors)
        factor = _slope_of_value(factor, tensors)
        if isinstance(factor, TIMES_FIRST) and _fits(factor, rest, tensors) and _has_tensors(rest, tensors):
            # A number stands outside, where it may go into what is made.
            number, other = (factor.args[0] * rest).as_coeff_Mul()
            return number * type(factor)(other, *factor.args[1:])
        if type(factor).__name__ == "sigmoid" and factor.args[0] in others:
            others.remove(factor.args[0])
            return Mul(silu(factor.args[0]), *others)
    return node
