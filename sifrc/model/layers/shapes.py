"""Layers that read their inputs in another shape or at other places: products with constant relations."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from sifrc.ir import Affine, Axis, Expr, Operand
from sifrc.ir.build import add, einsum, rename, total
from sifrc.ir.selections import joined
from sifrc.model.layers.building import Building
from sifrc.spec.layers.shapes import AxisSpec, PadSpec, PermuteSpec, SliceSpec, StridedSpec, UpsampleSpec

__all__ = [
    "concatenate",
    "pad",
    "padded",
    "permute",
    "reshape",
    "side_by_side",
    "slice_",
    "strided",
    "upsample",
]


def reshape(building: Building) -> Expr:
    """The entries in their order, the last axis running fastest, in another shape."""
    source, axes = building.source, building.axes
    if source.axes and [a.size for a in source.axes] == [a.size for a in axes]:
        return rename(source, axes)
    if not source.axes:
        return einsum([(source, ())], axes)  # a number, along axes of one entry
    whole = Axis("entry", building.layer.size)
    flat: Expr = source
    if len(source.axes) > 1:
        join = joined(tuple(axis.entries for axis in source.axes))
        flat = einsum([(join, (whole, *source.axes)), (source, source.axes)], (whole,))
    if len(axes) == 1:
        return rename(flat, axes)
    return einsum([(joined(tuple(axis.entries for axis in axes)), (whole, *axes)), (flat, (whole,))], axes)


def permute(building: Building) -> Expr:
    """The axes in another order."""
    settings = building.layer.settings
    assert isinstance(settings, PermuteSpec)
    labels = [
        axis for _, axis in sorted(zip(settings.order, building.axes, strict=True), key=lambda at: at[0])
    ]
    return einsum([(building.source, tuple(labels))], building.axes)


def slice_(building: Building) -> Expr:
    """Some entries of an axis: the one at i is that at start + step · i."""
    settings = building.layer.settings
    assert isinstance(settings, SliceSpec)
    read = _read(building.source.axes, building.axes, settings.axis, settings.step, settings.start)
    return einsum([read, (building.source, _labels(building, settings.axis))], building.axes)


def strided(building: Building) -> Expr:
    """Entries of an axis at start + Σ steps · indices."""
    settings, source, axes = building.layer.settings, building.source, building.axes
    assert isinstance(settings, StridedSpec)
    at, count = settings.axis, len(settings.steps)
    old, new = source.axes[at], axes[at : at + count]
    sizes = (old.entries, *(axis.entries for axis in new))
    read = Affine(sizes, (1, *(-step for step in settings.steps)), settings.start)
    labels = (*axes[:at], old, *axes[at + count :])
    return einsum([(read, (old, *new)), (source, labels)], axes)


def concatenate(building: Building) -> Expr:
    """Inputs after each other along an axis: each shifted by those before it, and zero elsewhere."""
    settings = building.layer.settings
    assert isinstance(settings, AxisSpec)
    return side_by_side(building.sources, building.axes, settings.axis)


def side_by_side(sources: Sequence[Expr], axes: tuple[Axis, ...], axis: int) -> Expr:
    """States after each other along an axis, over some axes; one alone as it is."""
    if len(sources) == 1:
        return rename(sources[0], axes)
    terms, start = [], 0
    for source in sources:
        read = _read(source.axes, axes, axis, 1, -start)
        labels = (*axes[:axis], source.axes[axis], *axes[axis + 1 :])
        terms.append(einsum([read, (source, labels)], axes))
        start += source.axes[axis].entries
    return total(terms, axes)


def pad(building: Building) -> Expr:
    """Entries around the axes: zeros, or entries of the axis itself."""
    settings = building.layer.settings
    assert isinstance(settings, PadSpec)
    return padded(building.source, settings.padding, settings.mode, building.axes)


def padded(source: Expr, padding: tuple[tuple[int, int], ...], mode: str, axes: tuple[Axis, ...]) -> Expr:
    """A tensor with entries around its axes, an axis at a time, over the axes of the result."""
    value = source
    grown = [axis for axis, pair in enumerate(padding) if pair != (0, 0)]
    for axis in grown:
        at = axes if axis == grown[-1] else (*value.axes[:axis], axes[axis], *value.axes[axis + 1 :])
        value = _padded(value, axis, padding[axis], mode, at)
    return value if grown else rename(value, axes)


def _padded(value: Expr, axis: int, pair: tuple[int, int], mode: str, axes: tuple[Axis, ...]) -> Expr:
    """One axis with entries before and after it."""
    (before, after), size = pair, value.axes[axis].entries
    # First entry, step and number of the entries that are copied to each place.
    pieces = [(0, 1, size, before)]
    if mode == "circular":
        pieces += [(size - before, 1, before, 0), (0, 1, after, before + size)]
    elif mode == "reflect":
        pieces += [(before, -1, before, 0), (size - 2, -1, after, before + size)]
    elif mode == "replicate":
        pieces += [(0, 0, before, 0), (size - 1, 0, after, before + size)]
    return total([_piece(value, axis, piece, axes) for piece in pieces if piece[2]], axes)


def _piece(value: Expr, axis: int, piece: tuple[int, int, int, int], axes: tuple[Axis, ...]) -> Expr:
    """Some entries of an axis at their place among others."""
    start, step, count, place = piece
    old, out, number = value.axes[axis], axes[axis], Axis("piece", count)
    labels = (*axes[:axis], old, *axes[axis + 1 :])
    if step == 1 and count == old.entries:
        return einsum(
            [(Affine((old.entries, out.entries), (1, -1), -place), (old, out)), (value, labels)], axes
        )
    put = Affine((out.entries, count), (1, -1), place), (out, number)
    if step == 0:
        one = Axis("entry", 1)
        taken = Affine((old.entries, 1), (1, -1), start), (old, one)
        return einsum([put, taken, (value, labels)], axes)
    return einsum(
        [put, (Affine((old.entries, count), (1, -step), start), (old, number)), (value, labels)], axes
    )


def upsample(building: Building) -> Expr:
    """More entries along the axes of places: each one repeated, or joined by lines."""
    settings = building.layer.settings
    assert isinstance(settings, UpsampleSpec)
    grown = [axis for axis, times in enumerate(settings.factor, start=1) if times > 1]
    if not grown:
        return rename(building.source, building.axes)
    value: Expr = building.source
    for axis in grown:
        times = settings.factor[axis - 1]
        axes = (*value.axes[:axis], building.axes[axis], *value.axes[axis + 1 :])
        last = axis == grown[-1]
        if last:
            axes = building.axes
        elif settings.mode != "nearest":
            axes = building.inner(f"places{axis}", axes)
        if settings.mode == "nearest":
            value = _repeated(value, axis, times, axes)
            continue
        ends = Axis("with ends", value.axes[axis].entries + 2)
        whole = _padded(value, axis, (1, 1), "replicate", (*axes[:axis], ends, *axes[axis + 1 :]))
        value = _interpolated(whole, axis, times, axes)
        value = value if last else building.state(f"places{axis}", value)
    return value


def _repeated(value: Expr, axis: int, times: int, axes: tuple[Axis, ...]) -> Expr:
    """Each entry of an axis some times."""
    old, again = value.axes[axis], Axis("again", times)
    read = joined((old.entries, times)), (axes[axis], old, again)
    return einsum([read, (value, (*axes[:axis], old, *axes[axis + 1 :]))], axes)


def _interpolated(value: Expr, axis: int, times: int, axes: tuple[Axis, ...]) -> Expr:
    """Entries on the lines between those of an axis that has one more at either end."""
    old, out = value.axes[axis], axes[axis]
    labels = (*axes[:axis], old, *axes[axis + 1 :])
    place = Axis("place", old.entries - 2)
    terms = []
    for rest in range(times):
        # The middle of a new entry, counted in old ones from the middle of the old one it lies in.
        distance = Fraction(2 * rest + 1, 2 * times) - Fraction(1, 2)
        first = 0 if distance < 0 else 1
        weight = distance % 1
        put = Affine((out.entries, place.entries), (1, -times), rest), (out, place)
        for neighbour, part in ((first, 1 - weight), (first + 1, weight)):
            if part:
                read = Affine((old.entries, place.entries), (1, -1), neighbour), (old, place)
                terms.append((part, einsum([put, read, (value, labels)], axes)))
    return add(terms, axes)


def _read(old: tuple[Axis, ...], axes: tuple[Axis, ...], axis: int, step: int, start: int) -> Operand:
    """1 where an entry of an axis of the input is start + step · that of the output."""
    sizes = old[axis].entries, axes[axis].entries
    return Affine(sizes, (1, -step), start), (old[axis], axes[axis])


def _labels(building: Building, axis: int) -> tuple[Axis, ...]:
    """Labels of the source: those of the output, but for one axis."""
    axes = building.axes
    return (*axes[:axis], building.source.axes[axis], *axes[axis + 1 :])
