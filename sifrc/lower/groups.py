"""Products with arrays over groups: what all groups share is computed once, and not for each group."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from dataclasses import replace

from sifrc.ir import Add, Axis, Einsum, Expr, Input, Operand
from sifrc.ir.build import einsum
from sifrc.ir.relative import ordered_operands
from sifrc.ir.traverse import inputs_of
from sifrc.lower.products import contracted, kept_labels, without_outer

__all__ = ["in_one_order", "is_fixed_matrix", "key_of_groups", "shared_by_groups"]


def shared_by_groups(expr: Einsum, layer: int | None) -> tuple[tuple[Operand, ...], tuple[Operand, ...]]:
    """Factors that want an array of their own because all groups share them, and the other factors.

    Shared factors are multiplied with each other where their product is no larger than one of them: what is
    larger, like an outer product, is better multiplied with an array over groups one by one.

    Args:
        expr: the product.
        layer: of its equation.
    """
    if not any(_over_groups(labels) for _, labels in expr.operands):
        return (), expr.operands
    # In an order that is the same for layers that are alike.
    operands = ordered_operands(without_outer(expr), layer)
    shared = [op for op in operands if op[1] and not _over_groups(op[1])]
    others = [op for op in operands if op not in shared]
    needed = {*expr.out, *(label for _, labels in others for label in labels)}
    made: list[Operand] = []
    for part in _joined(shared, needed):
        if len(part) == 1 and isinstance(part[0][0], Input):
            others += part
            continue
        made.append(_shared(part, _axes(part, needed), expr.out))
    return tuple(made), tuple(others)


def _axes(part: list[Operand], needed: Collection[Axis]) -> tuple[Axis, ...]:
    """The axes of an array of a part: samples first, then as in the factor that has the most of them.

    Names of labels that are summed are as arbitrary as the order of factors: layers that are alike differ.
    """
    factors = sorted(part, key=lambda operand: -len(operand[1]))
    found = dict.fromkeys(label for _, labels in factors for label in labels if label in needed)
    return tuple(sorted(found, key=lambda axis: not axis.is_sample))


def _shared(part: list[Operand], axes: tuple[Axis, ...], out: tuple[Axis, ...]) -> Operand:
    """The product of a part, the same wherever it occurs: labels that others sum are named in order."""
    summed = (axis for axis in axes if axis not in out)
    names = {axis: replace(axis, name=f"shared {n}", primes=0) for n, axis in enumerate(summed)}
    factors = [(factor, tuple(names.get(label, label) for label in labels)) for factor, labels in part]
    return einsum(factors, tuple(names.get(axis, axis) for axis in axes)), axes


def _over_groups(labels: Iterable[Axis]) -> bool:
    return any(label.is_group for label in labels)


def _joined(shared: list[Operand], needed: set[Axis]) -> list[list[Operand]]:
    """Parts of the product: tied by a label that nothing else has, or within the labels of another part."""
    tied: list[list[Operand]] = []
    for operand in shared:
        inner = set(operand[1]) - needed
        touching = [part for part in tied if any(inner & set(labels) for _, labels in part)]
        tied = [part for part in tied if part not in touching]
        tied.append([op for part in touching for op in part] + [operand])
    parts: list[list[Operand]] = []
    for part in sorted(tied, key=lambda part: -len(kept_labels(part, needed))):
        own = set(kept_labels(part, needed))
        host = next((other for other in parts if own <= set(kept_labels(other, needed))), None)
        if host is None:
            parts.append(list(part))
        else:
            host += part
    return parts


def key_of_groups(expr: Einsum, axes: tuple[Axis, ...]) -> str:
    """What two products have in common that are equal but for the names of their axes.

    Args:
        expr: the product; products within it are taken for their factors.
        axes: its axes in some order, which become the first, the second and so on.
    """
    names = {axis: replace(axis, name=f"axis{n}", primes=0) for n, axis in enumerate(axes)}
    numbers = itertools.count()

    def factors(operand: Expr, labels: tuple[Axis, ...]) -> list[Operand]:
        if not isinstance(operand, Einsum):
            return [(operand, labels)]
        table = dict(zip(operand.out, labels, strict=True))
        for axis in contracted(operand):
            table[axis] = replace(axis, name=f"summed{next(numbers)}", primes=0)
        inner = ((e, tuple(table[label] for label in own)) for e, own in operand.operands)
        return [factor for e, own in inner for factor in factors(e, own)]

    flat = factors(expr, tuple(names[axis] for axis in expr.axes))
    return einsum(flat, tuple(names[axis] for axis in axes)).key


def is_fixed_matrix(expr: Einsum, in_place: Collection[str]) -> bool:
    """Whether it is a product of matrices that no step changes, without a value for each sample.

    Args:
        expr: the product.
        in_place: families that steps change.
    """
    fixed = all(symbol.family not in in_place for symbol in inputs_of(expr))
    samples = any(axis.is_sample for axis in expr.axes)
    return fixed and len(expr.axes) == 2 and not samples and bool(contracted(expr))


def in_one_order(expr: Einsum) -> Einsum:
    """A product of two, summed over several labels, with these in the order of what is an array already.

    A factor that is computed for it over groups takes the order of the other one.
    """
    operands = list(expr.operands)
    for position, (operand, labels) in enumerate(operands):
        other, order = operands[1 - position]
        summed = [label for label in labels if label in order and label not in expr.out]
        made = isinstance(operand, Einsum) and not isinstance(other, Einsum)
        if (made or (isinstance(operand, Add) and isinstance(other, Input))) and len(summed) > 1:
            kept = tuple(label for label in labels if label not in summed)
            table = dict(zip(labels, operand.axes, strict=True))
            if _over_groups(kept) and len(kept) == 1:
                now = (*kept, *sorted(summed, key=order.index))
                factors = operand.operands if isinstance(operand, Einsum) else ((operand, operand.axes),)
                operands[position] = Einsum(factors, tuple(table[label] for label in now)), now
    return Einsum(tuple(operands), expr.out)
