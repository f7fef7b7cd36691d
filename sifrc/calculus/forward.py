"""Forward differentiation: the differential of an expression along given directions of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import singledispatch
from typing import TypeAlias

from sifrc.ir.build import add, apply, einsum, mapped, negative, subtract, total
from sifrc.ir.nodes import Add, Affine, ArgMax, Delta, Einsum, Expr, Input, LogSoftmax, LogSumExp, Map, Reduce
from sifrc.ir.solvers import CubicNewton, Solve, Spectral, Sylvester
from sifrc.ir.traverse import postorder
from sifrc.scalar.function import EXP

__all__ = ["jvp"]

Tangents: TypeAlias = Callable[[Expr], Expr | None]


def jvp(expr: Expr, directions: Mapping[Input, Expr]) -> Expr | None:
    """Differential of ``expr`` when each input moves along its direction.

    Args:
        expr: any expression.
        directions: input -> expression with the same axes; inputs that are not named stay fixed.

    Returns:
        The differential, with the axes of ``expr``; None where it is identically zero.

    Example:
        >>> from sifrc.ir import Axis, Input, Role
        >>> from sifrc.ir.build import apply, hadamard
        >>> from sifrc.scalar import EXP
        >>> i = Axis("fc1", 3)
        >>> x, v = Input("x", 1, (i,), Role.STATE), Input("v", 1, (i,), Role.TANGENT)
        >>> jvp(apply(EXP, x), {x: v}) is hadamard(apply(EXP, x, orders=(1,)), v)
        True
    """
    known: dict[str, Expr | None] = {}
    moved = {symbol.key: direction for symbol, direction in directions.items()}
    for node in postorder(expr):
        if isinstance(node, Input):
            known[node.key] = moved.get(node.key)
        else:
            known[node.key] = forward_rule(node, lambda child: known[child.key])
    return known[expr.key]


def _sum(terms: list[tuple[Fraction, Expr]], node: Expr) -> Expr | None:
    return add(terms, node.axes) if terms else None


@singledispatch
def forward_rule(node: Expr, tangent: Tangents) -> Expr | None:
    """The differential of one node, given its children's."""
    raise TypeError(f"no forward rule for {type(node).__name__}")


@forward_rule.register
def _(node: Delta | Affine, tangent: Tangents) -> Expr | None:
    return None


@forward_rule.register
def _(node: Add, tangent: Tangents) -> Expr | None:
    """d Σ c f = Σ c df."""
    moves = [(factor, tangent(term)) for factor, term in node.terms]
    return _sum([(factor, move) for factor, move in moves if move is not None], node)


@forward_rule.register
def _(node: Einsum, tangent: Tangents) -> Expr | None:
    """d(f g) = df g + f dg."""
    terms: list[tuple[Fraction, Expr]] = []
    for position, (operand, labels) in enumerate(node.operands):
        move = tangent(operand)
        if move is not None:
            operands = list(node.operands)
            operands[position] = (move, labels)
            terms.append((Fraction(1), einsum(operands, node.out)))
    return _sum(terms, node)


@forward_rule.register
def _(node: Map, tangent: Tangents) -> Expr | None:
    """d f(u, v) = f_u ∘ du + f_v ∘ dv."""
    terms: list[tuple[Fraction, Expr]] = []
    for position, (operand, labels) in enumerate(node.operands):
        move = tangent(operand)
        if move is not None:
            slope = partial(node, position)
            terms.append((Fraction(1), einsum([(slope, node.out), (move, labels)], node.out)))
    return _sum(terms, node)


def partial(node: Map, position: int) -> Expr:
    """The derivative of an elementwise function in one argument."""
    orders = tuple(order + (j == position) for j, order in enumerate(node.orders))
    return mapped(node.function, orders, node.operands, node.out)


@forward_rule.register
def _(node: LogSumExp, tangent: Tangents) -> Expr | None:
    """d log Σ exp u = ⟨softmax(u), du⟩."""
    move = tangent(node.operand)
    if move is None:
        return None
    return einsum([(softmax(node), node.operand.axes), (move, node.operand.axes)], node.axes)


@forward_rule.register
def _(node: LogSoftmax, tangent: Tangents) -> Expr | None:
    """d(u − log Σ exp u) = du − ⟨softmax(u), du⟩."""
    move = tangent(node.operand)
    if move is None:
        return None
    rest = tuple(axis for axis in node.axes if axis != node.over)
    mean = einsum([(softmax(node), node.axes), (move, node.axes)], rest)
    return subtract(move, einsum([(mean, rest)], node.axes))


def softmax(node: LogSumExp | LogSoftmax) -> Expr:
    """exp(u − log Σ exp u), which cannot overflow."""
    return apply(EXP, LogSoftmax(node.operand, node.over))


@forward_rule.register
def _(node: Solve, tangent: Tangents) -> Expr | None:
    """d(A⁻¹ r) = A⁻¹ (dr − dA u), where A is non-singular."""
    terms: list[Expr] = []
    move_rhs, move_matrix = tangent(node.rhs), tangent(node.matrix)
    if move_rhs is not None:
        terms.append(move_rhs)
    if move_matrix is not None:
        terms.append(negative(einsum([(move_matrix, node.matrix.axes), (node, node.axes)], node.rhs.axes)))
    return Solve(node.matrix, total(terms, node.rhs.axes), centred=node.centred) if terms else None


@forward_rule.register
def _(node: ArgMax, tangent: Tangents) -> Expr | None:
    return None


@forward_rule.register
def _(node: Reduce, tangent: Tangents) -> Expr | None:
    """d max u = ⟨argmax u, du⟩."""
    move = tangent(node.operand)
    if move is None:
        return None
    axes = node.operand.axes
    return einsum([(first_largest(node), axes), (move, axes)], node.axes)


def first_largest(node: Reduce) -> Expr:
    """Where a maximum is taken.

    Raises:
        TypeError: a magnitude, which is held constant.
    """
    if node.kind != "max":
        raise TypeError(f"the {node.kind} is held constant: it has no derivative")
    return ArgMax(node.operand, node.over)


@forward_rule.register
def _(node: Spectral | Sylvester | CubicNewton, tangent: Tangents) -> Expr | None:
    if all(tangent(child) is None for child in node.children()):
        return None
    raise TypeError(f"{type(node).__name__} is held constant: it has no derivative")
