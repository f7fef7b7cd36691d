"""Affine relations of indices in a product: arrays are read in another shape, or at other places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

from sifrc.ir import Affine, Axis, Einsum, Expr, Input, Operand
from sifrc.ir.build import einsum, ones
from sifrc.lower.arrays import Change, Gather, Reshape
from sifrc.lower.products import kept_labels

__all__ = ["Arrays", "without_affine"]


@dataclass(frozen=True)
class Arrays:
    """What affine relations need of the lowering.

    Args:
        buffer: an expression in an array of its own.
        changed: an array in another shape, or read at other places.
        identity: the identity matrix of a size.
    """

    buffer: Callable[[Expr], Input]
    changed: Callable[[Input, Change], Input]
    identity: Callable[[int], Input]


@dataclass(frozen=True)
class _Reading:
    """One way to take a relation into another factor.

    Args:
        old: labels of the factor that go.
        new: labels that it has in their place.
        change: what is made of its dimensions, from the first of them.
    """

    old: tuple[Axis, ...]
    new: tuple[Axis, ...]
    change: Callable[[int], Change]


def without_affine(expr: Einsum, arrays: Arrays) -> Einsum:
    """The product with every :class:`~sifrc.ir.nodes.Affine` taken into what other factors are read from."""
    # A relation is ones and zeros: twice the same is once.
    operands = [
        operand
        for number, operand in enumerate(expr.operands)
        if not isinstance(operand[0], Affine) or operand not in expr.operands[:number]
    ]
    waiting = [operand for operand in operands if isinstance(operand[0], Affine)]
    order = _order(expr.out, waiting)
    while waiting:
        # First slices and shifts of one factor: others make a product with labels of several factors.
        pairs = [n for n, (_, labels) in enumerate(waiting) if len(labels) == 2]
        tries = [*((n, 1) for n in pairs), *((n, len(operands)) for n in range(len(waiting)))]
        for number, most in tries:
            relation, labels = waiting[number]
            assert isinstance(relation, Affine)
            others = [operand for operand in operands if operand != (relation, labels)]
            found = _taken(relation, labels, others, (expr.out, order), arrays, most)
            if found is not None:
                waiting.pop(number)
                operands = found
                break
        else:  # nothing that it could be taken into
            relation, labels = waiting.pop(0)
            assert isinstance(relation, Affine)
            operands.remove((relation, labels))
            operands.append(_alone(relation, labels, operands, expr.out, arrays))
    return Einsum(tuple(operands), expr.out)


def _taken(
    relation: Affine,
    labels: tuple[Axis, ...],
    others: list[Operand],
    orders: tuple[tuple[Axis, ...], tuple[Axis, ...]],
    arrays: Arrays,
    most: int,
) -> list[Operand] | None:
    """The other factors times the relation; None where no factor can be read so.

    Args:
        relation, labels: what is taken.
        others: factors.
        orders: labels of the result, and those that its axes are made of.
        arrays: what makes arrays.
        most: factors that may become one.
    """
    out, order = orders
    for reading in _readings(relation, labels):
        touched = [operand for operand in others if set(operand[1]) & set(reading.old)]
        if set(reading.old) & set(out) or not touched or any(isinstance(e, Affine) for e, _ in touched):
            continue
        if len(touched) > most:
            continue
        rest = [operand for operand in others if operand not in touched]
        if len(touched) > 1 or not _together(reading.old, touched[0][1]):
            needed = {*out, *(label for _, ls in rest for label in ls), *labels}
            places = order
            if len(reading.old) == len(reading.new) == 1:  # which takes its place
                places = tuple(reading.old[0] if label == reading.new[0] else label for label in order)
            touched = [_product(touched, reading.old, needed, places)]
        ((operand, slots),) = touched
        start = slots.index(reading.old[0])
        found = arrays.changed(arrays.buffer(operand), reading.change(start))
        return [*rest, (found, (*slots[:start], *reading.new, *slots[start + len(reading.old) :]))]
    return None


def _readings(relation: Affine, labels: tuple[Axis, ...]) -> Iterator[_Reading]:
    """The ways to take a relation into a factor, the one that makes the fewest entries first."""
    if relation.joins:
        whole, parts, sizes = labels[:1], labels[1:], relation.sizes[1:]
        yield _Reading(whole, parts, lambda first: Reshape(first, sizes, joins=False))
        yield _Reading(parts, whole, lambda first: Reshape(first, sizes, joins=True))
    total = prod(relation.sizes)
    for slot in sorted(range(len(labels)), key=lambda slot: total // relation.sizes[slot] ** 2):
        if labels.count(labels[slot]) == 1:
            yield _gathered(relation, labels, slot)


def _gathered(relation: Affine, labels: tuple[Axis, ...], slot: int) -> _Reading:
    """An index is made of the others."""
    own = relation.coefficients[slot]
    sign = 1 if own > 0 else -1
    sizes, coefficients = (
        values[:slot] + values[slot + 1 :] for values in (relation.sizes, relation.coefficients)
    )
    steps = tuple(-sign * coefficient for coefficient in coefficients)
    new = labels[:slot] + labels[slot + 1 :]
    return _Reading(
        labels[slot : slot + 1],
        new,
        lambda first: Gather(first, sizes, steps, sign * relation.offset, abs(own)),
    )


def _alone(
    relation: Affine, labels: tuple[Axis, ...], others: list[Operand], out: tuple[Axis, ...], arrays: Arrays
) -> Operand:
    """The relation as an array: ones that are read where an index is only summed, or an identity matrix."""
    used = {*out, *(label for _, own in others for label in own)}
    for reading in _readings(relation, labels):
        if len(reading.old) == 1 and not used & set(reading.old):
            found = arrays.buffer(ones(reading.old))
            return arrays.changed(found, reading.change(0)), reading.new
    first, *_ = relation.sizes
    rows = (
        next(_readings(relation, relation.axes)) if relation.joins else _gathered(relation, relation.axes, 0)
    )
    return arrays.changed(arrays.identity(first), rows.change(1)), labels


def _together(labels: tuple[Axis, ...], slots: tuple[Axis, ...]) -> bool:
    """Whether the slots have the labels once, next to each other and in their order."""
    if len(set(slots)) < len(slots) or labels[0] not in slots:
        return False
    start = slots.index(labels[0])
    return slots[start : start + len(labels)] == labels


def _order(out: tuple[Axis, ...], relations: list[Operand]) -> tuple[Axis, ...]:
    """Labels of the result, those that are several in one as these: what comes next to what in memory."""
    order = list(out)
    for relation, (whole, *parts) in relations:
        if isinstance(relation, Affine) and relation.joins and whole in order:
            place = order.index(whole)
            order[place : place + 1] = parts
    return tuple(order)


def _product(
    touched: list[Operand], together: tuple[Axis, ...], needed: set[Axis], order: tuple[Axis, ...]
) -> Operand:
    """Several factors as one, with some labels next to each other: in an order, or else at the end."""
    kept = kept_labels(touched, needed)
    axes = tuple(label for label in order if label in kept or label in together)
    if set(axes) != {*kept, *together} or not _together(together, axes):
        axes = (*kept_labels(touched, needed - set(together)), *together)
    return einsum(touched, axes), axes
