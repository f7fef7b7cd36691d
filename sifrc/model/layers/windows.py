"""Layers that read windows: products with constants that say what is read where."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import sympy

from sifrc.ir import Axis, Expr, Input, Operand
from sifrc.ir.build import apply, einsum, scale, total
from sifrc.ir.nodes import Reduce
from sifrc.ir.selections import joined, window
from sifrc.model.layers.building import Building
from sifrc.scalar import ScalarFunction
from sifrc.spec.types import WindowSpec

__all__ = ["UNLESS_OUTSIDE", "conv", "pool"]

_X, _INSIDE = sympy.symbols("x inside", real=True)
UNLESS_OUTSIDE = ScalarFunction(
    "unless outside",
    ("x", "inside"),
    sympy.Piecewise((_X, Fraction(1, 2) < _INSIDE), (-(sympy.Integer(10) ** 30), True)),
)
"""An entry that is there, or less than all that are."""


def conv(building: Building) -> Expr:
    """Σ W x + β on the windows of a layer."""
    owned, windows = building.parameters(), building.layer.window
    assert windows is not None
    return _convolution(owned.weight, owned.bias, building.source, building.axes, windows)


def pool(building: Building) -> Expr:
    """Means or largest entries of the windows of a layer."""
    assert building.layer.window is not None
    return _pooling(building.source, building.axes, building.layer.window)


def _convolution(
    weight: Input, bias: Input | None, source: Input, axes: tuple[Axis, ...], windows: WindowSpec
) -> Expr:
    """Σ W x + β over the channels and the window of each place.

    Args:
        weight: over (channels, channels of the input in a group, entries of the window).
        bias: over the channels, or None.
        source: over (channels, places).
        axes: of the result: channels and places.
        windows: what is read at each place.
    """
    channels, *places = axes
    inputs, *_ = source.axes
    out, own, *entries = weight.axes
    operands = _read(tuple(places), tuple(entries), source.axes[1:], windows)
    if windows.groups > 1:
        group = Axis("channel group", windows.groups)
        outs = Axis("channel of a group", out.entries // windows.groups)
        operands.append((joined((windows.groups, outs.entries)), (channels, group, outs)))
        operands.append((joined((windows.groups, own.entries)), (inputs, group, own)))
    else:
        own = inputs
    operands.append((weight, (channels, own, *entries)))
    operands.append((source, source.axes))
    terms = [einsum(operands, axes)]
    if bias is not None:
        terms.append(einsum([(bias, (channels,))], axes))
    return total(terms, axes)


def _pooling(source: Input, axes: tuple[Axis, ...], windows: WindowSpec) -> Expr:
    """The mean or the largest entry of the window of each place, channel by channel.

    What is padded counts in a mean, and is smaller than everything else.

    Args:
        source: over (channels, places).
        axes: of the result: channels and places.
        windows: what is read at each place.
    """
    channels, *places = axes
    entries = tuple(Axis(f"entry {n}", size) for n, size in enumerate(windows.kernel))
    operands = _read(tuple(places), entries, source.axes[1:], windows)
    read = (source, (channels, *source.axes[1:]))
    if windows.pooling == "average":
        return scale(Fraction(1, prod(windows.kernel)), einsum([*operands, read], axes))
    values = einsum([*operands, read], (*axes, *entries))
    if any(pair != (0, 0) for pair in windows.padding):
        inside = einsum(operands, (*places, *entries))
        values = apply(UNLESS_OUTSIDE, values, inside)
    for entry in reversed(entries):
        values = Reduce(values, entry)
    return values


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
