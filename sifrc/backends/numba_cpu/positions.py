"""Where windows have their largest entries, as Numba code."""

from __future__ import annotations

from sifrc.backends.numba_common.access import Block
from sifrc.backends.numba_common.nests import Names, indented
from sifrc.lower.statements import LargestPosition, Reading

__all__ = ["position_lines"]


def position_lines(statement: LargestPosition, block: Block, names: Names) -> list[str]:
    """Loops over the places, and over the entries of a window, of which the first largest one is kept.

    NaN is larger than everything; entries that are not there are passed over.
    """
    value, best, at = (names.local(word) for word in ("value", "best", "position"))
    position = statement.axes[0].labels[0]
    for axis in statement.axes[1:]:
        position = f"({position})" if "*" in position else position
        position = f"{position} * {axis.sizes[0]} + {axis.labels[0]}"
    lines = [
        f"{value} = {block.entry(statement.image)}",
        f"if {at} < 0 or {value} > {best} or {value} != {value}:",
        f"    {best}, {at} = {value}, {position}",
    ]
    for axis in reversed(statement.axes):
        image, _, entry = axis.labels
        if _reaches_beyond(axis):
            lines = [f"if 0 <= {image} < {axis.sizes[0]}:", *indented(lines, 4)]
        lines = [f"{image} = {_index(axis)}", *lines]
        lines = [f"for {entry} in range({axis.sizes[2]}):", *indented(lines, 4)]
    lines = [f"{best}, {at} = {names.real}(0.0), -1", *lines, f"{block.entry(statement.target)} = {at}"]
    for label in reversed(statement.target.labels):
        lines = [f"for {label} in range({block.extent(statement.target, label)}):", *indented(lines, 4)]
    return lines


def _index(axis: Reading) -> str:
    """The place of the image that an entry of a window is."""
    _, place, entry = axis.labels
    pairs = ((axis.stride, place), (axis.dilation, entry))
    terms = (f"{step} * {label}" if step != 1 else label for step, label in pairs)
    return " + ".join(terms) + (f" - {axis.padding}" if axis.padding else "")


def _reaches_beyond(axis: Reading) -> bool:
    """Whether some window has entries that are not there."""
    size, places, entries = axis.sizes
    last = axis.stride * (places - 1) + axis.dilation * (entries - 1) - axis.padding
    return axis.padding > 0 or last >= size
