"""Convolutions as Torch's own functions: forward, transposed, and the gradient of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sifrc.backends.torch_eager.access import Names
from sifrc.backends.torch_eager.products import Product
from sifrc.lower.arrays import Load, Reshape
from sifrc.lower.statements import Convolve, Reading
from sifrc.scalar import print_code

__all__ = ["convolution_of"]


def convolution_of(statement: Convolve, names: Names) -> Product:
    """The convolution as an expression.

    Torch's functions take (batch, channels, places): labels of one kind are one dimension there.
    """
    loads = {"image": statement.image, "kernel": statement.kernel, "output": statement.output}
    image, kernel, output = (set(load.labels) for load in loads.values())
    axes = statement.axes
    places = {label for reading in axes for label in reading.labels}
    groups = tuple(label for label in statement.kernel.labels if label in image & kernel & output)
    apart = {*places, *groups}
    batch = tuple(label for label in statement.target.labels if label in (image & output) - apart)
    batch = batch or tuple(label for label in statement.image.labels if label in (image & output) - apart)
    inputs = tuple(label for label in statement.kernel.labels if label in (image & kernel) - apart)
    outputs = tuple(label for label in statement.kernel.labels if label in (kernel & output) - apart)
    own = {
        "image": (batch, (*groups, *inputs), tuple(reading.labels[0] for reading in axes)),
        "output": (batch, (*groups, *outputs), tuple(reading.labels[1] for reading in axes)),
        "kernel": ((*groups, *outputs), inputs, tuple(reading.labels[2] for reading in axes)),
    }
    arrays = {
        name: _arranged(load, *own[name], names) for name, load in loads.items() if name != statement.written
    }
    count = " * ".join(_size(label, statement, names) for label in groups)
    call = _call(statement, arrays, len(axes), count)
    text = _taken_apart(call, statement, own[statement.written][:2], names)
    biased = None
    channels = own[statement.written][1]
    if text == call and ", None, " in call and len(channels) == 1:
        biased = call.replace("{", "{{").replace("}", "}}").replace(", None, ", ", {}, ", 1), channels[0]
    scale = ""
    if statement.scale != 1:
        texts = {name: names.array(load) for name, load in statement.loads}
        scale = print_code(statement.scale, "torch", names=texts).text
    labels = tuple(label for group in own[statement.written] for label in group)
    return Product("other", text, "", scale, labels, biased)


def _arranged(
    load: Load, first: tuple[str, ...], second: tuple[str, ...], places: tuple[str, ...], names: Names
) -> str:
    """An array as (labels of the first kind, of the second, places)."""
    load, first, second = _left_joined(load, first, second)
    order = [load.labels.index(label) for label in (*first, *second, *places)]
    text = names.array(load)
    if order != sorted(order):
        text += f".permute({', '.join(map(str, order))})"
    for position, group in ((1, second), (0, first)):
        start = len(first) if position else 0
        if len(group) > 1:
            text += f".flatten({start}, {start + len(group) - 1})"
        elif not group:
            text += "[None]" if not position else f"[{':, ' * start}None]"
    return text


def _left_joined(
    load: Load, first: tuple[str, ...], second: tuple[str, ...]
) -> tuple[Load, tuple[str, ...], tuple[str, ...]]:
    """An array without taking a dimension apart that is one again for Torch: channels in groups."""
    last = load.changes[-1] if load.changes else None
    if not isinstance(last, Reshape) or last.joins:
        return load, first, second
    start, stop = last.position, last.position + len(last.sizes)
    group = load.labels[start:stop]
    if group not in (first, second):
        return load, first, second
    labels = (*load.labels[: start + 1], *load.labels[stop:])
    whole = replace(load, labels=labels, changes=load.changes[:-1])
    return whole, first[:1] if first == group else first, second[:1] if second == group else second


def _taken_apart(text: str, statement: Convolve, groups: Sequence[tuple[str, ...]], names: Names) -> str:
    """The result with a dimension for each label."""
    for position in (1, 0):
        group = groups[position]
        if len(group) > 1:
            sizes = ", ".join(_size(label, statement, names) for label in group)
            text += f".unflatten({position}, ({sizes}))"
        elif not group:
            text += "[0]" if not position else "[:, 0]"
    return text


def _size(label: str, statement: Convolve, names: Names) -> str:
    """Source text of the number of values of a label, by an operand that has it."""
    load = next(load for load in statement.operands if label in load.labels)
    size = names.sizes(load).get(label)
    return str(size) if size is not None else f"{names.array(load)}.shape[{load.labels.index(label)}]"


def _call(statement: Convolve, arrays: dict[str, str], rank: int, groups: str) -> str:
    """The call of Torch's function; ``groups`` is how many of channels there are, '' for one."""
    last = f", {groups}" if groups else ""
    axes = statement.axes
    stride, dilation = _numbers([r.stride for r in axes]), _numbers([r.dilation for r in axes])
    padding, symmetric = _numbers([r.padding for r in axes]), all(map(_is_symmetric, axes))
    if statement.written == "image":
        function = f"torch.nn.functional.conv_transpose{rank}d"
        read = f"{arrays['output']}, {arrays['kernel']}, None, {stride}"
        if symmetric:
            rest = _numbers([_rest(r) for r in axes])
            return f"{function}({read}, {padding}, {rest}, {groups or 1}, {dilation})"
        cut = [(-r.padding, r.sizes[0] + r.padding - _reach(r)) for r in axes]
        return _padded(f"{function}({read}, 0, 0, {groups or 1}, {dilation})", cut, [_reach(r) for r in axes])
    image = arrays["image"]
    if not symmetric:
        added = [(r.padding, _reach(r) - r.padding - r.sizes[0]) for r in axes]
        image = _padded(image, added, [r.sizes[0] for r in axes])
        padding = "0"
    if statement.written == "output":
        read = f"{image}, {arrays['kernel']}, None"
        return f"torch.nn.functional.conv{rank}d({read}, {stride}, {padding}, {dilation}{last})"
    entries = ", ".join(str(r.sizes[2]) for r in axes)
    inputs = f"{image}.shape[1]" + (f" // ({groups})" if groups else "")
    shape = f"({arrays['output']}.shape[1], {inputs}, {entries})"
    read = f"{image}, {shape}, {arrays['output']}"
    return f"torch.nn.grad.conv{rank}d_weight({read}, {stride}, {padding}, {dilation}{last})"


def _numbers(values: Sequence[int]) -> str:
    """A number for all axes, or one an axis."""
    return str(values[0]) if len(set(values)) == 1 else str(tuple(values))


def _reach(reading: Reading) -> int:
    """Entries from the first one of the first window to the last one of the last."""
    _, places, entries = reading.sizes
    return (places - 1) * reading.stride + (entries - 1) * reading.dilation + 1


def _rest(reading: Reading) -> int:
    """Entries of the padded image that no window reads."""
    return reading.sizes[0] + 2 * reading.padding - _reach(reading)


def _is_symmetric(reading: Reading) -> bool:
    """Whether there is as much padding after the image as before it."""
    return 0 <= _rest(reading) < reading.stride and reading.padding >= 0


def _padded(text: str, both: Sequence[tuple[int, int]], sizes: Sequence[int]) -> str:
    """Zeros before and after each axis of places, the last one first; less than none cuts.

    Torch cuts before it adds: where more is cut than there is, what is added comes first.
    """
    if any(-min(pair) > size for pair, size in zip(both, sizes, strict=True)):
        added = [(max(before, 0), max(after, 0)) for before, after in both]
        text, both = _pad(text, added), [(min(before, 0), min(after, 0)) for before, after in both]
    return _pad(text, both)


def _pad(text: str, both: Sequence[tuple[int, int]]) -> str:
    flat = ", ".join(f"{before}, {after}" for before, after in reversed(both))
    return f"torch.nn.functional.pad({text}, ({flat}))"
