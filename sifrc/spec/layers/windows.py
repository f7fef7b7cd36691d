"""Layers that read a few neighbouring places: convolutions and pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sifrc.spec.items import Item
from sifrc.spec.layers.record import LayerType, Owner, Resolved, Site
from sifrc.spec.layers.shapes import PAD_MODES
from sifrc.spec.positions import Path, Positions
from sifrc.spec.schema import LayerShape
from sifrc.spec.suggest import did_you_mean, shortened
from sifrc.spec.types import AdaptiveSpec, LayerSpec, Sizes, WindowSpec
from sifrc.spec.words import size_text

__all__ = ["CONV", "POOL", "window_spec", "windowed_shape"]

_POOLINGS = ("average", "max")
"""What a pooling layer makes of a window."""
_LARGEST = 1_000_000
_MOST_AXES = 3


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
    if not 1 <= axes <= _MOST_AXES:
        raise positions.error(
            path,
            f"{layer.type} layer takes channels at places, of one to three axes, not {size_text(shape)}",
            hint="e.g. an input of size: [3, 32, 32]",
        )
    kernel = _kernel(layer, shape[1:], path, positions)
    default = kernel if layer.type == "pool" else 1
    stride = _per_axis(layer.stride or default, axes, (*path, "stride"), positions)
    dilation = _per_axis(layer.dilation or 1, axes, (*path, "dilation"), positions)
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    padding = _padding(layer.padding, reach, stride, (*path, "padding"), positions)
    pooling = (layer.function or "") if layer.type == "pool" else ""
    beyond: tuple[int, ...] = ()
    if layer.ceil:
        missing = tuple(
            _missing(size + before + after, entries, step, size + before)
            for size, (before, after), entries, step in zip(shape[1:], padding, reach, stride, strict=True)
        )
        padding = tuple((before, after + n) for (before, after), n in zip(padding, missing, strict=True))
        counts = pooling == "average" and layer.count_padding is not False
        beyond = missing if counts and any(missing) else ()
    window = WindowSpec(
        kernel,
        stride,
        dilation,
        padding,
        _groups(layer, shape[0], path, positions),
        pooling,
        _mode(layer, path, positions),
        pooling == "average" and layer.count_padding is False,
        bool(layer.transposed),
        _output_padding(layer, stride, dilation, path, positions),
        beyond,
    )
    if window.transposed:
        _check_transposed(window, shape[1:], path, positions)
        return window
    without = pooling == "max" or window.inside
    if without and any(_reads_nothing(window, axis, size) for axis, size in enumerate(shape[1:])):
        raise positions.error(
            (*path, "padding"),
            "there would be windows of nothing but padding, which have no largest entry and no mean",
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
        most = {"circular": size, "reflect": size - 1}.get(window.mode)
        if most is not None and max(before, after) > most:
            raise positions.error(
                (*path, "padding"),
                f"axis {axis + 2} of {size} entries cannot be padded by {max(before, after)} in mode "
                f"{window.mode}",
                hint=f"at most {most}",
            )
    return window


def _kernel(layer: LayerShape, places: Sizes, path: Path, positions: Positions) -> Sizes:
    """Entries of a window; of pooling to a number of places, those that make so many."""
    if layer.output is None:
        if layer.kernel is None:
            raise positions.error(
                path,
                f"{layer.type} layer has no kernel",
                hint="add kernel: 3, or one size an axis: [3, 3]",
            )
        return _per_axis(layer.kernel, len(places), (*path, "kernel"), positions)
    wanted = _wanted(layer, len(places), path, positions)
    return tuple(size // count for size, count in zip(places, wanted, strict=True))


def _wanted(layer: LayerShape, axes: int, path: Path, positions: Positions) -> Sizes:
    """Places of the output of a pooling layer that names them."""
    for key in ("kernel", "stride", "padding", "dilation", "ceil", "count_padding"):
        if getattr(layer, key) is not None:
            raise positions.error((*path, key), f"'{key}' does not go with output", hint="leave it out")
    assert layer.output is not None
    return _per_axis(layer.output, axes, (*path, "output"), positions)


def _missing(size: int, reach: int, step: int, started: int) -> int:
    """Entries that a last window needs beyond a padded axis, where it begins before the padding after it."""
    windows = -((reach - size) // step) + 1
    windows -= (windows - 1) * step >= started
    return max(0, (windows - 1) * step + reach - size) if windows > 0 else 0


def _reads_nothing(window: WindowSpec, axis: int, size: int) -> bool:
    """Whether a window along an axis has no entry of the input."""
    (before, after), step, gap = window.padding[axis], window.stride[axis], window.dilation[axis]
    last = size + after - gap * (window.kernel[axis] - 1) - 1
    # One that begins in the input reads an entry there, and so does one before it that reaches the input.
    firsts = range(-before, min(0, last + 1), step)
    reached = (first + gap * -(first // gap) if first < 0 else first for first in firsts)
    ends = (first + gap * (window.kernel[axis] - 1) for first in firsts)
    short = any(not at <= end or at >= size for at, end in zip(reached, ends, strict=True))
    return short or -before + (last + before) // step * step >= size


def _mode(layer: LayerShape, path: Path, positions: Positions) -> str:
    mode = "zeros" if layer.mode is None else layer.mode
    if mode not in PAD_MODES:
        raise positions.error(
            (*path, "mode"),
            f"unknown mode '{shortened(mode)}' of padding",
            hint="one of " + ", ".join(PAD_MODES),
            label=did_you_mean(mode, PAD_MODES),
        )
    if mode != "zeros" and layer.transposed:
        raise positions.error(
            (*path, "mode"), "a transposed convolution has zeros around", hint="mode: zeros"
        )
    return mode


def _output_padding(
    layer: LayerShape, stride: Sizes, dilation: Sizes, path: Path, positions: Positions
) -> Sizes:
    if layer.output_padding is None:
        return ()
    place = (*path, "output_padding")
    if not layer.transposed:
        raise positions.error(place, "output_padding goes with transposed: true", hint="leave it out")
    found = _per_axis(layer.output_padding, len(stride), place, positions)
    if any(n >= max(step, d) for n, step, d in zip(found, stride, dilation, strict=True)):
        raise positions.error(
            place,
            "output_padding is less than the stride or the dilation",
            hint="e.g. stride: 2, output_padding: 1",
        )
    return found if any(found) else ()


def _check_transposed(window: WindowSpec, places: Sizes, path: Path, positions: Positions) -> None:
    if min(windowed_shape(window, places)) < 1:
        raise positions.error((*path, "padding"), "the padding leaves nothing", hint="a smaller padding")


def windowed_shape(window: WindowSpec, places: tuple[int, ...]) -> tuple[int, ...]:
    """Places of the output, from those of the input.

    Example:
        >>> windowed_shape(WindowSpec((3, 3), (2, 2), (1, 1), ((1, 1), (1, 1))), (32, 33))
        (16, 17)
    """
    if window.transposed:
        more = window.output_padding or (0,) * len(places)
        return tuple(
            (size - 1) * s + d * (k - 1) + 1 - before - after + end
            for size, (before, after), d, k, s, end in zip(
                places, window.padding, window.dilation, window.kernel, window.stride, more, strict=True
            )
        )
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
    written, places = site.item.written, site.shape[1:]
    function = written.function
    if function not in _POOLINGS:
        message = "has no function" if function is None else f"cannot be '{shortened(function)}'"
        raise site.error(
            "function",
            f"pool layer '{site.item.name}' {message}",
            hint=f"function: {' or '.join(_POOLINGS)}",
        )
    if written.output is not None and 1 <= len(places) <= _MOST_AXES:
        wanted = _wanted(written, len(places), site.item.path, site.positions)
        if any(size % count for size, count in zip(places, wanted, strict=True)):
            return Resolved((site.shape[0], *wanted), AdaptiveSpec(function, wanted))
    window = window_spec(written, site.shape, site.item.path, site.positions)
    return Resolved((site.shape[0], *windowed_shape(window, places)), window)


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
        if window.transposed:
            return (inputs[0][0], layer.shape[0] // window.groups, *window.kernel)
        return (layer.shape[0], inputs[0][0] // window.groups, *window.kernel)

    return (Owner(weight, layer.bias, biased=lambda weight: layer.shape[:1]),)


def _written(layer: LayerSpec) -> Mapping[str, Any]:
    if isinstance(layer.settings, AdaptiveSpec):
        return {"function": layer.settings.pooling, "output": list(layer.settings.output)}
    window = layer.window
    assert window is not None
    lists: dict[str, Any] = {"kernel": list(window.kernel), "stride": list(window.stride)}
    beyond = window.beyond or (0,) * len(window.kernel)
    pairs = zip(window.padding, beyond, strict=True)
    lists["padding"] = [[before, after - more] for (before, after), more in pairs]
    if layer.kind == "pool":
        more: dict[str, Any] = {"count_padding": False} if window.inside else {}
        more |= {"dilation": list(window.dilation)} if set(window.dilation) != {1} else {}
        more |= {"ceil": True} if window.beyond else {}
        return {"function": window.pooling, **lists, **more}
    lists |= {"dilation": list(window.dilation), "groups": window.groups}
    if window.mode != "zeros":
        lists["mode"] = window.mode
    if window.transposed:
        lists["transposed"] = True
    if window.output_padding:
        lists["output_padding"] = list(window.output_padding)
    return {**lists, "channels": layer.shape[0]}


CONV = LayerType(
    "conv",
    (
        *("channels", "kernel", "stride", "padding", "dilation", "groups", "mode"),
        *("transposed", "output_padding"),
        *("bias", "share", "init", "activation", "parameters"),
    ),
    _conv,
    owners=_conv_owners,
    written=_written,
)
POOL = LayerType(
    "pool",
    ("function", "kernel", "stride", "padding", "dilation", "output", "ceil", "count_padding"),
    _pool,
    written=_written,
)
