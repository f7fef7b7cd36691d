"""Sums of arrays at different places of one axis, each zero elsewhere: arrays side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sympy import Add, Expr, Symbol

from sifrc.backends.torch_eager.access import Names
from sifrc.backends.torch_eager.expressions import Entry
from sifrc.lower.arrays import Gather, Load

__all__ = ["side_by_side"]


@dataclass(frozen=True)
class _Part:
    """An array at a place of the axis.

    Args:
        start: its first entry.
        size: of it along the axis.
        term: what it is in the sum.
        text: source text.
    """

    start: int
    size: int
    term: Expr
    text: str

    @property
    def stop(self) -> int:
        """The entry after its last one."""
        return self.start + self.size


def side_by_side(
    value: Expr, loads: Mapping[str, Load], target: Load, names: Names
) -> tuple[Expr, dict[str, Entry]]:
    """A sum in which neighbouring arrays make one, and what the new symbol stands for.

    Args:
        value: over symbols of entries.
        loads: these entries.
        target: what gets the value.
        names: how the function refers to arrays.
    """
    found: list[_Part] = []
    dimension = whole = 0
    for term in value.as_ordered_terms() if isinstance(value, Add) else ():
        sign, symbol = term.as_coeff_Mul()
        load = loads.get(symbol.name) if isinstance(symbol, Symbol) and sign in (1, -1) else None
        if load is None or load.labels != target.labels or not load.changes:
            continue
        last, before = load.changes[-1], replace(load, changes=load.changes[:-1])
        shape = names.shape(before)
        if not isinstance(last, Gather) or last.steps != (1,) or last.divisor != 1 or shape is None:
            continue
        size, place = shape[last.position], (last.position, last.sizes[0])
        if size is None or last.offset > 0 or size - last.offset > last.sizes[0]:
            continue
        if place == (dimension, whole) or not found:
            text = f"{'-' if sign == -1 else ''}{names.array(before)}"
            found.append(_Part(-last.offset, size, term, text))
            dimension, whole = place
    joined = _joined(found, 0, whole, dimension) if len(found) > 1 else None
    if joined is None:
        return value, {}
    name = "joined"
    while name in loads:
        name += "_"
    rest = value - Add(*(part.term for part in found))
    return rest + Symbol(name, real=True), {name: Entry(joined, target.labels, computed=True)}


def _joined(parts: Sequence[_Part], start: int, stop: int, dimension: int) -> str | None:
    """Source text of a sum of arrays from one entry to another; None where they leave some out."""
    texts = [part.text for part in parts if (part.start, part.stop) == (start, stop)]
    rest = sorted((part for part in parts if part.size < stop - start), key=lambda part: part.start)
    pieces: list[list[_Part]] = []
    end = start
    for part in rest:
        if pieces and part.start < end:
            pieces[-1].append(part)
        elif part.start == end:
            pieces.append([part])
        else:
            return None
        end = max(end, part.stop)
    if rest:
        if end != stop or len(pieces) < 2:
            return None
        inner = [_joined(each, each[0].start, max(part.stop for part in each), dimension) for each in pieces]
        if None in inner:
            return None
        texts.append(f"torch.cat(({', '.join(map(str, inner))}), {dimension})")
    return " + ".join(texts).replace("+ -", "- ")
