"""What can be proved about a scalar function: where its slope vanishes, whether it is piecewise affine.

Every answer is one-sided: "not proved" is never "disproved".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import sympy
from sympy import Dummy, Expr, Piecewise

from sifrc.scalar.function import ScalarFunction
from sifrc.scalar.primitives import undefined

__all__ = ["Slope", "is_zero", "piecewise_affine", "slope_vanishing"]

Slope: TypeAlias = Literal["never", "interval", "undecided"]

_EXPANSION_LIMIT = 200
"""Expressions with more operations than this are not expanded: the answer must stay cheap."""


def _branches(expression: Expr) -> Iterator[Expr]:
    """The expressions of all branches, ``where`` moved outwards; not of those that are no number anyway."""
    if expression.has(undefined) and not expression.has(Piecewise):
        return
    if not expression.has(Piecewise):
        yield expression
        return
    folded = sympy.piecewise_fold(expression)
    if not isinstance(folded, Piecewise):
        yield folded
        return
    for branch, _ in folded.args:
        yield from _branches(branch)


def is_zero(expression: Expr) -> bool:
    """Whether the expression is provably zero on every branch.

    Example:
        >>> x = sympy.Symbol("x", real=True)
        >>> is_zero((x + 1) ** 2 - x**2 - 2 * x - 1), is_zero(x)
        (True, False)
    """
    return all(_branch_is_zero(branch) for branch in _branches(expression))


def _branch_is_zero(branch: Expr) -> bool:
    if branch.is_zero:
        return True
    if branch.is_number or branch.count_ops() > _EXPANSION_LIMIT:
        return False
    return bool(sympy.expand(branch) == 0)


def piecewise_affine(function: ScalarFunction, argument: int = 0) -> bool:
    """Whether the second derivative by an argument is identically zero at the parameter values.

    Args:
        function: any scalar function.
        argument: index of the argument.

    Example:
        >>> from sifrc.scalar.function import ABS, EXP
        >>> piecewise_affine(ABS), piecewise_affine(EXP)
        (True, False)
    """
    return is_zero(function.value_form(_order(function, argument, 2)))


def _order(function: ScalarFunction, argument: int, order: int) -> tuple[int, ...]:
    return tuple(order if i == argument else 0 for i in range(len(function.arguments)))


def _bounded_tanh(expression: Expr) -> Expr:
    """tanh(u)² replaced by 1 − p with an opaque p in (0, 1]: then 1 − tanh(u)² is p, so positive."""
    squares = [
        node
        for node in sympy.preorder_traversal(expression)
        if isinstance(node, sympy.Pow) and isinstance(node.base, sympy.tanh) and node.exp == 2
    ]
    return expression.xreplace({square: 1 - Dummy(positive=True) for square in squares})


def _definite(branch: Expr) -> bool:
    """Whether the branch is provably of one sign and never zero."""
    candidate = _bounded_tanh(branch)
    return bool(candidate.is_positive or candidate.is_negative)


def slope_vanishing(function: ScalarFunction, argument: int = 0) -> Slope:
    """Where the derivative by an argument vanishes.

    Returns:
        ``interval`` if it is identically zero on a branch (relu), ``never`` if it is provably non-zero on
        every branch (leaky_relu, tanh, softplus), else ``undecided``.

    Example:
        >>> from sifrc.scalar.function import EXP, SQUARE
        >>> slope_vanishing(EXP), slope_vanishing(SQUARE)
        ('never', 'undecided')
    """
    branches = list(_branches(function.value_form(_order(function, argument, 1))))
    if any(_branch_is_zero(branch) for branch in branches):
        return "interval"
    return "never" if all(_definite(branch) for branch in branches) else "undecided"
