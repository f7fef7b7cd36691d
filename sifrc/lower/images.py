"""The largest entry of the window of each place of an image: maxima along the entries of its windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from sifrc.ir import Affine, ArgMax, Axis, Einsum, Expr, Map, Operand, Reduce
from sifrc.ir.build import einsum
from sifrc.ir.selections import joined
from sifrc.scalar.branches import substituted

__all__ = ["ImageMaximum", "image_maximum"]

_LEAST = -(10**30)
"""What stands for an entry that is not there is at most this: no maximum is taken there."""
_MOST = 64
"""Entries of a window that may be compared one after the other."""


@dataclass(frozen=True)
class ImageMaximum:
    """The largest entry of the window of each place.

    Args:
        node: all of it: maxima along one entry after the other, that along the last one first.
        entries: axes of the windows, in order.
        image: what is read, with its labels: the last of them are those of its places.
        relations: which place of the image is which entry of the window of which place, axis by axis, with
            these three labels.
        masked: the entries of the windows as a function of what is read and of whether it is there, if some
            windows reach beyond the image.
    """

    node: Reduce
    entries: tuple[Axis, ...]
    image: Operand
    relations: tuple[tuple[Affine, tuple[Axis, ...]], ...]
    masked: Map | None

    @property
    def masks(self) -> tuple[tuple[ArgMax, tuple[Axis, ...]], ...]:
        """1 at the largest along one entry, for each of them: their product is 1 at the largest of all."""
        found, inner = [], self.node
        for entry in self.entries:
            assert isinstance(inner, Reduce)
            mask = ArgMax(inner.operand, entry)
            found.append((mask, mask.axes))
            inner = inner.operand  # type: ignore[assignment]
        return tuple(found)

    @property
    def read(self) -> tuple[Axis, ...]:
        """Labels of the places of the image."""
        return tuple(labels[0] for _, labels in self.relations)

    @property
    def size(self) -> int:
        """Number of the places of the image."""
        return prod(axis.entries for axis in self.read)

    def places(self, position: Axis, read: Sequence[Axis]) -> list[Operand]:
        """What says which position in the image is at which of its places; nothing where it has one axis."""
        return [(joined(tuple(axis.entries for axis in read)), (position, *read))] if len(read) > 1 else []

    def vector(self, position: Axis) -> Expr:
        """1 at the position in the image of the largest entry of the window of each place."""
        read = self.read if len(self.read) > 1 else (position,)
        table = dict(zip(self.read, read, strict=True))
        relations = [(node, tuple(table.get(a, a) for a in labels)) for node, labels in self.relations]
        return einsum([*self.masks, *relations, *self.places(position, read)], (*self.node.axes, position))

    def is_there(self, expr: Expr) -> bool:
        """Whether an expression is 1 wherever an entry of a window is there: the slope of what is masked."""
        if self.masked is None or not isinstance(expr, Map) or expr.function != self.masked.function:
            return False
        _, inside = expr.function.argument_symbols
        same = expr.operands == self.masked.operands and expr.orders == (1, 0)
        return same and substituted(expr.function.value_form(expr.orders), {inside: 1}) == 1


def image_maximum(node: Reduce) -> ImageMaximum | None:
    """A maximum as one over windows of an image; None where it is none, or windows have no entry, or many."""
    entries: list[Axis] = []
    values: Expr = node
    while isinstance(values, Reduce) and values.kind == "max":
        entries.append(values.over)
        values = values.operand
    masked = values if isinstance(values, Map) else None
    product = values if masked is None else _of_there(masked)
    if not isinstance(product, Einsum) or not entries or prod(axis.entries for axis in entries) > _MOST:
        return None
    relations = [(e, labels) for e, labels in product.operands if isinstance(e, Affine)]
    rest = [operand for operand in product.operands if not isinstance(operand[0], Affine)]
    own = {labels[-1]: (e, labels) for e, labels in relations if len(labels) == 3}
    if len(rest) != 1 or set(own) != set(entries) or len(relations) != len(entries):
        return None
    windows = [own[entry] for entry in entries]
    image, places, count = rest[0], node.axes, len(entries)
    if not all(_is_window(*each) for each in windows) or len(places) <= count:
        return None
    read, at = (tuple(labels[slot] for _, labels in windows) for slot in (0, 1))
    before = places[:-count]
    if image[1] != (*before, *read) or places[-count:] != at or len({*places, *read}) < len(places) + count:
        return None
    reach = [_reach(relation) for relation, _ in windows]
    if not all(inside for inside, _ in reach) or (any(out for _, out in reach) and masked is None):
        return None
    return ImageMaximum(node, tuple(entries), image, tuple(windows), masked)


def _of_there(masked: Map) -> Expr | None:
    """The values of a function that gives them where they are there, and else less than everything."""
    if len(masked.operands) != 2 or any(masked.orders):
        return None
    (values, labels), (inside, of_inside) = masked.operands
    _, there = masked.function.argument_symbols
    form = masked.function.value_form(masked.orders)
    absent = substituted(form, {there: 0})
    if substituted(form, {there: 1}) != masked.function.argument_symbols[0]:
        return None
    if not absent.is_number or not absent <= _LEAST:
        return None
    if labels != values.axes or of_inside != inside.axes or not isinstance(values, Einsum):
        return None
    # There is what the same relations give of ones.
    relations = [operand for operand in values.operands if isinstance(operand[0], Affine)]
    return values if inside is einsum(relations, inside.axes) else None


def _is_window(relation: Affine, labels: tuple[Axis, ...]) -> bool:
    """Whether the first index is that of an entry of the window of a place."""
    first, *others = relation.coefficients
    return first == 1 and all(other < 0 for other in others) and len(set(labels)) == 3


def _reach(relation: Affine) -> tuple[bool, bool]:
    """Whether every window has an entry of the image, and whether some reaches beyond it."""
    size, places, entries = relation.sizes
    _, stride, dilation = relation.coefficients
    found = [
        [0 <= relation.offset - stride * place - dilation * entry < size for entry in range(entries)]
        for place in range(places)
    ]
    return all(map(any, found)), not all(map(all, found))
