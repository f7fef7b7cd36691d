"""Unknowns of conjugate gradients as arrays on the device; a number is an array of one."""

from __future__ import annotations

from collections.abc import Sequence

from sifrc.backends.layout import lines_of
from sifrc.backends.numba_common.access import Block
from sifrc.backends.text import LINE_LENGTH
from sifrc.lower.arrays import Load
from sifrc.lower.statements import ConjugateGradients

__all__ = ["array_text", "search_text"]


def array_text(block: Block, load: Load) -> str:
    """An array, or the part of one that holds a number."""
    if load.labels:
        return block.array(load)
    name, _, index = block.entry(load).rstrip("]").partition("[")
    return f"{name}[{index} : {index} + 1]"


def search_text(name: str, block: Block, statement: ConjugateGradients, indent: int) -> list[str]:
    """The lines that begin a search, with the arrays of each unknown as the module's class takes them.

    Args:
        name: of the search.
        block: names of the arrays.
        statement: the search.
        indent: spaces before each line.
    """
    tolerance = block.entry(statement.tolerance)
    unknowns = [
        [
            array_text(block, load)
            for load in (own.solution, own.rhs, own.residual, own.direction, own.product)
        ]
        for own in statement.unknowns
    ]
    pad, opening = " " * indent, f"{name} = _Search("
    flat = f"{pad}{opening}{', '.join([tolerance, *(_tuple(own) for own in unknowns)])})"
    if len(flat) <= LINE_LENGTH:
        return [flat]
    inner = [line for own in unknowns for line in lines_of(own, "(", "),", indent + 4)]
    return [f"{pad}{opening}", f"{pad}    {tolerance},", *inner, f"{pad})"]


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)})"
