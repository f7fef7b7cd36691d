"""What each type of layer computes, for one sample, in elementary operations on arrays of NumPy and torch.

This is the oracles' own reading: nothing of the model's expressions is used, and norms and attention are
written out, because higher derivatives through PyTorch's fused ones are wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from sifrc.spec.layers.batch_norm import BatchNormSpec
from sifrc.spec.layers.dropout import DropoutSpec
from sifrc.spec.layers.elementary import EntrywiseSpec
from sifrc.spec.layers.norms import NormSpec
from sifrc.spec.layers.products import AxesSpec, MatmulSpec, ScaleSpec
from sifrc.spec.layers.recurrence import RecurrentSpec
from sifrc.spec.layers.shapes import AxisSpec, PadSpec, PermuteSpec, SliceSpec, StridedSpec, UpsampleSpec
from sifrc.spec.layers.tensors import TableSpec, TensorSpec
from sifrc.verify.oracles.attention import attention, positions
from sifrc.verify.oracles.entries import At, joined, largest, permuted, reshaped, softmax, taken
from sifrc.verify.oracles.recurrence import cells
from sifrc.verify.oracles.windows import windowed

__all__ = ["layer_value"]


def layer_value(at: At) -> Any:
    """The output of a layer, before the activation of its short form."""
    return _RULES[at.layer.kind](at)


def _parameter(at: At) -> Any:
    settings = at.layer.settings
    assert isinstance(settings, TensorSpec)
    return at.parameter("weight" if settings.trained else "value")


def _table(at: At) -> Any:
    settings = at.layer.settings
    assert isinstance(settings, TableSpec)
    if isinstance(settings.entries, tuple):
        return at.numbers(settings.entries).reshape(at.layer.shape)
    axes = (at.numbers(axis.ravel().tolist()).reshape(axis.shape) for axis in np.indices(at.layer.shape))
    return at.activate(settings.entries, *axes)


def _dense(at: At) -> Any:
    value = at.source @ at.parameter("weight").T
    return value + at.parameter("bias") if at.layer.bias else value


def _sum(at: At) -> Any:
    value = at.source
    for other in at.sources[1:]:
        value = value + other
    return value


def _multiply(at: At) -> Any:
    value = at.source
    for other in at.sources[1:]:
        value = value * other
    return value


def _entrywise(at: At) -> Any:
    settings = at.layer.settings
    assert isinstance(settings, EntrywiseSpec)
    if any(hasattr(value, "detach") for value in at.sources):
        import torch

        zero = torch.zeros(at.layer.shape, dtype=torch.float64)
        return at.activate(settings.function, *(value.expand_as(zero) for value in at.sources))
    return at.activate(settings.function, *np.broadcast_arrays(*at.sources))


def _shaped(at: At) -> Any:
    return at.source.reshape(at.layer.shape)


def _permute(at: At) -> Any:
    settings = at.layer.settings
    assert isinstance(settings, PermuteSpec)
    return permuted(at.source, settings.order)


def _slice(at: At) -> Any:
    settings = at.layer.settings
    assert isinstance(settings, SliceSpec)
    count = at.layer.shape[settings.axis]
    return taken(at.source, settings.axis, [settings.start + settings.step * n for n in range(count)])


def _strided(at: At) -> Any:
    settings = at.layer.settings
    assert isinstance(settings, StridedSpec)
    indices = np.indices(at.layer.shape[settings.axis :][: len(settings.steps)])
    places = settings.start + sum(step * index for step, index in zip(settings.steps, indices, strict=True))
    return taken(at.source, settings.axis, places.ravel().tolist()).reshape(at.layer.shape)


def _concatenate(at: At) -> Any:
    settings = at.layer.settings
    assert isinstance(settings, AxisSpec)
    return joined(at.sources, settings.axis)


def _pad(at: At) -> Any:
    settings = at.layer.settings
    assert isinstance(settings, PadSpec)
    value = at.source
    for axis, (before, after) in enumerate(settings.padding):
        size = value.shape[axis]
        places = {
            "zeros": [*[0] * before, *range(size), *[0] * after],
            "circular": [n % size for n in range(-before, size + after)],
            "reflect": [*range(before, 0, -1), *range(size), *range(size - 2, size - 2 - after, -1)],
            "replicate": [*[0] * before, *range(size), *[size - 1] * after],
        }[settings.mode]
        padded = taken(value, axis, places)
        if settings.mode == "zeros":
            inside = taken(padded, axis, range(before, before + size))
            edge = taken(value, axis, [0]) * 0
            padded = joined([*[edge] * before, inside, *[edge] * after], axis)
        value = padded
    return value


def _upsample(at: At) -> Any:
    settings = at.layer.settings
    assert isinstance(settings, UpsampleSpec)
    value = at.source
    for axis, times in enumerate(settings.factor, start=1):
        size = value.shape[axis]
        if settings.mode == "nearest":
            value = taken(value, axis, [n // times for n in range(size * times)])
            continue
        rows = []
        for n in range(size * times):
            # As PyTorch without aligned corners: in units of 1/(2 · times) of an old entry.
            place = max(2 * n + 1 - times, 0)
            low, rest = divmod(place, 2 * times)
            high = min(low + 1, size - 1)
            lower, upper = taken(value, axis, [low]), taken(value, axis, [high])
            rows.append((lower * (2 * times - rest) + upper * rest) / (2 * times))
        value = joined(rows, axis)
    return value


def _matmul(at: At) -> Any:
    settings = at.layer.settings
    assert isinstance(settings, MatmulSpec)
    left, right = at.sources
    left = left.swapaxes(-1, -2) if settings.transpose_first else left
    right = right.swapaxes(-1, -2) if settings.transpose_second else right
    return left @ right


def _scale(at: At) -> Any:
    settings = at.layer.settings
    assert isinstance(settings, ScaleSpec)
    return at.function("a*x + b", at.source, a=settings.value, b=settings.shift)


def _reduced(at: At) -> Any:
    settings = at.layer.settings
    assert isinstance(settings, AxesSpec)
    value, count = at.source, 1
    for axis in reversed(settings.axes):
        count *= value.shape[axis]
        value = largest(value, axis) if at.layer.kind == "max" else value.sum(axis)
    value = value / count if at.layer.kind == "mean" else value
    return (
        np.reshape(value, at.layer.shape) if not hasattr(value, "detach") else value.reshape(at.layer.shape)
    )


def _softmax(at: At) -> Any:
    settings = at.layer.settings
    assert isinstance(settings, AxisSpec)
    return softmax(at, at.source, settings.axis)


def _log_softmax(at: At) -> Any:
    return at.function("log(x)", _softmax(at))


def _norm(at: At) -> Any:
    """With every mean written as a sum of single entries' squares."""
    settings, value = at.layer.settings, at.source
    assert isinstance(settings, NormSpec)
    if settings.groups:
        grouped = value.reshape((settings.groups, -1))
        rows = [_normalised(at, row, (0,), settings.epsilon) for row in grouped]
        found = joined([row.reshape((1, -1)) for row in rows], 0).reshape(value.shape)
        shape = (-1, *[1] * (len(at.layer.shape) - 1))
    else:
        found = _normalised(at, value, settings.axes, settings.epsilon)
        shape = tuple(n if axis in settings.axes else 1 for axis, n in enumerate(at.layer.shape))
    if settings.affine:
        found = found * at.parameter("weight").reshape(shape)
        found = found + at.parameter("bias").reshape(shape) if at.layer.bias else found
    return found


def _batch_norm(at: At) -> Any:
    """With the mean and the variance of all entries of a channel, or the running ones."""
    settings, value = at.layer.settings, at.source
    assert isinstance(settings, BatchNormSpec)
    shape = (-1, *[1] * (len(at.layer.shape) - 1))
    if at.batch is None:
        mean, variance = at.parameter("running_mean"), at.parameter("running_var")
    else:
        whole = joined([other.reshape((value.shape[0], -1)) for other in at.batch], 1)
        mean = whole.sum(1) / whole.shape[1]
        centred = whole - mean.reshape((-1, 1))
        variance = (centred * centred).sum(1) / whole.shape[1]
    factor = at.function("1/sqrt(x + e)", variance, e=settings.epsilon)
    found = (value - mean.reshape(shape)) * factor.reshape(shape)
    if settings.affine:
        found = found * at.parameter("weight").reshape(shape)
        found = found + at.parameter("bias").reshape(shape) if at.layer.bias else found
    return found


def _dropout(at: At) -> Any:
    """In training without the entries whose numbers are below the probability, the others larger."""
    settings = at.layer.settings
    assert isinstance(settings, DropoutSpec)
    if at.drawn is None:
        return at.source
    return at.source * at.function("where(x >= p, 1/(1 - p), 0)", at.drawn, p=settings.probability)


def _normalised(at: At, value: Any, axes: Sequence[int], epsilon: float) -> Any:
    """Without its mean, where one is taken off, and divided by the root of its mean square."""

    def mean(array: Any) -> Any:
        count = 1
        for axis in sorted(axes, reverse=True):
            count *= value.shape[axis]
            array = array.sum(axis)
        shape = tuple(1 if axis in axes else n for axis, n in enumerate(value.shape))
        return reshaped(array / count, shape)

    if at.layer.kind != "rms_norm":
        value = value - mean(value)
    return value * at.function("1/sqrt(x + e)", mean(value * value), e=epsilon)


def _recurrent(at: At) -> Any:
    """Layer by layer, direction by direction, step by step."""
    settings, value = at.layer.settings, at.source
    assert isinstance(settings, RecurrentSpec)
    read = at.function("where(x > 1/2, 1, 0)", at.sources[-1]) if at.layer.mask else None
    begun = [given.reshape((-1, settings.units)) for given in at.sources[1 : 1 + at.layer.begins]]
    slots = [(n, slot) for n in ("ih", "hh") for slot in ("weight", "bias")[: 1 + at.layer.bias]]
    sides = 1 + settings.bidirectional
    for layer in range(settings.layers):
        found, held = [], []
        for side, mark in enumerate((f"l{layer}", f"l{layer}_reverse")[:sides]):
            order = [*range(value.shape[0])][:: -1 if side else 1]
            parameters = {f"{n}.{slot}": at.parameter(slot, f"{n}_{mark}") for n, slot in slots}
            states = [given[layer * sides + side] for given in begun]
            reads = None if read is None else [read[n] for n in order]
            steps = cells(at.layer, [value[n] for n in order], parameters, at.activate, states, reads)
            found.append(joined([steps[n][0].reshape((1, -1)) for n in order], 0))
            if settings.cells and layer == settings.layers - 1:
                held.append(joined([steps[n][1].reshape((1, -1)) for n in order], 0))
        value = joined([*found, *held], 1)
    return value if read is None or settings.masked != "zero" else value * read.reshape((-1, 1))


_RULES: Mapping[str, Callable[[At], Any]] = MappingProxyType(
    {
        "dense": _dense,
        "conv": lambda at: windowed(at.layer, at.parameters, at.source),
        "pool": lambda at: windowed(at.layer, at.parameters, at.source),
        "activation": lambda at: at.source,
        "add": _sum,
        "flatten": _shaped,
        "entrywise": _entrywise,
        "reshape": _shaped,
        "permute": _permute,
        "slice": _slice,
        "strided": _strided,
        "concatenate": _concatenate,
        "pad": _pad,
        "upsample": _upsample,
        "multiply": _multiply,
        "matmul": _matmul,
        "scale": _scale,
        "sum": _reduced,
        "mean": _reduced,
        "max": _reduced,
        "softmax": _softmax,
        "log_softmax": _log_softmax,
        "attention": attention,
        "positions": positions,
        "embedding": lambda at: at.source @ at.parameter("weight"),
        "layer_norm": _norm,
        "group_norm": _norm,
        "instance_norm": _norm,
        "rms_norm": _norm,
        "batch_norm": _batch_norm,
        "dropout": _dropout,
        "rnn": _recurrent,
        "lstm": _recurrent,
        "gru": _recurrent,
        "parameter": _parameter,
        "table": _table,
    }
)
