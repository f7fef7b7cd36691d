"""Axes that are joined or taken apart in a product: arrays are read in another shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sifrc.ir import Axis, Einsum, Expr, Input, Join, Operand
from sifrc.ir.build import einsum
from sifrc.lower.arrays import Reshape

__all__ = ["Arrays", "without_joins"]


@dataclass(frozen=True)
class Arrays:
    """What joins need of the lowering.

    Args:
        buffer: an expression in an array of its own.
        reshaped: an array in another shape.
        identity: the identity matrix of a size.
    """

    buffer: Callable[[Expr], Input]
    reshaped: Callable[[Input, Reshape], Input]
    identity: Callable[[int], Input]


def without_joins(expr: Einsum, arrays: Arrays) -> Einsum:
    """The product with every :class:`~sifrc.ir.nodes.Join` taken into the shapes of other factors."""
    operands = list(expr.operands)
    for join, labels in expr.operands:
        if isinstance(join, Join):
            operands.remove((join, labels))
            operands = _multiplied(join, labels, operands, expr.out, arrays)
    return Einsum(tuple(operands), expr.out)


def _multiplied(
    join: Join, labels: tuple[Axis, ...], others: list[Operand], out: tuple[Axis, ...], arrays: Arrays
) -> list[Operand]:
    """The other factors, times the one that joins."""
    whole, parts = labels[:1], labels[1:]
    for old, new, joins in ((whole, parts, False), (parts, whole, True)):
        touched = [operand for operand in others if set(operand[1]) & set(old)]
        if set(old) & set(out) or not touched or any(isinstance(e, Join) for e, _ in touched):
            continue
        rest = [operand for operand in others if operand not in touched]
        if len(touched) > 1 or not _together(old, touched[0][1]):
            touched = [_product(touched, old, {*out, *(label for _, ls in rest for label in ls)})]
        ((operand, slots),) = touched
        start = slots.index(old[0])
        found = arrays.reshaped(arrays.buffer(operand), Reshape(start, join.sizes, joins))
        return [*rest, (found, (*slots[:start], *new, *slots[start + len(old) :]))]
    identity = arrays.reshaped(arrays.identity(join.axes[0].entries), Reshape(1, join.sizes, joins=False))
    return [*others, (identity, labels)]


def _together(labels: tuple[Axis, ...], slots: tuple[Axis, ...]) -> bool:
    """Whether the slots have the labels once, next to each other and in their order."""
    if len(set(slots)) < len(slots) or labels[0] not in slots:
        return False
    start = slots.index(labels[0])
    return slots[start : start + len(labels)] == labels


def _product(touched: list[Operand], last: tuple[Axis, ...], needed: set[Axis]) -> Operand:
    """Several factors as one, some labels last."""
    found = {label for _, labels in touched for label in labels if label in needed}
    kept = sorted(found - set(last), key=lambda axis: (not axis.is_group, not axis.is_sample, axis.place))
    axes = (*kept, *last)
    return einsum(touched, axes), axes
