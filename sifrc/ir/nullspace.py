"""What is known of the null space of a matrix: whether its rows sum to zero."""

from __future__ import annotations

from fractions import Fraction

from sifrc.ir.axes import Axis
from sifrc.ir.build import add, einsum, ones, zero
from sifrc.ir.nodes import Einsum, Expr, LogSoftmax, Map
from sifrc.ir.normal import expand
from sifrc.ir.traverse import rewrite
from sifrc.scalar import EXP

__all__ = ["sums_to_zero", "without_mean"]


def sums_to_zero(matrix: Expr) -> bool:
    """Whether the rows of a symmetric matrix are proved to sum to zero.

    A vector of equal entries is then in its null space: the Hessian of a function of the softmax is of that
    kind, since an offset that all logits have changes nothing.

    Example:
        >>> from sifrc.ir import Delta, Input, Role
        >>> from sifrc.ir.build import apply, subtract
        >>> i = Axis("logits", 3)
        >>> s = apply(EXP, LogSoftmax(Input("y", None, (i,), Role.STATE), i))
        >>> outer = einsum([(s, (i,)), (s, (i.primed,))], (i, i.primed))
        >>> diagonal = einsum([(Delta(i, i.primed), (i, i.primed)), (s, (i,))], (i, i.primed))
        >>> sums_to_zero(subtract(diagonal, outer)), sums_to_zero(diagonal)
        (True, False)
    """
    rows = matrix.axes[:-1]
    sums = expand(einsum([(matrix, matrix.axes)], rows))
    return expand(rewrite([sums], _without_softmax_sums)[0]) is zero(rows)


def without_mean(expr: Expr, total: Expr, axis: Axis) -> Expr:
    """A tensor less the mean of its entries along an axis.

    Args:
        expr: the tensor.
        total: the sum of its entries along the axis.
        axis: one of its axes.

    Example:
        >>> from sifrc.ir import Input, Role
        >>> from sifrc.ir.normal import is_zero
        >>> i = Axis("logits", 3)
        >>> y = Input("y", None, (i,), Role.STATE)
        >>> is_zero(einsum([(without_mean(y, einsum([(y, (i,))], ()), i), (i,))], ()))
        True
    """
    spread = einsum([(total, total.axes), (ones((axis,)), (axis,))], expr.axes)
    return add([(Fraction(1), expr), (Fraction(-1, axis.entries), spread)], expr.axes)


def _without_softmax_sums(node: Expr) -> Expr | None:
    """A product without the softmaxes that are only summed: their entries sum to one."""
    if not isinstance(node, Einsum):
        return None
    used = [label for _, labels in node.operands for label in labels]
    kept = [
        (expr, labels)
        for expr, labels in node.operands
        if not (_is_softmax(expr) and used.count(labels[-1]) == 1 and labels[-1] not in node.out)
    ]
    return einsum(kept, node.out) if len(kept) < len(node.operands) else None


def _is_softmax(expr: Expr) -> bool:
    """Of a vector, over its one axis."""
    return (
        isinstance(expr, Map)
        and expr.function == EXP
        and not any(expr.orders)
        and isinstance(expr.operands[0][0], LogSoftmax)
        and expr.axes == (expr.operands[0][0].over,)
    )
