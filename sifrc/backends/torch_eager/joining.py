"""Sums of arrays at different places of one axis, each zero elsewhere: arrays side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sympy import Add, Expr, Symbol

from sifrc.backends.torch_eager.access import Names
from sifrc.backends.torch_eager.expressions import Entry
from sifrc.lower.arrays import Gather, Load

__all__ = ["side_by_side"]


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
    found: list[tuple[int, int, Expr, str]] = []
    for term in value.args if isinstance(value, Add) else ():
        sign, symbol = term.as_coeff_Mul()
        load = loads.get(symbol.name) if isinstance(symbol, Symbol) and sign in (1, -1) else None
        if load is None or load.labels != target.labels or not load.changes:
            continue
        last, before = load.changes[-1], replace(load, changes=load.changes[:-1])
        shape = names.shape(before)
        if not isinstance(last, Gather) or last.steps != (1,) or last.divisor != 1 or shape is None:
            continue
        size = shape[last.position]
        if size is not None and last.offset <= 0:
            found.append((-last.offset, size, term, f"{'-' if sign == -1 else ''}{names.array(before)}"))
            dimension, whole = last.position, last.sizes[0]
    found.sort(key=lambda part: part[0])
    ends = [0, *(start + size for start, size, _, _ in found)]
    if len(found) < 2 or ends != [*(start for start, _, _, _ in found), whole]:
        return value, {}
    name = "joined"
    while name in loads:
        name += "_"
    text = f"torch.cat(({', '.join(part for _, _, _, part in found)}), {dimension})"
    rest = value - Add(*(term for _, _, term, _ in found))
    return rest + Symbol(name, real=True), {name: Entry(text, target.labels)}
