"""Products with windows whose channels are in groups, as convolutions of each group.

Channels in groups are one axis of groups and channels: c = g · C + c'. In such a product two arrays have such
an axis with the same g. Read, or written, with both axes apart, it is a convolution in which g is a label of
all three of image, kernel and output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from sifrc.ir import SAMPLE, Affine, Axis, Einsum, Expr, Input, Operand, Role
from sifrc.lower.arrays import Change, Reshape
from sifrc.lower.convolutions import as_convolution
from sifrc.lower.products import split_scalars

__all__ = ["Grouped", "as_grouped"]


@dataclass(frozen=True)
class Grouped:
    """A product whose channels are in groups.

    Args:
        scalars: factors without labels.
        operands: the others, without the relations that make one axis of two.
        out: labels of the result, with both of these.
        whole: label of the result's axis of channels.
        parts: what the channels are, by the label of their axis.
    """

    scalars: tuple[Expr, ...]
    operands: tuple[Operand, ...]
    out: tuple[Axis, ...]
    whole: Axis
    parts: dict[Axis, tuple[Axis, Axis]]

    def product(self, buffer: Callable[[Expr], Input], changed: Callable[[Input, Change], Input]) -> Einsum:
        """The product of arrays with groups and channels apart.

        Args:
            buffer: an expression in an array of its own.
            changed: an array in another shape.
        """

        def apart(expr: Expr, change: Change) -> Input:
            return changed(buffer(expr), change)

        return _apart(self.operands, self.parts, self.out, apart)

    @property
    def joined(self) -> Reshape:
        """How the result becomes what is asked for."""
        group, channel = self.parts[self.whole]
        return Reshape(self.out.index(group), (group.entries, channel.entries), joins=True)


def as_grouped(expr: Einsum, layer: int | None) -> Grouped | None:
    """A product with windows and channels in groups; None where it is another one."""
    # A window and the channels of two arrays: most products have fewer relations.
    if sum(isinstance(operand, Affine) for operand, _ in expr.operands) < 3:
        return None
    scalars, rest = split_scalars(expr, layer)
    if not isinstance(rest, Einsum):
        return None
    for pair in _pairs(rest):
        others = tuple(operand for operand in rest.operands if operand not in pair)
        parts = {whole: (group, channel) for _, (whole, group, channel) in pair}
        ((group, _), _) = parts.values()
        if group in {*rest.out, *(label for _, labels in others for label in labels)}:
            continue
        wholes = [label for label in rest.out if label in parts]
        if len(wholes) != 1:
            continue
        (whole,) = wholes
        place = rest.out.index(whole)
        out = (*rest.out[:place], *parts[whole], *rest.out[place + 1 :])
        if as_convolution(_apart(others, parts, out, _stand_in), layer) is not None:
            return Grouped(tuple(scalars), others, out, whole, parts)
    return None


def _pairs(expr: Einsum) -> Iterator[tuple[Operand, Operand]]:
    """Two relations that make one axis of groups and channels, with the same groups."""
    joins = [
        (e, labels) for e, labels in expr.operands if isinstance(e, Affine) and e.joins and len(labels) == 3
    ]
    for first, second in combinations(joins, 2):
        if first[1][1] == second[1][1] and first[1][0] != second[1][0]:
            yield first, second


def _apart(
    operands: tuple[Operand, ...],
    parts: dict[Axis, tuple[Axis, Axis]],
    out: tuple[Axis, ...],
    apart: Callable[[Expr, Change], Input],
) -> Einsum:
    found: list[Operand] = []
    for expr, labels in operands:
        for whole, (group, channel) in parts.items():
            if whole in labels and not isinstance(expr, Affine):
                position = labels.index(whole)
                sizes = group.entries, channel.entries
                expr = apart(expr, Reshape(position, sizes, joins=False))
                labels = (*labels[:position], group, channel, *labels[position + 1 :])
        found.append((expr, labels))
    return Einsum(tuple(found), out)


def _stand_in(expr: Expr, change: Change) -> Input:
    """A symbol with as many axes as what is made of an expression."""
    sizes = change.of(tuple(axis.size for axis in expr.axes))
    axes = tuple(SAMPLE if n is None else Axis(f"{number}", n) for number, n in enumerate(sizes))
    return Input("stand-in", None, axes, Role.STATE)
