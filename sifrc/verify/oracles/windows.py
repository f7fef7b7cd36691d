"""What convolutions and pooling compute, entry of the window by entry, for arrays of NumPy and torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from math import prod
from typing import Any

import numpy as np

from sifrc.ir.arithmetic import Array
from sifrc.spec.types import AdaptiveSpec, LayerSpec
from sifrc.verify.oracles.entries import joined

__all__ = ["chosen_matrix", "patches", "window_matrix", "windowed"]


def windowed(layer: LayerSpec, parameters: Mapping[str, Any], value: Any) -> Any:
    """The output of a layer that reads windows, of one sample.

    An entry of the window at a time: what it reads at all places is an array with the places of the output,
    to which a matrix over channels is applied.

    Args:
        layer: a convolution, or pooling.
        parameters: by name.
        value: (channels, places) of the input.
    """
    if isinstance(layer.settings, AdaptiveSpec):
        return _adaptive(layer, value)
    window = layer.window
    assert window is not None
    owner = layer.share or layer.name
    if window.beyond:
        return _mean_inside(layer, value, window.beyond)
    if window.pooling == "max":
        return _largest(layer, value)
    if window.inside:
        return _mean_inside(layer, value)
    if window.transposed:
        return _spread(layer, parameters, value)
    if window.mode != "zeros":
        value = around(value, window.padding, window.mode)
        layer = replace(layer, settings=replace(window, padding=((0, 0),) * len(window.kernel), mode="zeros"))
    total: Any = 0
    for entry in product(*(range(size) for size in window.kernel)):
        read = _at(value, layer, entry)
        if layer.kind == "pool":
            total = total + read
            continue
        weight = parameters[f"{owner}.weight"][(slice(None), slice(None), *entry)]
        total = total + _grouped(weight, read, window.groups)
    if layer.kind == "pool":
        # A whole number, that no digits are lost.
        return total / prod(window.kernel)
    if layer.bias:
        bias = parameters[f"{owner}.bias"]
        total = total + bias.reshape((-1, *[1] * len(window.kernel)))
    return total


def _largest(layer: LayerSpec, value: Any) -> Any:
    """The first of the largest entries of each window; padding is no entry."""
    window = layer.window
    assert window is not None
    best: Any = None
    for entry in product(*(range(size) for size in window.kernel)):
        read, inside = _at(value, layer, entry), _at(np.ones(value.shape), layer, entry) > 0
        if best is None:
            best = read * 0 - (1e30 if hasattr(value, "detach") else 10**30)
        if hasattr(value, "detach"):
            import torch

            best = torch.where(torch.from_numpy(inside) & (read > best), read, best)
        else:
            best = np.where(inside & np.asarray(read > best, dtype=bool), read, best)
    return best


def _boxes(layer: LayerSpec, value: Any) -> list[Any]:
    """What each place of an adaptive pooling reads, (channels, entries)."""
    assert isinstance(layer.settings, AdaptiveSpec)
    pairs = list(zip(layer.settings.output, value.shape[1:], strict=True))
    found = []
    for place in product(*(range(count) for count, _ in pairs)):
        ends = [(i * n // o, -(-(i + 1) * n // o)) for i, (o, n) in zip(place, pairs, strict=True)]
        box = value[(slice(None), *(slice(first, last) for first, last in ends))]
        found.append(box.reshape((value.shape[0], -1)))
    return found


def _adaptive(layer: LayerSpec, value: Any) -> Any:
    """The mean, or the first of the largest entries, of each box."""
    assert isinstance(layer.settings, AdaptiveSpec)
    columns = []
    for box in _boxes(layer, value):
        made = box[:, 0]
        for n in range(1, box.shape[1]):
            if layer.settings.pooling == "average":
                made = made + box[:, n]
            elif hasattr(box, "detach"):
                made = made.where(made >= box[:, n], box[:, n])
            else:
                made = np.where(np.asarray(made >= box[:, n], dtype=bool), made, box[:, n])
        columns.append(made / box.shape[1] if layer.settings.pooling == "average" else made)
    return joined([column.reshape((-1, 1)) for column in columns], 1).reshape(layer.shape)


def _mean_inside(layer: LayerSpec, value: Any, beyond: tuple[int, ...] = ()) -> Any:
    """Means of windows over their entries that are not padding, or over all but those beyond it."""
    assert layer.window is not None
    total: Any = 0
    count: Any = 0
    there, counting = np.ones(value.shape), layer
    if beyond:
        around = zip(layer.window.padding, beyond, strict=True)
        there = np.pad(there, [(0, 0), *((before, after - more) for (before, after), more in around)])
        there = there * 0 + 1
        none = tuple((0, more) for more in beyond)
        counting = replace(layer, settings=replace(layer.window, padding=none))
    for entry in product(*(range(size) for size in layer.window.kernel)):
        total = total + _at(value, layer, entry)
        count = count + _at(there, counting, entry)
    if hasattr(value, "detach"):
        import torch

        return total / torch.from_numpy(count)
    return total / count.astype(int)


def _spread(layer: LayerSpec, parameters: Mapping[str, Any], value: Any) -> Any:
    """A transposed convolution: each entry of the input times the window that it writes, place by place."""
    window = layer.window
    assert window is not None
    owner = layer.share or layer.name
    weight = parameters[f"{owner}.weight"]
    places = layer.shape[1:]
    rows: dict[tuple[int, ...], Any] = {}
    for place in product(*(range(n) for n in value.shape[1:])):
        for entry in product(*(range(n) for n in window.kernel)):
            at = tuple(
                s * p + d * e - before
                for s, p, d, e, (before, _) in zip(
                    window.stride, place, window.dilation, entry, window.padding, strict=True
                )
            )
            if all(0 <= n < size for n, size in zip(at, places, strict=True)):
                kernel = weight[(slice(None), slice(None), *entry)]
                column = value[(slice(None), *place)]
                made = _by_group(kernel, column, window.groups)
                rows[at] = rows[at] + made if at in rows else made
    zero = value.reshape(-1)[:1] * 0 * weight.reshape(-1)[0]
    columns = [
        rows[at] if at in rows else zero.repeat(layer.shape[0]) for at in product(*(range(n) for n in places))
    ]
    if hasattr(value, "detach"):
        import torch

        found: Any = torch.stack(columns, 1)
    else:
        found = np.stack(columns, 1)
    found = found.reshape(layer.shape)
    if layer.bias:
        found = found + parameters[f"{owner}.bias"].reshape((-1, *[1] * len(window.kernel)))
    return found


def _by_group(kernel: Any, column: Any, groups: int) -> Any:
    """Channels of one place through the transposed matrix of each group."""
    size, parts = column.shape[0] // groups, []
    for g in range(groups):
        rows = slice(g * size, (g + 1) * size)
        parts.append(column[rows] @ kernel[rows])
    if hasattr(column, "detach"):
        import torch

        return torch.cat(parts)
    return np.concatenate(parts)


def around(value: Any, padding: tuple[tuple[int, int], ...], mode: str) -> Any:
    """Entries of the axes of places themselves before and after them."""
    for axis, (before, after) in enumerate(padding, start=1):
        size = value.shape[axis]
        places = {
            "circular": [n % size for n in range(-before, size + after)],
            "reflect": [*range(before, 0, -1), *range(size), *range(size - 2, size - 2 - after, -1)],
            "replicate": [*[0] * before, *range(size), *[size - 1] * after],
        }[mode]
        value = value[(slice(None),) * axis + (places,)]
    return value


def window_matrix(layer: LayerSpec, parameters: Mapping[str, Any], shape: tuple[int, ...]) -> Array:
    """The layer without its bias as a matrix, all axes of its output by all of its input."""
    units = np.eye(prod(shape), dtype=int).reshape(prod(shape), *shape)
    plain = replace(layer, bias=False)
    return np.stack([windowed(plain, parameters, unit).reshape(-1) for unit in units], axis=1)


def chosen_matrix(layer: LayerSpec, value: Array) -> Array:
    """A maximum of windows as a matrix: 1 where it takes its entries from, of one sample."""
    numbers = np.arange(1, value.size + 1).reshape(value.shape)  # 0 is padding
    if isinstance(layer.settings, AdaptiveSpec):
        pairs = zip(_boxes(layer, value), _boxes(layer, numbers), strict=True)
        taken = [own[[*range(len(own))], np.argmax(box, axis=1)] for box, own in pairs]
        return np.asarray(np.eye(value.size, dtype=int)[np.stack(taken, axis=1).reshape(-1) - 1])
    window = layer.window
    assert window is not None
    best: Any = None
    for entry in product(*(range(size) for size in window.kernel)):
        read, number = _at(value, layer, entry), _at(numbers, layer, entry)
        if best is None:
            best, chosen = read, number
        better = (number > 0) & ((chosen == 0) | np.asarray(read > best, dtype=bool))
        best, chosen = np.where(better, read, best), np.where(better, number, chosen)
    return np.asarray(np.eye(value.size, dtype=int)[chosen.reshape(-1) - 1])


def patches(layer: LayerSpec, value: Array) -> Array:
    """What each channel of a convolution reads at each place, (places, channels, entries of its weight)."""
    window = layer.window
    assert window is not None
    read = [_at(value, layer, entry) for entry in product(*(range(size) for size in window.kernel))]
    each = np.stack(read, axis=1).reshape(value.shape[0], len(read), -1)  # channels, entries, places
    grouped = each.reshape(window.groups, -1, each.shape[2])  # a group by itself
    rows = np.repeat(grouped, layer.shape[0] // window.groups, axis=0)
    return np.asarray(rows.transpose(2, 0, 1))


def _at(value: Any, layer: LayerSpec, entry: tuple[int, ...]) -> Any:
    """What an entry of the window reads at every place of the output; zero where that is padding."""
    window = layer.window
    assert window is not None
    places = layer.shape[1:]
    for axis, (index, count) in enumerate(zip(entry, places, strict=True)):
        start = index * window.dilation[axis] - window.padding[axis][0]
        rows = []
        for place in range(count):
            position = start + place * window.stride[axis]
            inside = 0 <= position < value.shape[axis + 1]
            row = value[(slice(None),) * (axis + 1) + (slice(position, position + 1),)] if inside else None
            rows.append(row)
        value = _joined(rows, value, axis + 1)
    return value


def _joined(rows: list[Any], like: Any, axis: int) -> Any:
    """Rows after each other along an axis; zeros where there is none."""
    zero = like[(slice(None),) * axis + (slice(0, 1),)] * 0
    parts = [zero if row is None else row for row in rows]
    if hasattr(like, "detach"):
        import torch

        return torch.cat(parts, dim=axis)
    return np.concatenate(parts, axis=axis)


def _grouped(weight: Any, read: Any, groups: int) -> Any:
    """A matrix over the channels of each group, applied at every place."""
    flat = read.reshape((groups, weight.shape[1], -1))
    outs = weight.reshape((groups, weight.shape[0] // groups, weight.shape[1]))
    parts = [outs[g] @ flat[g] for g in range(groups)]
    rows = [row for part in parts for row in part]
    shape = (len(rows), *read.shape[1:])
    if hasattr(read, "detach"):
        import torch

        return torch.stack(rows).reshape(shape)
    return np.stack(rows).reshape(shape)
