"""Products of states, numbers times a state, and what is made of an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sifrc.spec.layers.elementary import common_shape
from sifrc.spec.layers.record import LayerType, Resolved, Site, axis_number
from sifrc.spec.layers.shapes import AxisSpec
from sifrc.spec.types import LayerKind, LayerSettings, LayerSpec
from sifrc.spec.words import size_text

__all__ = [
    "LOG_SOFTMAX",
    "MATMUL",
    "MAX",
    "MEAN",
    "MULTIPLY",
    "SCALE",
    "SOFTMAX",
    "SUM",
    "AxesSpec",
    "MatmulSpec",
    "ScaleSpec",
]


@dataclass(frozen=True)
class ScaleSpec(LayerSettings):
    """A number that every entry is multiplied with, and one that is added."""

    value: float
    shift: float


@dataclass(frozen=True)
class MatmulSpec(LayerSettings):
    """Whether the last two axes of a factor change places before."""

    transpose_first: bool
    transpose_second: bool


@dataclass(frozen=True)
class AxesSpec(LayerSettings):
    """Axes of the input, from 0, in order; ``keep``: they stay with one entry."""

    axes: tuple[int, ...]
    keep: bool


def _scale(site: Site) -> Resolved:
    written = site.item.written
    if written.value is None and written.shift is None:
        raise site.error("value", f"scale layer '{site.item.name}' has no value", hint="e.g. value: 0.125")
    value = 1.0 if written.value is None else float(written.value)
    return Resolved(site.shape, ScaleSpec(value, float(written.shift or 0.0)))


def _matmul(site: Site) -> Resolved:
    transpose = site.item.written.transpose or []
    if not set(transpose) <= {"first", "second"}:
        raise site.error(
            "transpose", "transpose names factors", hint="first, second or both: [first, second]"
        )
    settings = MatmulSpec("first" in transpose, "second" in transpose)
    flips = (settings.transpose_first, settings.transpose_second)
    shapes = []
    for position, (shape, flip) in enumerate(zip(site.shapes, flips, strict=True)):
        if len(shape) < 2:
            raise site.positions.error(
                site.item.input_path(position),
                f"a matrix product takes two axes or more, and '{site.item.inputs[position]}' has one",
                hint="a layer of type reshape gives it another",
            )
        shapes.append((*shape[:-2], *(shape[-2:][::-1] if flip else shape[-2:])))
    left, right = shapes
    if left[:-2] != right[:-2] or left[-1] != right[-2]:
        raise site.error(
            "inputs",
            f"{size_text(left)} and {size_text(right)} cannot be multiplied as matrices",
            hint="axes before the last two are equal, and rows of the second as many as columns of the first",
        )
    return Resolved((*left[:-1], right[-1]), settings)


def _axes(site: Site) -> Resolved:
    """Without some axes, or with one entry along them."""
    written, rank = site.item.written, len(site.shape)
    given = written.axes if written.axes is not None else [*range(1, rank + 1)]
    axes = sorted(axis_number(site, "axes", axis, rank) for axis in given)
    if len(set(axes)) < len(axes) or not axes:
        raise site.error("axes", "axes are named once each", hint="e.g. axes: [2, 3]")
    keep = bool(written.keep)
    shape = tuple(1 if n in axes else size for n, size in enumerate(site.shape) if keep or n not in axes)
    return Resolved(shape or (1,), AxesSpec(tuple(axes), keep))


def _softmax(site: Site) -> Resolved:
    axis = -1 if site.item.written.axis is None else site.item.written.axis
    position = axis_number(site, "axis", axis, len(site.shape))
    return Resolved(site.shape, AxisSpec(position))


def _written(layer: LayerSpec) -> dict[str, Any]:
    match layer.settings:
        case ScaleSpec(value, shift):
            return {"value": value, "shift": shift}
        case MatmulSpec(first, second):
            return {"transpose": [word for word, on in (("first", first), ("second", second)) if on]}
        case AxesSpec(axes, keep):
            return {"axes": [axis + 1 for axis in axes], "keep": keep}
        case AxisSpec(axis):
            return {"axis": axis + 1}
    return {}


def _reduction(kind: LayerKind) -> LayerType:
    return LayerType(kind, ("axes", "keep"), _axes, written=_written)


MULTIPLY = LayerType("multiply", ("activation", "parameters"), common_shape, inputs=(2, None))
MATMUL = LayerType("matmul", ("transpose",), _matmul, inputs=(2, 2), written=_written)
SCALE = LayerType("scale", ("value", "shift"), _scale, written=_written)
SUM, MEAN, MAX = _reduction("sum"), _reduction("mean"), _reduction("max")
SOFTMAX = LayerType("softmax", ("axis",), _softmax, written=_written)
LOG_SOFTMAX = LayerType("log_softmax", ("axis",), _softmax, written=_written)
