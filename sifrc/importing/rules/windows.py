"""Convolutions, pooling, upsampling and padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from types import MappingProxyType
from typing import Any

import torch

from sifrc.importing.atoms import SAMPLES, Atoms, Value, fresh, renewed, size_of
from sifrc.importing.calls import Call, Refused, axes_for, number_in
from sifrc.importing.rules.entrywise import combined
from sifrc.importing.rules.unfolded import interpolated, unfolded

__all__ = ["RULES"]


def _channels(call: Call, name: str, axes: int) -> tuple[str, tuple[int, ...]]:
    """A state of channels at places, and its sizes."""
    value = call.value(name)
    if len(value.dims) != axes + 2 or value.dims[0] != (SAMPLES,):
        raise Refused(
            f"{call.name} of {len(value.dims)} dimensions, or with samples in another than the first",
            "samples x channels x places",
        )
    wanted, source = call.natural(value)
    return source, tuple(size_of(atoms) for atoms in wanted)


def _out(call: Call, source: str) -> Value:
    """A state of channels at places, after a layer."""
    layout = fresh(size for size, _ in call.sizes()[1:])
    return Value(source, layout, ((SAMPLES,), *layout))


def _short(numbers: Sequence[int], default: int | None = None) -> Any:
    """One number for equal ones; None for what is the default."""
    found = [int(n) for n in numbers]
    one: Any = found[0] if len(set(found)) == 1 else found
    return None if one == default else one


def _convolution(axes: int, transposed: bool = False) -> Callable[[Call], Value]:
    def rule(call: Call) -> Value:
        if not call.own(call["weight"]) or not (call["bias"] is None or call.own(call["bias"])):
            if transposed:
                raise Refused(
                    "a transposed convolution whose weight is computed", "one that the module keeps"
                )
            return unfolded(call, axes)
        source, _ = _channels(call, "input", axes)
        weight, bias = call.held("weight"), call.held("bias")
        assert weight is not None
        path, sizes = call.draft.weight_of(weight)
        groups = int(call["groups"])
        kernel = _short(sizes[2:])
        padding = call["padding"]
        if isinstance(padding, str):
            padding = None if padding == "valid" else padding
        else:
            padding = _short(_every(padding, axes), 0)
        name = call.draft.name(path)
        share = call.draft.own(name, "conv", {"weight": weight, "bias": bias})
        call.draft.add(
            "conv",
            (source,),
            name,
            channels=None if share else (sizes[1] * groups if transposed else sizes[0]),
            kernel=kernel,
            stride=_short(_every(call["stride"], axes), 1),
            padding=padding,
            dilation=_short(_every(call["dilation"], axes), 1),
            groups=None if groups == 1 else groups,
            transposed=True if transposed else None,
            output_padding=_short(_every(call["output_padding"], axes), 0) if transposed else None,
            bias=False if bias is None else None,
            share=share,
        )
        return _out(call, name)

    return rule


def _every(numbers: Any, axes: int) -> list[int]:
    """A number for each axis."""
    found = [numbers] if isinstance(numbers, int) else [int(n) for n in numbers]
    return found * axes if len(found) == 1 else found


def _pool(function: str, axes: int) -> Callable[[Call], Value]:
    def rule(call: Call) -> Value:
        if call.get("divisor_override") is not None:
            raise Refused("means of windows over another number of entries", "divisor_override=None")
        source, _ = _channels(call, "self", axes)
        kernel = _every(call["kernel_size"], axes)
        strides = _every(call["stride"], axes) if call["stride"] else kernel
        name = call.layer(
            "pool",
            source,
            function=function,
            kernel=_short(kernel),
            stride=None if strides == kernel else _short(strides),
            padding=_short(_every(call["padding"], axes), 0),
            dilation=_short(_every(call.get("dilation", 1), axes), 1),
            ceil=True if call["ceil_mode"] else None,
            count_padding=None if call.get("count_include_pad", True) else False,
        )
        return _out(call, name)

    return rule


def _adaptive(function: str, axes: int) -> Callable[[Call], Any]:
    def rule(call: Call) -> Any:
        source, sizes = _channels(call, "self", axes)
        output = _every(call["output_size"], axes)
        if function == "average" and output == [1] * axes:
            # A mean over the places; they stay, with one entry.
            name = call.layer("mean", source, axes=[*range(2, axes + 2)], keep=True)
        else:
            name = call.layer("pool", source, function=function, output=_short(output))
        layout = fresh((sizes[0], *output))
        found = Value(name, layout, ((SAMPLES,), *layout))
        return (found, None) if function == "max" else found

    return rule


def _upsample(mode: str, axes: int) -> Callable[[Call], Value]:
    def rule(call: Call) -> Value:
        name = "input" if "input" in call.arguments else "self"
        sizes = [size_of(atoms) for atoms in call.value(name).dims[1:]]
        out = [size for size, _ in call.sizes()[2:]]
        factor = [new // old for new, old in zip(out, sizes[1:], strict=True)]
        whole = [n * old for n, old in zip(factor, sizes[1:], strict=True)] == out
        if not whole or call.get("align_corners") or mode not in ("linear", "nearest"):
            return interpolated(call, name, mode, out)
        source, _ = _channels(call, name, axes)
        return _out(call, call.layer("upsample", source, mode=mode, factor=_short(factor)))

    return rule


_MODES = MappingProxyType(
    {"constant": None, "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
)


def _pad(call: Call) -> Value:
    value, mode = call.value("self"), str(call.get("mode", "constant"))
    filled = 0.0 if call.get("value") is None else number_in(call["value"])
    if filled is None or not isfinite(filled):
        raise Refused(f"padding with {call['value']}", "padding with a finite number")
    numbers = [int(n) for n in call["pad"]]
    pairs = [[0, 0]] * (len(value.dims) - len(numbers) // 2)
    pairs += [numbers[n : n + 2] for n in range(len(numbers) - 2, -1, -2)]
    wanted: list[Atoms] = []
    padding: list[Any] = []
    for atoms, pair in zip(value.dims, pairs, strict=True):
        if SAMPLES in atoms:
            if pair != [0, 0] or atoms != (SAMPLES,):
                raise Refused("padding of the samples", "padding of the other dimensions")
            continue
        wanted.append(atoms)
        padding.append(pair[0] if pair[0] == pair[1] else pair)
    if any(n < 0 for pair in pairs for n in pair):
        raise Refused("negative padding", "a slice")
    source = call.draft.arranged(value, wanted)
    name = call.layer("pad", source, padding=padding, mode=_MODES[mode])
    grown = {n: size for n, (size, samples) in enumerate(call.sizes()) if not samples}
    dims = renewed(value.dims, grown)
    found = Value(name, axes_for(dims), dims)
    if filled == 0.0 or all(pair == [0, 0] for pair in pairs):
        return found
    sizes = [size_of(atoms) if pair != [0, 0] else 1 for atoms, pair in zip(value.dims, pairs, strict=True)]
    around = torch.nn.functional.pad(torch.zeros(sizes), numbers, value=filled)
    first = next(n for n, pair in enumerate(pairs) if pair != [0, 0])
    around = around.reshape(around.shape[first:])
    return combined(call, "add", [found, call.as_value(around)])


_DIMENSIONS = (1, 2, 3)
RULES: Mapping[str, Callable[[Call], Any]] = MappingProxyType(
    {f"conv{n}d": _convolution(n) for n in _DIMENSIONS}
    | {f"conv_transpose{n}d": _convolution(n, True) for n in _DIMENSIONS}
    | {f"max_pool{n}d": _pool("max", n) for n in _DIMENSIONS}
    | {f"avg_pool{n}d": _pool("average", n) for n in _DIMENSIONS}
    | {f"adaptive_avg_pool{n}d": _adaptive("average", n) for n in _DIMENSIONS}
    | {f"adaptive_max_pool{n}d": _adaptive("max", n) for n in _DIMENSIONS}
    | {f"upsample_nearest{n}d": _upsample("nearest", n) for n in _DIMENSIONS}
    | {f"_upsample_nearest_exact{n}d": _upsample("nearest-exact", n) for n in _DIMENSIONS}
    | {"upsample_bicubic2d": _upsample("bicubic", 2)}
    | {"upsample_linear1d": _upsample("linear", 1), "upsample_bilinear2d": _upsample("linear", 2)}
    | {"upsample_trilinear3d": _upsample("linear", 3), "pad": _pad, "constant_pad_nd": _pad}
)
"""Operator -> what it becomes."""
