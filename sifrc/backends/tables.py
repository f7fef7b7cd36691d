"""Fixed tables of a module: the lines that compute them, for both Python frameworks."""

from __future__ import annotations

from sifrc.backends.layout import statement
from sifrc.ir.quantity import Storage
from sifrc.lower.arrays import Family
from sifrc.lower.program import Program
from sifrc.scalar.printing import Dialect, print_code

__all__ = ["table_family", "table_lines"]


def table_family(program: Program) -> Family | None:
    """The fixed tables, if the program reads such."""
    return next((f for f in program.families if f.storage is Storage.TABLE), None)


def table_lines(program: Program, dialect: Dialect) -> list[str]:
    """Statements that put each table into the dict ``found``; ``_indices`` gives arrays of indices."""
    family = table_family(program)
    if family is None:
        return []
    lines: list[str] = []
    for (index, shape), formula in zip(family.shapes, family.formulas, strict=True):
        names = ", ".join(formula.arguments)
        lines += statement(f"{names} = _indices({', '.join(map(str, shape))})", 4)
        tensors = {name: (name,) for name in formula.arguments}
        code = print_code(formula.value_form((0,) * len(shape)), dialect, tensors=tensors)
        lines += statement(f"found[{index}] = {code.text}", 4)
    return lines
