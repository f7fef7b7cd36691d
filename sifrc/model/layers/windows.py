"""Layers that read windows: products with constants that say what is read where."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import prod

from sifrc.ir import Axis, Expr, Input, Operand
from sifrc.ir.build import apply, einsum, scale, total
from sifrc.ir.nodes import Reduce
from sifrc.ir.selections import joined, window
from sifrc.model.layers.adaptive import adaptive
from sifrc.model.layers.building import Building
from sifrc.model.layers.masks import UNLESS_OUTSIDE
from sifrc.model.layers.shapes import padded
from sifrc.model.parameters import LayerParameters
from sifrc.scalar import RECIPROCAL
from sifrc.spec.types import AdaptiveSpec, WindowSpec

__all__ = ["conv", "pool"]


def conv(building: Building) -> Expr:
    """Σ W x + β on the windows of a layer, of its input or of its output."""
    owned, windows, source = building.parameters(), building.layer.window, building.source
    assert windows is not None
    if windows.transposed:
        return _convolution(owned, source, building.axes, windows)
    if windows.mode != "zeros" and any(pair != (0, 0) for pair in windows.padding):
        source = _surrounded(building, windows)
        windows = replace(windows, padding=((0, 0),) * len(windows.kernel))
    return _convolution(owned, source, building.axes, windows)


def _surrounded(building: Building, windows: WindowSpec) -> Input:
    """The source with entries of its own around its axes of places."""
    source = building.source
    sizes = [axis.entries for axis in source.axes]
    sizes[1:] = [n + sum(pair) for n, pair in zip(sizes[1:], windows.padding, strict=True)]
    axes = building.inner("padded", [Axis("padded", size) for size in sizes])
    return building.state("padded", padded(source, ((0, 0), *windows.padding), windows.mode, axes))


def pool(building: Building) -> Expr:
    """Means or largest entries of the windows of a layer."""
    settings = building.layer.settings
    if isinstance(settings, AdaptiveSpec):
        return adaptive(building, settings)
    assert isinstance(settings, WindowSpec)
    return _pooling(building.source, building.axes, settings)


def _convolution(owned: LayerParameters, source: Expr, axes: tuple[Axis, ...], windows: WindowSpec) -> Expr:
    """Σ W x + β over the channels of the input and the window of each place.

    Args:
        owned: weight over (channels, channels of the input in a group, entries of the window); where windows
            are of the output, over (channels of the input, channels in a group, …). Bias over channels.
        source: over (channels, places).
        axes: of the result: channels and places.
        windows: what is read at each place, or written by it.
    """
    (channels, *places), (inputs, *read) = axes, source.axes
    rows, own, *entries = owned.weight.axes
    first, second = (inputs, channels) if windows.transposed else (channels, inputs)
    image, at = (places, read) if windows.transposed else (read, places)
    operands = _read(tuple(at), tuple(entries), tuple(image), windows)
    if windows.groups > 1:
        group = Axis("channel group", windows.groups)
        of_rows = Axis("channel of a group", rows.entries // windows.groups)
        operands.append((joined((windows.groups, of_rows.entries)), (first, group, of_rows)))
        operands.append((joined((windows.groups, own.entries)), (second, group, own)))
    else:
        own = second
    operands.append((owned.weight, (first, own, *entries)))
    operands.append((source, source.axes))
    terms = [einsum(operands, axes)]
    if owned.bias is not None:
        terms.append(einsum([(owned.bias, (channels,))], axes))
    return total(terms, axes)


def _pooling(source: Expr, axes: tuple[Axis, ...], windows: WindowSpec) -> Expr:
    """The mean or the largest entry of the window of each place, channel by channel.

    What is padded counts in a mean, if the layer does not say otherwise, and is smaller than everything else.

    Args:
        source: over (channels, places).
        axes: of the result: channels and places.
        windows: what is read at each place.
    """
    channels, *places = axes
    entries = tuple(Axis(f"entry {n}", size) for n, size in enumerate(windows.kernel))
    operands = _read(tuple(places), entries, source.axes[1:], windows)
    read = (source, (channels, *source.axes[1:]))
    if windows.inside:
        count = apply(RECIPROCAL, einsum(operands, tuple(places)))
        return einsum([*operands, read, (count, tuple(places))], axes)
    if windows.pooling == "average" and windows.beyond:
        return einsum([*operands, read, *_shares(tuple(places), source.axes[1:], windows)], axes)
    if windows.pooling == "average":
        return scale(Fraction(1, prod(windows.kernel)), einsum([*operands, read], axes))
    values = einsum([*operands, read], (*axes, *entries))
    if any(pair != (0, 0) for pair in windows.padding):
        inside = einsum(operands, (*places, *entries))
        values = apply(UNLESS_OUTSIDE, values, inside)
    for entry in reversed(entries):
        values = Reduce(values, entry)
    return values


def _shares(places: tuple[Axis, ...], read: tuple[Axis, ...], windows: WindowSpec) -> list[Operand]:
    """One over the entries of the window of a place that are of the input or its padding, axis by axis."""
    found: list[Operand] = []
    for number, (place, axis) in enumerate(zip(places, read, strict=True)):
        (before, after), kernel = windows.padding[number], windows.kernel[number]
        size = axis.entries + before + after - windows.beyond[number]
        relation = window(size, place.entries, kernel, windows.stride[number], windows.dilation[number])
        counted = einsum([(relation, (Axis("padded", size), place, Axis("entry", kernel)))], (place,))
        found.append((apply(RECIPROCAL, counted), (place,)))
    return found


def _read(
    places: tuple[Axis, ...], entries: tuple[Axis, ...], read: tuple[Axis, ...], windows: WindowSpec
) -> list[Operand]:
    """Which entry of the window of a place is which place of the input, axis by axis."""
    return [
        (
            window(axis.entries, place.entries, entry.entries, stride, dilation, before),
            (axis, place, entry),
        )
        for axis, place, entry, stride, dilation, (before, _) in zip(
            read, places, entries, windows.stride, windows.dilation, windows.padding, strict=True
        )
    ]
