"""Products with windows as convolutions: of image, kernel and output, two are read and one is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sifrc.ir import Affine, Axis, Einsum, Expr, Operand
from sifrc.ir.build import einsum
from sifrc.lower.arrays import Gather, Load
from sifrc.lower.products import kept_labels, split_scalars
from sifrc.lower.statements import Contract, Convolve, Reading

__all__ = ["Roles", "as_contraction", "as_convolution", "reading"]

_ROLES = ("image", "output", "kernel")
"""By the slot of a window's relation that is theirs."""


@dataclass(frozen=True)
class Roles:
    """A product with windows, its factors by what they are.

    Args:
        operands: role -> factor, for the two that are read.
        written: the third role.
        windows: the relations and their labels.
    """

    operands: Mapping[str, Operand]
    written: str
    windows: tuple[tuple[Affine, tuple[Axis, ...]], ...]


def as_convolution(expr: Einsum, layer: int | None) -> tuple[list[Expr], Einsum, Roles] | None:
    """Scalars, and the product of the others as a convolution; None where it is none."""
    # Most products have no relations: nothing is looked for in them.
    if not any(isinstance(operand, Affine) for operand, _ in expr.operands):
        return None
    factors, rest = split_scalars(expr, layer)
    if not isinstance(rest, Einsum) or (roles := _roles_of(rest)) is None:
        return None
    return factors, rest, roles


def _roles_of(expr: Einsum) -> Roles | None:
    relations = [(e, labels) for e, labels in expr.operands if isinstance(e, Affine)]
    if not 1 <= len(relations) <= 3 or not all(map(_is_window, relations)):
        return None
    marks = {role: {labels[slot] for _, labels in relations} for slot, role in enumerate(_ROLES)}
    if len(set().union(*marks.values())) != 3 * len(relations):
        return None
    sides: dict[str, list[Operand]] = {role: [] for role in _ROLES}
    floating: list[Operand] = []
    for operand in expr.operands:
        if isinstance(operand[0], Affine):
            continue
        found = [role for role in _ROLES if marks[role] & set(operand[1])]
        if len(found) > 1 or len(set(operand[1])) < len(operand[1]):
            return None
        (sides[found[0]] if found else floating).append(operand)
    written = [role for role in _ROLES if marks[role] & set(expr.out)]
    if len(written) != 1 or not marks[written[0]] <= set(expr.out) or sides[written[0]]:
        return None
    read = [role for role in _ROLES if role != written[0]]
    labels = {role: {label for _, own in sides[role] for label in own} for role in read}
    for operand in floating:
        fitting = [role for role in read if set(operand[1]) <= labels[role]]
        if not fitting:
            return None
        sides[fitting[0]].append(operand)
    labels[written[0]] = set(expr.out)
    everything = set().union(*labels.values())
    if not all(marks[role] <= labels[role] for role in _ROLES):
        return None
    others = everything - set().union(*marks.values())
    # A label is of two roles, as channels are; groups of channels are of all three.
    if any(sum(label in labels[role] for role in _ROLES) < 2 for label in others):
        return None
    return Roles({role: _as_one(sides[role]) for role in read}, written[0], tuple(relations))


def reading(relation: Affine, labels: Sequence[str]) -> Reading:
    """What a relation of windows says of one axis: labels of the image, of the places and of the entries."""
    _, stride, dilation = relation.coefficients
    image, place, entry = labels
    size, places, entries = relation.sizes
    return Reading((image, place, entry), (size, places, entries), -stride, -dilation, -relation.offset)


def _is_window(relation: Operand) -> bool:
    """Whether the first index is that of a window's entry at a place."""
    node, labels = relation
    assert isinstance(node, Affine)
    if len(node.sizes) != 3 or len(set(labels)) < 3:
        return False
    first, *others = node.coefficients
    return first == 1 and all(coefficient < 0 for coefficient in others)


def _as_one(operands: Sequence[Operand]) -> Operand:
    """Factors of one role, entry by entry."""
    if len(operands) == 1:
        return operands[0]
    axes = kept_labels(operands, {label for _, labels in operands for label in labels})
    return einsum(operands, axes), axes


def as_contraction(statement: Convolve) -> Contract:
    """The convolution as a matrix product, where one array is read in windows."""
    transposed = statement.written == "image"
    read = statement.output if transposed else statement.image
    for reading in statement.axes:
        image, place, entry = reading.labels
        sizes, stride, dilation, padding = reading.sizes, reading.stride, reading.dilation, reading.padding
        if transposed:
            gather = Gather(read.labels.index(place), (sizes[0], sizes[2]), (1, -dilation), padding, stride)
            read = _gathered(read, gather, (image, entry))
        else:
            gather = Gather(read.labels.index(image), sizes[1:], (stride, dilation), -padding)
            read = _gathered(read, gather, (place, entry))
    other = statement.output if statement.written == "kernel" else statement.kernel
    return Contract(statement.target, read, other, statement.scale, statement.loads)


def _gathered(load: Load, gather: Gather, labels: tuple[str, ...]) -> Load:
    """The load with a dimension read elsewhere."""
    position = gather.position
    names = (*load.labels[:position], *labels, *load.labels[position + 1 :])
    return replace(load, labels=names, changes=(*load.changes, gather))
