"""Views, permutations, slices and what joins tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch

from sifrc.importing.atoms import SAMPLES, Atoms, Value, expanded, fresh, permuted, renewed, size_of, viewed
from sifrc.importing.calls import Call, Refused, axes_for

__all__ = ["RULES", "joined", "sliced"]


def _view(call: Call) -> Value:
    value, sizes = call.value("self"), call.sizes()
    found = viewed(value, sizes)
    if found is not None:
        return found
    # Axes are cut through: a layer of its own, if samples stay by themselves.
    if (SAMPLES,) not in value.dims or not any(samples and size == 1 for size, samples in sizes):
        raise Refused("a view that takes samples apart", "views that keep the dimension of the samples")
    at = next(n for n, (_, samples) in enumerate(sizes) if samples)
    if value.dims.index((SAMPLES,)) != 0 or at != 0:
        raise Refused("a view of dimensions before the samples", "samples first")
    _, source = call.natural(value)
    layout = fresh(size for size, _ in sizes[1:])
    name = call.layer("reshape", source, hint="reshape", sizes=[size for size, _ in sizes[1:]])
    return Value(name, layout, ((SAMPLES,), *layout))


def _permute(call: Call) -> Value:
    value = call.value("self")
    return permuted(value, [int(dim) % len(value.dims) for dim in call["dims"]])


def _transpose(call: Call) -> Value:
    value = call.value("self")
    order = list(range(len(value.dims)))
    if call.name == "t":
        order = order[::-1]
    else:
        one, two = (int(call[name]) % len(order) for name in ("dim0", "dim1"))
        order[one], order[two] = two, one
    return permuted(value, order)


def _unsqueeze(call: Call) -> Value:
    value = call.value("self")
    at = int(call["dim"]) % (len(value.dims) + 1)
    return replace(value, dims=(*value.dims[:at], (), *value.dims[at:]))


def _squeeze(call: Call) -> Value:
    value = call.value("self")
    dims = call.dims() if "dim" in call.arguments else range(len(value.dims))
    return replace(value, dims=tuple(a for n, a in enumerate(value.dims) if a or n not in dims))


def _expand(call: Call) -> Value:
    return expanded(call.value("self"), call.sizes())


def _broadcast(call: Call) -> list[Value]:
    """Each as it is: what reads them repeats dimensions of one entry."""
    return [call.as_value(each) for each in call["tensors"]]


def sliced(call: Call, value: Value, dim: int, start: int, stop: int, step: int = 1) -> Value:
    """Some entries of a dimension."""
    atoms = value.dims[dim]
    size = size_of(atoms)
    count = len(range(start, stop, step))
    if count == size and step == 1:
        return value
    if SAMPLES in atoms:
        raise Refused(
            "a part of the samples", "all of them; a batch is one set of samples for all of a network"
        )
    if count == 0:
        raise Refused("a slice without entries")
    own = fresh([count])[0]
    stated, source = call.directly(value)
    outer = _outer(stated, atoms)
    if outer is not None and step == 1:
        # A range of whole runs of an axis: no other order is needed.
        axis, rest = outer
        inner = size_of(rest)
        keys: dict[str, Any] = {"axis": axis + 1, "start": start * inner, "stop": stop * inner}
        layout = (*stated.layout[:axis], (*own, *rest), *stated.layout[axis + 1 :])
    else:
        stated, (axis,) = call.apart(stated, [dim])
        assert isinstance(stated.source, str)
        source = stated.source
        keys = {"axis": axis + 1, "start": start, "stop": stop} | ({"step": step} if step != 1 else {})
        layout = (*stated.layout[:axis], own, *stated.layout[axis + 1 :])
    keys = {key: n for key, n in keys.items() if (key, n) != ("start", 0)}
    name = call.layer("slice", source, **keys)
    return Value(name, layout, (*value.dims[:dim], own, *value.dims[dim + 1 :]), value.whole)


def _outer(value: Value, atoms: Atoms) -> tuple[int, Atoms] | None:
    """The axis that begins with these atoms, and what of it comes after them."""
    for n, axis in enumerate(value.layout):
        if atoms and axis[: len(atoms)] == atoms:
            return n, axis[len(atoms) :]
    return None


def _places(call: Call, size: int) -> range:
    """The entries of a dimension that ``start``, ``end`` and ``step`` name."""
    stop = call["end"]
    return range(size)[slice(call["start"], None if stop is None else int(stop), int(call["step"]))]


def _slice(call: Call) -> Value:
    value, dim = call.value("self"), call.dim()
    size = size_of(value.dims[dim])
    start, stop = call["start"], call["end"]
    if SAMPLES in value.dims[dim]:
        if start in (None, 0) and (stop is None or int(stop) >= 2**62) and int(call["step"]) == 1:
            return value
        raise Refused("a part of the samples", "all of them")
    places = _places(call, size)
    return sliced(call, value, dim, places.start, places.stop, places.step)


def _select(call: Call) -> Value:
    value, dim = call.value("self"), call.dim()
    size = size_of(value.dims[dim])
    if SAMPLES in value.dims[dim]:
        raise Refused("one of the samples by itself", "operators over all samples")
    at = int(call["index"]) % size
    found = sliced(call, value, dim, at, at + 1)
    return replace(found, dims=(*found.dims[:dim], *found.dims[dim + 1 :]))


def _parts(call: Call) -> list[Value]:
    """Parts of a dimension, after each other."""
    value, dim = call.value("self"), call.dim()
    sizes = [size_in_one(part.shape[dim]) for part in call.node.meta["val"]]
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    return [sliced(call, value, dim, end - size, end) for size, end in zip(sizes, ends, strict=True)]


def size_in_one(size: Any) -> int:
    """A size that does not depend on the batch."""
    if not isinstance(size, int):
        raise Refused("a part of the samples", "all of them")
    return size


def _unbind(call: Call) -> list[Value]:
    value, dim = call.value("self"), call.dim()
    if SAMPLES in value.dims[dim]:
        raise Refused("samples one by one", "operators over all samples")
    found = [sliced(call, value, dim, n, n + 1) for n in range(size_of(value.dims[dim]))]
    return [replace(part, dims=(*part.dims[:dim], *part.dims[dim + 1 :])) for part in found]


def _concatenate(call: Call) -> Value:
    given = [part for part in call["tensors"] if not isinstance(part, torch.Tensor) or part.numel()]
    values = [call.as_value(part) for part in given]
    rank = len(values[0].dims)
    dim = int(call["dim"]) % rank
    return joined(call, values, dim)


def joined(call: Call, values: Sequence[Value], dim: int) -> Value:
    """Tensors after each other along a dimension."""
    if len(values) == 1:
        return values[0]
    if any(SAMPLES in value.dims[dim] for value in values):
        raise Refused("samples of several tensors after each other", "one batch")
    of_samples = next((value for value in values if value.of_samples), values[0])
    sources: list[str] = []
    for value in values:
        axes = [
            own
            for n, (own, theirs) in enumerate(zip(value.dims, of_samples.dims, strict=True))
            if n == dim or (SAMPLES,) not in (own, theirs)
        ]
        source = call.draft.arranged(value, axes_for(axes))
        if source in sources:
            source = call.layer("scale", source, hint="again", value=1.0)
        sources.append(source)
    axis = len(axes_for(of_samples.dims[:dim])) + 1
    name = call.layer("concatenate", *sources, axis=axis)
    if any(SAMPLES in atoms and atoms != (SAMPLES,) for atoms in of_samples.dims):
        raise Refused("tensors whose samples are joined with another dimension, after each other")
    dims = renewed(of_samples.dims, {dim: sum(size_of(value.dims[dim]) for value in values)})
    return Value(name, axes_for(dims), dims)


def _stack(call: Call) -> Value:
    values = [call.as_value(part) for part in call["tensors"]]
    at = int(call["dim"]) % (len(values[0].dims) + 1)
    values = [replace(v, dims=(*v.dims[:at], (), *v.dims[at:])) for v in values]
    return joined(call, values, at)


def _flip(call: Call) -> Value:
    value = call.value("self")
    for dim in call.dims("dims"):
        size = size_of(value.dims[dim])
        if size > 1:
            value = sliced(call, value, dim, size - 1, -1, -1)
    return value


def _scatter(call: Call) -> Value:
    """slice_scatter: some entries of a dimension are those of another tensor."""
    value, source, dim = call.value("self"), call.value("src"), call.dim()
    size = size_of(value.dims[dim])
    places = _places(call, size)
    if places.step != 1:
        raise Refused("entries in steps put into a tensor", "entries after each other")
    before = [sliced(call, value, dim, 0, places.start)] if places.start else []
    after = [sliced(call, value, dim, places.stop, size)] if places.stop < size else []
    return joined(call, [*before, source, *after], dim)


def _roll(call: Call) -> Value:
    value = call.value("self")
    shifts, dims = call["shifts"], call["dims"]
    if not dims:
        raise Refused("a roll over all dimensions at once", "a roll along dimensions")
    for shift, dim in zip(shifts, dims, strict=True):
        dim = int(dim) % len(value.dims)
        size = size_of(value.dims[dim])
        shift = int(shift) % size
        if shift:
            parts = [sliced(call, value, dim, size - shift, size), sliced(call, value, dim, 0, size - shift)]
            value = joined(call, parts, dim)
    return value


RULES: Mapping[str, Callable[[Call], Any]] = MappingProxyType(
    dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as"), _view)
    | dict.fromkeys(("transpose", "t", "mT", "swapaxes"), _transpose)
    | dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), _parts)
    | {
        "permute": _permute,
        "unsqueeze": _unsqueeze,
        "squeeze": _squeeze,
        "expand": _expand,
        "broadcast_tensors": _broadcast,
        "expand_as": _expand,
        "slice": _slice,
        "narrow": lambda call: sliced(
            call, call.value("self"), call.dim(), int(call["start"]), int(call["start"]) + int(call["length"])
        ),
        "select": _select,
        "unbind": _unbind,
        "cat": _concatenate,
        "stack": _stack,
        "flip": _flip,
        "roll": _roll,
        "slice_scatter": _scatter,
    }
)
"""Operator -> what it becomes."""
