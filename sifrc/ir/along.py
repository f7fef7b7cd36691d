"""The same expression for many values of an index: an axis in front of everything that depends on it.

Batches are made so (the axis of the samples), and scores for every class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

from sifrc.ir.axes import Axis
from sifrc.ir.build import add, einsum, mapped
from sifrc.ir.linear import LinearSolve
from sifrc.ir.nodes import Add, Affine, AlongAxis, Delta, Einsum, Expr, Input, Map, Operand
from sifrc.ir.solvers import CubicNewton, Solve, Spectral, Sylvester
from sifrc.ir.traverse import postorder, rebuild

__all__ = ["along", "spread"]


def along(expr: Expr, axis: Axis, symbol: Callable[[Input], Expr]) -> Expr:
    """The expression for every value of an index; ``axis`` comes first where it depends on it.

    Args:
        expr: any expression without the axis.
        axis: the index.
        symbol: what stands for an input: itself, or an expression with ``axis`` in front.

    Example:
        >>> from sifrc.ir import Role
        >>> from sifrc.ir.build import inner
        >>> i, c = Axis("fc1", 3), Axis("class", 2)
        >>> x, t = Input("x", 1, (i,), Role.STATE), Input("t", None, (i,), Role.DATA)
        >>> many = Input("t", None, (c, i), Role.DATA)
        >>> [a.name for a in along(inner(x, t), c, lambda s: many if s is t else s).axes]
        ['class']
    """
    lifted = Lifted(axis, symbol, {})
    for node in postorder(expr):
        lifted.done[node.key] = _rule(node, lifted)
    return lifted.done[expr.key]


def spread(expr: Expr, axes: Sequence[Axis]) -> Expr:
    """The expression over the axes in this order, the same for every value of those that it lacks."""
    return expr if expr.axes == tuple(axes) else einsum([(expr, expr.axes)], axes)


@dataclass(frozen=True)
class Lifted:
    """What became of the nodes so far."""

    axis: Axis
    symbol: Callable[[Input], Expr]
    done: dict[str, Expr]

    def __call__(self, child: Expr) -> Expr:
        """The child along the axis."""
        return self.done[child.key]

    def depends(self, expr: Expr) -> bool:
        """Whether the expression has a value for each index."""
        return self.axis in expr.axes

    def first(self, expr: Expr, axes: tuple[Axis, ...]) -> Expr:
        """Over (axis, …) in any case."""
        return spread(expr, (self.axis, *axes))

    def product(
        self, operands: Sequence[Operand], out: tuple[Axis, ...]
    ) -> tuple[list[Operand], tuple[Axis, ...]]:
        """Operands and output of a product, with the axis where one of them depends on it."""
        moved = [(self(expr), labels) for expr, labels in operands]
        found = [(e, (self.axis, *labels) if self.depends(e) else labels) for e, labels in moved]
        return found, (self.axis, *out) if any(self.depends(expr) for expr, _ in moved) else out


@singledispatch
def _rule(node: Expr, new: Lifted) -> Expr:
    raise TypeError(f"no rule along an axis for {type(node).__name__}")


@_rule.register
def _(node: Input, new: Lifted) -> Expr:
    return new.symbol(node)


@_rule.register
def _(node: Delta | Affine, new: Lifted) -> Expr:
    return node


@_rule.register
def _(node: Einsum, new: Lifted) -> Expr:
    return einsum(*new.product(node.operands, node.out))


@_rule.register
def _(node: Add, new: Lifted) -> Expr:
    terms = [(factor, new(term)) for factor, term in node.terms]
    if not any(new.depends(term) for _, term in terms):
        return add(terms, node.out)
    return add([(factor, new.first(term, node.out)) for factor, term in terms], (new.axis, *node.out))


@_rule.register
def _(node: Map, new: Lifted) -> Expr:
    return mapped(node.function, node.orders, *new.product(node.operands, node.out))


@_rule.register
def _(node: AlongAxis | Spectral | Sylvester, new: Lifted) -> Expr:
    return rebuild(node, new)


@_rule.register
def _(node: Solve, new: Lifted) -> Expr:
    matrix, rhs = new(node.matrix), new(node.rhs)
    if new.depends(matrix) or new.depends(rhs):
        matrix, rhs = new.first(matrix, node.matrix.axes), new.first(rhs, node.rhs.axes)
    return replace(node, matrix=matrix, rhs=rhs)


@_rule.register
def _(node: CubicNewton, new: Lifted) -> Expr:
    if any(new.depends(new(child)) for child in node.children()):
        raise TypeError("no rule along an axis for a cubic model that depends on it")
    return rebuild(node, new)


@_rule.register
def _(node: LinearSolve, new: Lifted) -> Expr:
    if any(new.depends(new(child)) for child in node.children()):
        raise TypeError("no rule along an axis for a system of linear equations that depends on it")
    return node
