"""Products with vectors of positions: the axes of an image, which a position counts as one, are made one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sifrc.ir import Affine, Axis, Einsum, Operand
from sifrc.ir.build import einsum
from sifrc.lower.arrays import Reshape
from sifrc.lower.products import kept_labels

if TYPE_CHECKING:
    from sifrc.lower.classes import Classes

__all__ = ["with_images_as_one"]


def with_images_as_one(expr: Einsum, classes: Classes) -> Einsum:
    """The product with the axes of images that positions count as one axis.

    A factor that is read at positions is an array in another shape. What is added at positions is a product
    of its own, which is read in the shape of the image.
    """
    for vector in expr.operands:
        relation = _joins(vector, expr) if classes.are_indices(vector[0]) else None
        if relation is None:
            continue
        (*_, position), (_, *parts) = vector[1], relation[1]
        others = [op for op in expr.operands if op not in (vector, relation)]
        there = [op for op in others if set(parts) & set(op[1])]
        rest = [op for op in others if op not in there]
        if set(parts) <= set(expr.out):
            needed = {*expr.out, position, *(label for _, labels in there for label in labels)}
            kept = (*(a for a in kept_labels([vector, *rest], needed) if a != position), position)
            whole = einsum([vector, *rest], kept), kept
            return Einsum((whole, relation, *there), expr.out)
        if there and not set(parts) & set(expr.out):
            needed = {*expr.out, *vector[1], *(label for _, labels in rest for label in labels)}
            image = _together(there, tuple(parts), needed)
            start = image[1].index(parts[0])
            joined = Reshape(start, tuple(axis.entries for axis in parts), joins=True)
            labels = (*image[1][:start], position, *image[1][start + len(parts) :])
            read = classes.changed(classes.buffer(image[0]), joined), labels
            return with_images_as_one(Einsum((vector, read, *rest), expr.out), classes)
    return expr


def _joins(vector: Operand, expr: Einsum) -> Operand | None:
    """What says which axes of an image the last one of a vector is, if nothing else has that one."""
    position = vector[1][-1]
    having = [op for op in expr.operands if op != vector and position in op[1]]
    if len(having) != 1 or position in expr.out:
        return None
    ((relation, labels),) = having
    joins = isinstance(relation, Affine) and relation.joins
    return having[0] if joins and labels[0] == position and len(set(labels)) == len(labels) else None


def _together(factors: list[Operand], parts: tuple[Axis, ...], needed: set[Axis]) -> Operand:
    """Some factors as one, with some labels next to each other."""
    if len(factors) == 1:
        labels = factors[0][1]
        start = labels.index(parts[0]) if parts[0] in labels else 0
        if labels[start : start + len(parts)] == parts and len(set(labels)) == len(labels):
            return factors[0]
    axes = (*(label for label in kept_labels(factors, needed) if label not in parts), *parts)
    return einsum(factors, axes), axes
