"""Fixed tables of a module: the lines that make them, for both Python frameworks."""

from __future__ import annotations

import textwrap
from functools import singledispatch

from sifrc.backends.layout import statement
from sifrc.backends.text import LINE_LENGTH
from sifrc.ir.arithmetic import NUMPY
from sifrc.ir.fixed import Entries, Listed, table_values
from sifrc.ir.quantity import Storage
from sifrc.lower.arrays import Family
from sifrc.lower.program import Program
from sifrc.scalar.function import ScalarFunction
from sifrc.scalar.printing import Dialect, print_code

__all__ = ["table_family", "table_lines", "uses_indices"]


def table_family(program: Program) -> Family | None:
    """The fixed tables, if the program reads such."""
    return next((f for f in program.families if f.storage is Storage.TABLE), None)


def uses_indices(program: Program) -> bool:
    """Whether some table is a function of its indices."""
    family = table_family(program)
    return family is not None and any(isinstance(each, ScalarFunction) for each in family.entries)


def table_lines(program: Program, dialect: Dialect) -> list[str]:
    """Statements that put each table into the dict ``found``.

    ``_indices`` gives arrays of indices, ``_listed`` an array of numbers.
    """
    family = table_family(program)
    if family is None:
        return []
    return [
        line
        for (index, shape), entries in zip(family.shapes, family.entries, strict=True)
        for line in _table(entries, index, tuple(size or 0 for size in shape), dialect)
    ]


@singledispatch
def _table(entries: Entries, index: int | None, shape: tuple[int, ...], dialect: Dialect) -> list[str]:
    raise TypeError(f"no table of {type(entries).__name__}")


@_table.register
def _(entries: ScalarFunction, index: int | None, shape: tuple[int, ...], dialect: Dialect) -> list[str]:
    lines = statement(f"{', '.join(entries.arguments)} = _indices({', '.join(map(str, shape))})", 4)
    tensors = {name: (name,) for name in entries.arguments}
    code = print_code(entries.value_form((0,) * len(shape)), dialect, tensors=tensors)
    if code.helpers:
        # These are functions of a number, not of an array.
        numbers = table_values(entries, shape, NUMPY).ravel().tolist()
        return _table(Listed(tuple(numbers)), index, shape, dialect)
    return [*lines, *statement(f"found[{index}] = {code.text}", 4)]


@_table.register
def _(entries: Listed, index: int | None, shape: tuple[int, ...], dialect: Dialect) -> list[str]:
    """A list on one line, or the numbers as a text of several."""
    shaped = f".reshape({', '.join(map(str, shape))})" if len(shape) > 1 else ""

    def made(numbers: str) -> list[str]:
        array = (
            f"torch.tensor({numbers}, dtype=torch.float64)" if dialect == "torch" else f"np.array({numbers})"
        )
        return statement(f"found[{index}] = {array}{shaped}", 4)

    short = made(f"[{', '.join(map(repr, entries.numbers))}]")
    if len(short) == 1 and len(short[0]) <= LINE_LENGTH:
        return short
    rows = textwrap.wrap(" ".join(map(repr, entries.numbers)), LINE_LENGTH - 11)
    text = ["    text = (", *(f'        "{row}{" " * (row is not rows[-1])}"' for row in rows), "    )"]
    return [*text, "    numbers = [float(number) for number in text.split()]", *made("numbers")]
