"""Layers that read a few neighbouring places: convolutions and pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sifrc.spec.items import Item
from sifrc.spec.layers.record import LayerType, Owner, Resolved, Site
from sifrc.spec.positions import Path, Positions
from sifrc.spec.schema import LayerShape
from sifrc.spec.suggest import did_you_mean, shortened
from sifrc.spec.types import LayerSpec, Sizes, WindowSpec
from sifrc.spec.words import size_text

__all__ = ["CONV", "POOL", "window_spec", "windowed_shape"]

_POOLINGS = ("average", "max")
"""What a pooling layer makes of a window."""
_LARGEST = 1_000_000


def window_spec(layer: LayerShape, shape: tuple[int, ...], path: Path, positions: Positions) -> WindowSpec:
    """The windows of a layer on a state of channels and places.

    Args:
        layer: as written, of type ``conv`` or ``pool``.
        shape: sizes of the axes of its input.
        path: of the layer.
        positions: places, for errors.

    Raises:
        SpecError: an input without places, a value for another number of axes, a window larger than its
            input, groups that do not divide the channels.
    """
    axes = len(shape) - 1
    if not 1 <= axes <= 3:
        raise positions.error(
            path,
            f"{layer.type} layer takes channels at places, of one to three axes, not {size_text(shape)}",
            hint="e.g. an input of size: [3, 32, 32]",
        )
    if layer.kernel is None:
        raise positions.error(
            path, f"{layer.type} layer has no kernel", hint="add kernel: 3, or one size an axis: [3, 3]"
        )
    kernel = _per_axis(layer.kernel, axes, (*path, "kernel"), positions)
    default = kernel if layer.type == "pool" else 1
    stride = _per_axis(layer.stride or default, axes, (*path, "stride"), positions)
    dilation = _per_axis(layer.dilation or 1, axes, (*path, "dilation"), positions)
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    padding = _padding(layer.padding, reach, stride, (*path, "padding"), positions)
    pooling = (layer.function or "") if layer.type == "pool" else ""
    window = WindowSpec(kernel, stride, dilation, padding, _groups(layer, shape[0], path, positions), pooling)
    if pooling == "max" and any(max(pair) >= entries for pair, entries in zip(padding, kernel, strict=True)):
        raise positions.error(
            (*path, "padding"),
            "there would be windows of nothing but padding, which have no largest entry",
            hint="a padding smaller than the kernel",
        )
    for axis, (size, (before, after), entries) in enumerate(zip(shape[1:], padding, reach, strict=True)):
        if size + before + after < entries:
            raise positions.error(
                (*path, "kernel"),
                f"a window of {entries} entries does not fit into axis {axis + 2} of the input, of {size} "
                f"entries and {before + after} of padding",
                hint="make the kernel smaller, or the padding larger",
            )
    return window


def windowed_shape(window: WindowSpec, places: tuple[int, ...]) -> tuple[int, ...]:
    """Places of the output, from those of the input.

    Example:
        >>> windowed_shape(WindowSpec((3, 3), (2, 2), (1, 1), ((1, 1), (1, 1))), (32, 33))
        (16, 17)
    """
    return tuple(
        (size + before + after - d * (k - 1) - 1) // s + 1
        for size, (before, after), d, k, s in zip(
            places, window.padding, window.dilation, window.kernel, window.stride, strict=True
        )
    )


def _per_axis(
    value: int | tuple[int, ...] | list[int], axes: int, path: Path, positions: Positions
) -> tuple[int, ...]:
    """A number for each axis of places."""
    if isinstance(value, int):
        return (value,) * axes
    if len(value) != axes:
        raise positions.error(
            path, f"{len(value)} numbers for {axes} axes of places", hint="one number for all, or one an axis"
        )
    return tuple(value)


def _padding(
    value: Any, reach: tuple[int, ...], stride: tuple[int, ...], path: Path, positions: Positions
) -> tuple[tuple[int, int], ...]:
    """Entries before and after each axis, which are zero."""
    axes = len(reach)
    if value is None or value == "valid":
        return ((0, 0),) * axes
    if value == "same":
        if any(step != 1 for step in stride):
            raise positions.error(
                path, "padding 'same' goes with a stride of 1", hint="give numbers, e.g. padding: 1"
            )
        # What is odd comes after, as in PyTorch.
        return tuple(((entries - 1) // 2, entries // 2) for entries in reach)
    hint = "a number, one an axis, a pair [before, after] an axis, same or valid"
    if isinstance(value, str):
        raise positions.error(
            path, f"unknown padding '{value}'", hint=hint, label=did_you_mean(value, ("same", "valid"))
        )
    items = value if isinstance(value, list) else [value] * axes
    if len(items) != axes:
        raise positions.error(path, f"{len(items)} paddings for {axes} axes of places", hint=hint)
    return tuple(_pair(item, path, positions, hint) for item in items)


def _pair(item: Any, path: Path, positions: Positions, hint: str) -> tuple[int, int]:
    both = item if isinstance(item, list) else [item, item]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= _LARGEST for n in both)
    if len(both) != 2 or not whole:
        raise positions.error(path, "a padding is a whole number from 0, or two", hint=hint)
    return both[0], both[1]


def _groups(layer: LayerShape, channels: int, path: Path, positions: Positions) -> int:
    groups = layer.groups or 1
    for name, count in (("of the input", channels), ("of the layer", layer.channels or groups)):
        if count % groups:
            raise positions.error(
                (*path, "groups"),
                f"{groups} groups do not divide {count} channels {name}",
                hint="groups divide the channels of both",
            )
    return groups


def _conv(site: Site) -> Resolved:
    window = window_spec(site.item.written, site.shape, site.item.path, site.positions)
    return Resolved((_channels(site.item, site), *windowed_shape(window, site.shape[1:])), window)


def _pool(site: Site) -> Resolved:
    window = window_spec(site.item.written, site.shape, site.item.path, site.positions)
    function = site.item.written.function
    if function not in _POOLINGS:
        message = "has no function" if function is None else f"cannot be '{shortened(function)}'"
        raise site.error(
            "function",
            f"pool layer '{site.item.name}' {message}",
            hint=f"function: {' or '.join(_POOLINGS)}",
        )
    return Resolved((site.shape[0], *windowed_shape(window, site.shape[1:])), window)


def _channels(item: Item, site: Site) -> int:
    """Channels of the output of a convolution, its own or those of the layer whose parameters it shares."""
    own = item.written.channels
    owner = site.known[item.written.share].written.channels if item.written.share is not None else own
    if owner is None:
        raise site.positions.error(
            item.path,
            f"conv layer '{item.name}' has no channels",
            hint="add channels: 16, or share: and the name of another convolution",
        )
    if own not in (None, owner):
        raise site.error(
            "channels",
            f"'{item.name}' has {own} channels, '{item.written.share}' whose parameters it shares has "
            f"{owner}",
            hint="leave channels out in a layer that shares",
        )
    return owner


def _conv_owners(layer: LayerSpec) -> tuple[Owner, ...]:
    window = layer.window
    assert window is not None

    def weight(inputs: tuple[Sizes, ...]) -> Sizes:
        return (layer.shape[0], inputs[0][0] // window.groups, *window.kernel)

    return (Owner(weight, layer.bias),)


def _written(layer: LayerSpec) -> Mapping[str, Any]:
    window = layer.window
    assert window is not None
    lists: dict[str, Any] = {"kernel": list(window.kernel), "stride": list(window.stride)}
    lists["padding"] = [list(pair) for pair in window.padding]
    if layer.kind == "pool":
        return {"function": window.pooling, **lists}
    return {**lists, "dilation": list(window.dilation), "groups": window.groups, "channels": layer.shape[0]}


CONV = LayerType(
    "conv",
    (
        *("channels", "kernel", "stride", "padding", "dilation", "groups"),
        *("bias", "share", "init", "activation", "parameters"),
    ),
    _conv,
    owners=_conv_owners,
    written=_written,
)
POOL = LayerType("pool", ("function", "kernel", "stride", "padding"), _pool, written=_written)
