"""Convolutions whose weight is computed, and interpolation by a matrix: windows and products written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from sifrc.importing.atoms import SAMPLES, Value, fresh, permuted, renewed, size_of, viewed
from sifrc.importing.calls import Call, Refused, axes_for
from sifrc.importing.rules.entrywise import combined
from sifrc.importing.rules.products import product

__all__ = ["interpolated", "unfolded"]


def unfolded(call: Call, axes: int) -> Value:
    """A convolution as a product of what its windows read with its weight, for each group of channels."""
    value, weight = call.value("input"), call.value("weight")
    if len(value.dims) != axes + 2 or value.dims[0] != (SAMPLES,):
        raise Refused(f"{call.name} of {len(value.dims)} dimensions", "samples x channels x places")
    groups = int(call["groups"])
    strides, dilations = (_every(call[name], axes) for name in ("stride", "dilation"))
    kernel = [size_of(atoms) for atoms in weight.dims[2:]]
    value = _padded(call, value, _padding(call["padding"], kernel, dilations))
    for n in range(axes):
        # After the channels: places and entries of the kernel of each axis that is done, then the rest.
        value = _windows(call, value, 2 + 2 * n, kernel[n], strides[n], dilations[n])
    out = [size_of(value.dims[2 + 2 * n]) for n in range(axes)]
    channels, units = size_of(value.dims[1]), size_of(weight.dims[0])
    value = _apart(value, [(1, True), (groups, False), (channels // groups, False)], 2)
    order = [0, 1, *range(3, 3 + 2 * axes, 2), 2, *range(4, 4 + 2 * axes, 2)]
    patches = _joined(permuted(value, order), [1, 1, axes, 1 + axes])
    weight = _apart(weight, [(groups, False), (units // groups, False)], 1)
    matrix = _joined(permuted(weight, [0, *range(2, 3 + axes), 1]), [1, 1 + axes, 1])
    if groups == 1:
        patches, matrix = (
            replace(each, dims=(*each.dims[:-3], *each.dims[-2:])) for each in (patches, matrix)
        )
    found = product(call, patches, matrix)
    sizes = [(1, True), *([(groups, False)] if groups > 1 else []), *((size, False) for size in out)]
    found = _apart(found, [*sizes, (units // groups, False)], len(found.dims))
    last = len(found.dims) - 1
    found = permuted(found, [0, *([1] if groups > 1 else []), last, *range(last - axes, last)])
    found = _joined(found, [1, 2 if groups > 1 else 1, *[1] * axes])
    if call["bias"] is None:
        return found
    bias = call.value("bias")
    return combined(call, "add", [found, replace(bias, dims=(*bias.dims, *[()] * axes))])


def interpolated(call: Call, name: str, mode: str, out: list[int]) -> Value:
    """Places between places: a product with a matrix of fixed weights along each axis."""
    value = call.value(name)
    if value.dims[0] != (SAMPLES,):
        raise Refused(f"{call.name} with samples in another dimension than the first", "samples first")
    scales = call.get("scale_factors") or [call.get(key) for key in ("scales_h", "scales_w")]
    for n, size in enumerate(out):
        dim, before = n + 2, size_of(value.dims[n + 2])
        keys: dict[str, Any] = {"size": size}
        if n < len(scales) and scales[n] is not None:
            keys = {"scale_factor": float(scales[n])}
        matrix = _matrix(before, mode, call.get("align_corners"), keys)
        order = [each for each in range(len(value.dims)) if each != dim]
        moved = product(call, permuted(value, [*order, dim]), call.as_value(matrix))
        back = list(range(len(order)))
        value = permuted(moved, [*back[:dim], len(order), *back[dim:]])
    return value


def _matrix(before: int, mode: str, aligned: bool | None, keys: dict[str, Any]) -> torch.Tensor:
    """What interpolation along one axis makes of each place, by torch itself."""
    eye = torch.eye(before, dtype=torch.float64)
    more: dict[str, Any] = {} if mode.startswith("nearest") else {"align_corners": bool(aligned)}
    if mode != "bicubic":
        return F.interpolate(eye[None], mode=mode, **keys, **more)[0]
    beside: dict[str, Any] = {name: (value, 1) for name, value in keys.items()}
    return F.interpolate(eye[None, :, :, None], mode=mode, **beside, **more)[0, :, :, 0]


def _every(numbers: Any, axes: int) -> list[int]:
    found = [numbers] if isinstance(numbers, int) else [int(n) for n in numbers]
    return found * axes if len(found) == 1 else found


def _padding(given: Any, kernel: list[int], dilations: list[int]) -> list[list[int]]:
    """Zeros before and after each axis."""
    if given == "valid":
        return [[0, 0] for _ in kernel]
    if given == "same":
        whole = [dilation * (size - 1) for size, dilation in zip(kernel, dilations, strict=True)]
        return [[each // 2, each - each // 2] for each in whole]
    return [[each, each] for each in _every(given, len(kernel))]


def _padded(call: Call, value: Value, padding: list[list[int]]) -> Value:
    if not any(sum(pair) for pair in padding):
        return value
    _, source = call.natural(value)
    name = call.layer("pad", source, hint="pad", padding=[0, *padding])
    sizes = {n + 2: size_of(value.dims[n + 2]) + sum(pair) for n, pair in enumerate(padding)}
    dims = renewed(value.dims, sizes)
    return Value(name, axes_for(dims), dims)


def _windows(call: Call, value: Value, dim: int, kernel: int, stride: int, dilation: int) -> Value:
    """A dimension as two: places, and entries of the windows there."""
    size = size_of(value.dims[dim])
    count = (size - dilation * (kernel - 1) - 1) // stride + 1
    if (kernel, stride) == (1, 1):
        return replace(value, dims=(*value.dims[: dim + 1], (), *value.dims[dim + 1 :]))
    stated, axes = call.apart(value, [dim])
    assert isinstance(stated.source, str)
    if not axes:
        raise Refused(f"{call.name} over one place", "several")
    name = call.layer(
        "strided",
        stated.source,
        hint="windows",
        axis=axes[0] + 1,
        start=0,
        sizes=[count, kernel],
        steps=[stride, dilation],
    )
    new = fresh([count, kernel])
    layout = (*stated.layout[: axes[0]], *new, *stated.layout[axes[0] + 1 :])
    return Value(name, layout, (*value.dims[:dim], *new, *value.dims[dim + 1 :]))


def _apart(value: Value, sizes: list[tuple[int, bool]], count: int) -> Value:
    """The first dimensions taken apart into others, of these sizes."""
    rest = [(size_of(atoms), False) for atoms in value.dims[count:]]
    found = viewed(value, [*sizes, *rest])
    if found is None:
        raise Refused("channels of a convolution that cannot be taken apart", "channels in one dimension")
    return found


def _joined(value: Value, counts: list[int]) -> Value:
    """So many dimensions each as one."""
    dims, at = [], 0
    for count in counts:
        dims.append(tuple(atom for atoms in value.dims[at : at + count] for atom in atoms))
        at += count
    return replace(value, dims=tuple(dims))
