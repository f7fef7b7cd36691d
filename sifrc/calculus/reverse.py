"""Reverse differentiation: the gradient of a scalar expression in chosen inputs, in one sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import TypeAlias

from sifrc.calculus.forward import first_largest, partial, softmax
from sifrc.ir.axes import Axis
from sifrc.ir.build import einsum, negative, ones, rename, scale, subtract, total, zero
from sifrc.ir.nodes import (
    Add,
    Affine,
    ArgMax,
    Delta,
    Einsum,
    Expr,
    Input,
    LogSoftmax,
    LogSumExp,
    Map,
    Operand,
    Reduce,
)
from sifrc.ir.solvers import CubicNewton, Solve, Spectral, Sylvester
from sifrc.ir.traverse import postorder

__all__ = ["vjp"]

Depends: TypeAlias = Callable[[Expr], bool]
Send: TypeAlias = Callable[[Expr, Expr], None]


def vjp(expr: Expr, wrt: Sequence[Expr], seed: Expr | None = None) -> tuple[Expr, ...]:
    """Adjoint derivative of ``expr`` in each of ``wrt``.

    Args:
        expr: any expression; a scalar unless a seed is given.
        wrt: inputs, or inner nodes, whose cotangent is then the derivative through that node.
        seed: cotangent with the axes of ``expr``; one by default.

    Returns:
        For each of ``wrt`` the expression ⟨seed, ∂expr/∂node⟩, with the node's axes (zero if it
        does not occur).

    Example:
        >>> from sifrc.ir import Axis, Input, Role
        >>> from sifrc.ir.build import inner
        >>> i = Axis("fc1", 3)
        >>> x, v = Input("x", 1, (i,), Role.STATE), Input("v", 1, (i,), Role.TANGENT)
        >>> vjp(inner(x, v), [x])[0] is v
        True
    """
    if seed is None:
        if expr.axes:
            raise TypeError("vjp of a tensor needs a seed")
        seed = ones()
    wanted = {symbol.key for symbol in wrt}
    order = postorder(expr)
    depends: dict[str, bool] = {}
    for node in order:
        depends[node.key] = node.key in wanted or any(depends[c.key] for c in node.children())
    received: dict[str, list[Expr]] = {expr.key: [seed]}

    def send(child: Expr, cotangent: Expr) -> None:
        if depends[child.key]:
            received.setdefault(child.key, []).append(cotangent)

    results: dict[str, Expr] = {}
    for node in reversed(order):
        cotangents = received.pop(node.key, None)
        if cotangents is None or not depends[node.key]:
            continue
        cotangent = total(cotangents, node.axes)
        if node.key in wanted:
            results[node.key] = cotangent
        if not isinstance(node, Input):
            reverse_rule(node, cotangent, lambda child: depends[child.key], send)
    return tuple(results.get(symbol.key, zero(symbol.axes)) for symbol in wrt)


@singledispatch
def reverse_rule(node: Expr, cotangent: Expr, depends: Depends, send: Send) -> None:
    """Send the cotangent of one node on to its children."""
    raise TypeError(f"no reverse rule for {type(node).__name__}")


@reverse_rule.register
def _(node: Delta | Affine | ArgMax, cotangent: Expr, depends: Depends, send: Send) -> None:
    return


@reverse_rule.register
def _(node: Add, cotangent: Expr, depends: Depends, send: Send) -> None:
    for factor, term in node.terms:
        send(term, scale(factor, cotangent))


@reverse_rule.register
def _(node: Einsum, cotangent: Expr, depends: Depends, send: Send) -> None:
    """The cotangent of one factor is the product of the cotangent with the other factors."""
    for position, (operand, labels) in enumerate(node.operands):
        if depends(operand):
            others = [op for j, op in enumerate(node.operands) if j != position]
            send(operand, _pull_back([(cotangent, node.out), *others], operand, labels))


def _pull_back(product: list[Operand], operand: Expr, labels: tuple[Axis, ...]) -> Expr:
    """The product as a tensor over the operand's slots; repeated labels become Deltas."""
    slots: list[Axis] = []
    for position, label in enumerate(labels):
        if label in labels[:position]:
            other = label.summed(f"!{position}")
            product = [*product, (Delta(label, other), (label, other))]
            label = other
        slots.append(label)
    table = dict(zip(slots, operand.axes, strict=True))
    inside = {label for _, names in product for label in names} - set(slots)
    if inside & set(operand.axes):  # a name clash: move the other labels out of the way
        table |= {label: replace(label, name=f"{label.name}~") for label in inside}
    renamed = [(expr, tuple(table.get(label, label) for label in names)) for expr, names in product]
    return einsum(renamed, operand.axes)


@reverse_rule.register
def _(node: Map, cotangent: Expr, depends: Depends, send: Send) -> None:
    for position, (operand, labels) in enumerate(node.operands):
        if depends(operand):
            product = [(cotangent, node.out), (partial(node, position), node.out)]
            send(operand, _pull_back(product, operand, labels))


@reverse_rule.register
def _(node: LogSumExp, cotangent: Expr, depends: Depends, send: Send) -> None:
    axes = node.operand.axes
    send(node.operand, einsum([(cotangent, node.axes), (softmax(node), axes)], axes))


@reverse_rule.register
def _(node: LogSoftmax, cotangent: Expr, depends: Depends, send: Send) -> None:
    axes = node.axes
    rest = tuple(axis for axis in axes if axis != node.over)
    whole = einsum([(cotangent, axes)], rest)
    send(node.operand, subtract(cotangent, einsum([(whole, rest), (softmax(node), axes)], axes)))


@reverse_rule.register
def _(node: Solve, cotangent: Expr, depends: Depends, send: Send) -> None:
    """With w = A⁻ᵀ ū: r̄ = w, Ā = −w uᵀ, A symmetric."""
    *batch, _, column = node.matrix.axes
    right = node.rhs.axes
    dual = rename(Solve(node.matrix, rename(cotangent, right), centred=node.centred), right)
    if depends(node.rhs):
        send(node.rhs, dual)
    if depends(node.matrix):
        solution = (*batch, column, *right[len(batch) + 1 :])
        send(node.matrix, negative(einsum([(dual, right), (node, solution)], node.matrix.axes)))


@reverse_rule.register
def _(node: Reduce, cotangent: Expr, depends: Depends, send: Send) -> None:
    axes = node.operand.axes
    send(node.operand, einsum([(cotangent, node.axes), (first_largest(node), axes)], axes))


@reverse_rule.register
def _(node: Spectral | Sylvester | CubicNewton, cotangent: Expr, depends: Depends, send: Send) -> None:
    raise TypeError(f"{type(node).__name__} is held constant: it has no derivative")
