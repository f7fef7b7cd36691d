"""Affine relations of indices in index notation: an index that is read elsewhere, as x[2i+a−1]."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sifrc.derive.recurrence import is_shift
from sifrc.ir import Affine, Axis, Einsum, Expr, Operand
from sifrc.ir.traverse import postorder

__all__ = ["Place", "affine_text", "delta_indices", "index_names", "places_of"]

_MOST = 3
"""Indices of a relation that joins axes and is written as a sum; what joins more is clearer as it is."""


@dataclass(frozen=True)
class Place:
    """An index as a sum of others.

    Args:
        relation: that says so.
        labels: of the relation.
        slot: which of them it is.
    """

    relation: Affine
    labels: tuple[Axis, ...]
    slot: int

    def terms(self, letters: Mapping[Axis, str]) -> tuple[list[tuple[int, str]], int]:
        """Coefficients and letters of the others, and the offset."""
        sign = self.relation.coefficients[self.slot]
        others = enumerate(zip(self.relation.coefficients, self.labels, strict=True))
        terms = [(-sign * c, letters[label]) for slot, (c, label) in others if slot != self.slot]
        return sorted(terms, key=lambda term: term[0] < 0), sign * self.relation.offset


def places_of(operands: Sequence[Operand], out: Sequence[Axis]) -> tuple[list[Operand], dict[Axis, Place]]:
    """The operands of a product without relations that can be read off an index, and these indices."""
    rest, places = list(operands), dict[Axis, Place]()
    for operand in operands:
        relation, labels = operand
        if not isinstance(relation, Affine) or set(labels) & set(places):
            continue
        others = [label for other in rest if other is not operand for label in other[1]]
        slots = (0,) if relation.joins else range(len(labels))
        for slot, label in (
            (slot, labels[slot]) for slot in slots if len(labels) <= _MOST or not relation.joins
        ):
            # What several factors have is read at one place, where two indices alone are related.
            few = others.count(label) == 1 or (len(labels) == 2 and label in others)
            alone = abs(relation.coefficients[slot]) == 1 and label not in out and few
            if alone and not any(label in place.labels for place in places.values()):
                places[label] = Place(relation, labels, slot)
                rest.remove(operand)
                break
    return rest, places


def index_names(value: Expr, letters: Iterator[str]) -> dict[Axis, str]:
    """Letters of the axes of an expression: t for one that is read at steps before or after.

    Args:
        value: the expression.
        letters: of the others, in order.
    """
    products = (node for node in postorder(value) if isinstance(node, Einsum))
    shifts = [labels for node in products for expr, labels in node.operands if is_shift(expr)]
    steps = [axis for axis in value.axes if any(axis in labels for labels in shifts)][:1]
    return {axis: "t" if axis in steps else next(letters) for axis in value.axes}


def affine_text(terms: Sequence[tuple[int, str]], offset: int) -> str:
    """Σ coefficient · index + offset.

    Example:
        >>> affine_text([(2, "i"), (1, "a")], -1)
        '2i+a−1'
    """
    signed = [*terms, *([(1 if offset > 0 else -1, str(abs(offset)))] if offset else [])]
    text = "".join(f"{'+' if c > 0 else '−'}{'' if abs(c) == 1 else abs(c)}{name}" for c, name in signed)
    return text.removeprefix("+") or "0"


def delta_indices(relation: Affine, letters: Sequence[str]) -> tuple[str, str]:
    """Both sides of a relation, as the indices of a delta.

    Example:
        >>> delta_indices(Affine((8, 4, 3), (1, -2, -1), -1), "mia")
        ('m', '2i+a−1')
        >>> delta_indices(Affine((6, 2, 3), (1, -3, -1)), "mij")
        ('m', '(ij)')
    """
    whole, *parts = letters
    if relation.joins:
        return whole, f"({''.join(parts)})"
    sign = 1 if relation.coefficients[0] > 0 else -1
    others = [(-sign * c, name) for c, name in zip(relation.coefficients[1:], parts, strict=True)]
    return affine_text([(sign * relation.coefficients[0], whole)], 0), affine_text(
        others, sign * relation.offset
    )
