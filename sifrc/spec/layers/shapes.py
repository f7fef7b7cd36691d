"""Layers that read their inputs in another shape or at other places: no entry is changed."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from sifrc.spec.layers.record import LayerType, Resolved, Site, axis_number
from sifrc.spec.suggest import shortened
from sifrc.spec.types import LayerSettings, LayerSpec
from sifrc.spec.words import size_text

__all__ = [
    "CONCATENATE",
    "PAD",
    "PERMUTE",
    "RESHAPE",
    "SLICE",
    "STRIDED",
    "UPSAMPLE",
    "AxisSpec",
    "PadSpec",
    "PermuteSpec",
    "SliceSpec",
    "StridedSpec",
    "UpsampleSpec",
]

PAD_MODES = ("zeros", "circular", "reflect", "replicate")
"""What is around an axis that is padded."""


@dataclass(frozen=True)
class AxisSpec(LayerSettings):
    """One axis of the inputs, from 0."""

    axis: int


@dataclass(frozen=True)
class PermuteSpec(LayerSettings):
    """For each axis of the output the one of the input, from 0."""

    order: tuple[int, ...]


@dataclass(frozen=True)
class SliceSpec(LayerSettings):
    """The entries ``start``, ``start + step``, … of one axis, as many as the output has."""

    axis: int
    start: int
    step: int


@dataclass(frozen=True)
class StridedSpec(LayerSettings):
    """Entries of an axis at ``start + Σ steps · indices``, over an axis for each step in its place."""

    axis: int
    start: int
    steps: tuple[int, ...]


@dataclass(frozen=True)
class PadSpec(LayerSettings):
    """Entries before and after each axis, and what they are."""

    padding: tuple[tuple[int, int], ...]
    mode: str


@dataclass(frozen=True)
class UpsampleSpec(LayerSettings):
    """How many entries come of one along each axis of places: itself again, or what is on lines between."""

    factor: tuple[int, ...]
    mode: str


def _reshape(site: Site) -> Resolved:
    sizes = site.item.written.sizes
    size = prod(site.shape)
    if sizes is None:
        raise site.error(
            "sizes", f"reshape layer '{site.item.name}' has no sizes", hint="e.g. sizes: [8, -1]"
        )
    if sizes.count(-1) > 1 or any(n < 1 and n != -1 for n in sizes):
        raise site.error(
            "sizes", "sizes are whole numbers from 1, one of them perhaps -1", hint="e.g. [8, -1]"
        )
    known = prod(n for n in sizes if n != -1)
    shape = tuple(size // known if n == -1 else n for n in sizes)
    if prod(shape) != size:
        raise site.error(
            "sizes",
            f"'{site.item.name}' cannot make {size_text(tuple(sizes))} of {size_text(site.shape)}",
            hint=f"{size} entries in all; -1 stands for what is left",
        )
    return Resolved(shape)


def _permute(site: Site) -> Resolved:
    rank = len(site.shape)
    written = site.item.written.order
    if written is None:
        raise site.error("order", f"permute layer '{site.item.name}' has no order", hint="e.g. order: [2, 1]")
    order = tuple(axis_number(site, "order", axis, rank) for axis in written)
    if sorted(order) != list(range(rank)):
        raise site.error(
            "order",
            f"an order of {rank} axes has each of them once",
            hint=f"e.g. {[*range(1, rank + 1)][::-1]}",
        )
    return Resolved(tuple(site.shape[axis] for axis in order), PermuteSpec(order))


def _slice(site: Site) -> Resolved:
    written = site.item.written
    axis = axis_number(site, "axis", -1 if written.axis is None else written.axis, len(site.shape))
    size, step = site.shape[axis], 1 if written.step is None else written.step
    if step == 0:
        raise site.error(
            "step", f"'{site.item.name}' has a step of 0", hint="e.g. step: 2, or -1 for backwards"
        )
    start, stop, _ = slice(written.start, written.stop, step).indices(size)
    count = len(range(start, stop, step))
    if count == 0:
        raise site.error(
            "stop",
            f"'{site.item.name}' keeps nothing of an axis of {size}",
            hint="start and stop as in Python, from 0; start is kept, stop is not",
        )
    shape = (*site.shape[:axis], count, *site.shape[axis + 1 :])
    return Resolved(shape, SliceSpec(axis, start, step if count > 1 else 1))


def _strided(site: Site) -> Resolved:
    written, name = site.item.written, site.item.name
    axis = axis_number(site, "axis", -1 if written.axis is None else written.axis, len(site.shape))
    sizes, steps, start = written.sizes, written.steps, written.start or 0
    if sizes is None or steps is None or len(sizes) != len(steps) or min(sizes) < 1:
        raise site.error(
            "sizes",
            f"strided layer '{name}' needs a size and a step for each axis",
            hint="e.g. sizes: [5, 3], steps: [1, 1]",
        )
    ends = [step * (size - 1) for size, step in zip(sizes, steps, strict=True)]
    least, most = start + sum(min(end, 0) for end in ends), start + sum(max(end, 0) for end in ends)
    if least < 0 or most >= site.shape[axis]:
        raise site.error(
            "steps",
            f"'{name}' reads entries {least} to {most} of an axis of {site.shape[axis]}",
            hint="the entry at index (i, j, ...) is start + i * steps[0] + j * steps[1] + ..., from 0",
        )
    # Along an axis of one entry nothing steps; any number stands for that.
    used = tuple(step if size > 1 else 1 for size, step in zip(sizes, steps, strict=True))
    if 0 in used:
        raise site.error("steps", f"'{name}' has a step of 0", hint="steps of at least one, or backwards")
    shape = (*site.shape[:axis], *sizes, *site.shape[axis + 1 :])
    return Resolved(shape, StridedSpec(axis, start, used))


def _concatenate(site: Site) -> Resolved:
    written = site.item.written.axis
    axis = axis_number(site, "axis", 1 if written is None else written, len(site.shape))
    rest = [(*shape[:axis], *shape[axis + 1 :]) for shape in site.shapes]
    for position, shape in enumerate(site.shapes):
        if len(shape) != len(site.shape) or rest[position] != rest[0]:
            raise site.positions.error(
                site.item.input_path(position),
                f"'{site.item.inputs[position]}' with {size_text(shape)} does not fit behind "
                f"'{site.item.inputs[0]}' with {size_text(site.shape)} along axis {axis + 1}",
                hint="all other axes have equal sizes",
            )
    joined = sum(shape[axis] for shape in site.shapes)
    return Resolved((*site.shape[:axis], joined, *site.shape[axis + 1 :]), AxisSpec(axis))


def _pad(site: Site) -> Resolved:
    written = site.item.written
    pairs = _pairs(site, written.padding)
    mode = "zeros" if written.mode is None else written.mode
    if mode not in PAD_MODES:
        raise site.error(
            "mode", f"unknown mode '{shortened(mode)}' of padding", hint="one of " + ", ".join(PAD_MODES)
        )
    most = {"zeros": None, "replicate": None, "circular": 0, "reflect": 1}[mode]
    for axis, (size, pair) in enumerate(zip(site.shape, pairs, strict=True), start=1):
        if most is not None and max(pair) > size - most:
            raise site.error(
                "padding",
                f"axis {axis} of {size} entries cannot be padded by {max(pair)} in mode {mode}",
                hint=f"at most {size - most}",
            )
    shape = tuple(size + before + after for size, (before, after) in zip(site.shape, pairs, strict=True))
    return Resolved(shape, PadSpec(pairs, mode))


def _pairs(site: Site, value: object) -> tuple[tuple[int, int], ...]:
    """Entries before and after each axis, as they are written."""
    rank = len(site.shape)
    if isinstance(value, list) and len(value) == rank:
        pairs = [item if isinstance(item, list) else [item, item] for item in value]
        whole = [n for pair in pairs for n in pair]
        if all(type(n) is int and 0 <= n <= 1_000_000 for n in whole) and all(
            len(pair) == 2 for pair in pairs
        ):
            return tuple((before, after) for before, after in pairs)
    raise site.error(
        "padding",
        f"pad layer '{site.item.name}' needs one padding for each of {rank} axes",
        hint="a whole number from 0, or a pair [before, after], for each: e.g. [0, [1, 2]]",
    )


def _upsample(site: Site) -> Resolved:
    written, places = site.item.written, site.shape[1:]
    if not places:
        raise site.error("", f"upsample layer '{site.item.name}' takes channels at places", hint="[3, 8, 8]")
    mode = "nearest" if written.mode is None else written.mode
    if mode not in ("nearest", "linear"):
        raise site.error("mode", f"unknown mode '{shortened(mode)}' of upsampling", hint="nearest or linear")
    factor = written.factor if written.factor is not None else 2
    factors = (factor,) * len(places) if isinstance(factor, int) else tuple(factor)
    if len(factors) != len(places):
        raise site.error(
            "factor",
            f"{len(factors)} factors for {len(places)} axes of places",
            hint="one for all, or one an axis",
        )
    shape = (site.shape[0], *(size * times for size, times in zip(places, factors, strict=True)))
    return Resolved(shape, UpsampleSpec(factors, mode))


def _written_slice(layer: LayerSpec) -> dict[str, int | None]:
    settings = layer.settings
    assert isinstance(settings, SliceSpec)
    last = settings.start + settings.step * (layer.shape[settings.axis] - 1)
    stop: int | None = last + (1 if settings.step > 0 else -1)
    if stop is not None and stop < 0:
        stop = None  # backwards over the first entry
    return {"axis": settings.axis + 1, "start": settings.start, "stop": stop, "step": settings.step}


def _written(layer: LayerSpec) -> dict[str, object]:
    match layer.settings:
        case PermuteSpec(order):
            return {"order": [axis + 1 for axis in order]}
        case AxisSpec(axis):
            return {"axis": axis + 1}
        case PadSpec(padding, mode):
            return {"padding": [list(pair) for pair in padding], "mode": mode}
        case StridedSpec(axis, start, steps):
            sizes = list(layer.shape[axis : axis + len(steps)])
            return {"axis": axis + 1, "start": start, "sizes": sizes, "steps": list(steps)}
        case UpsampleSpec(factor, mode):
            return {"factor": list(factor), "mode": mode}
    return {"sizes": list(layer.shape)}


RESHAPE = LayerType("reshape", ("sizes",), _reshape, written=_written, of_numbers=True)
PERMUTE = LayerType("permute", ("order",), _permute, written=_written)
SLICE = LayerType("slice", ("axis", "start", "stop", "step"), _slice, written=_written_slice)
STRIDED = LayerType("strided", ("axis", "start", "sizes", "steps"), _strided, written=_written)
CONCATENATE = LayerType("concatenate", ("axis",), _concatenate, inputs=(2, None), written=_written)
PAD = LayerType("pad", ("padding", "mode"), _pad, written=_written)
UPSAMPLE = LayerType("upsample", ("factor", "mode"), _upsample, written=_written)
