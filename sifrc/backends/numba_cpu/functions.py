"""Private functions of a generated module: one compiled function for each lowered system."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from sifrc.backends.layout import lines_of
from sifrc.backends.numba_cpu.access import Block
from sifrc.backends.numba_cpu.nests import Names, indented
from sifrc.backends.numba_cpu.statements import Writer
from sifrc.backends.numba_cpu.storage import Group, Layout
from sifrc.backends.text import LINE_LENGTH, docstring
from sifrc.lower.access import flat
from sifrc.lower.program import Function, Program
from sifrc.lower.statements import Guard, Loop, SolveSystem

__all__ = ["DECORATOR", "PrivateFunction", "private_functions"]

DECORATOR = '@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})'
"""Sums may be reordered, so that they use vector instructions; NaN and infinity keep their meaning."""

_RESERVED = frozenset(
    {"k", "p", "i", "j", "l", "m", "n", "o", "q", "r", "s", "u", "v", "w", "np", "math", "len", "range"}
)


@dataclass(frozen=True)
class PrivateFunction:
    """A printed function.

    Args:
        function: what it does.
        name: with leading underscore, ``_one`` at the end for one sample.
        groups: its arguments, in order.
        guarded: whether it returns the code of a check that failed.
        text: source text.
        helpers: helper functions that it calls.
    """

    function: Function
    name: str
    groups: tuple[Group, ...]
    guarded: bool
    text: str
    helpers: frozenset[str]


def private_functions(
    program: Program, real: str, layouts: dict[bool, Layout]
) -> tuple[PrivateFunction, ...]:
    """All functions of a program, in its order."""
    return tuple(
        _private(program, function, real, layouts[function.batched]) for function in program.functions
    )


def _private(program: Program, function: Function, real: str, layout: Layout) -> PrivateFunction:
    groups = tuple(layout.used(function))
    name = f"_{function.name}" + ("" if function.batched else "_one")
    taken = {group.name for group in groups} | {f.code for f in program.families} | set(_RESERVED)
    names = Names(real, taken)
    unnamed = len(program.guards) + 1
    guarded = any(isinstance(statement, Guard | SolveSystem) for statement in flat(function.body))
    body = _body(function, layout, names, unnamed)
    head = lines_of([group.name for group in groups], f"def {name}(", "):", 0)
    returns = ["Returns 0, or the code of the first check that failed (see ``GUARDS``)."] if guarded else []
    text = docstring([function.title.rstrip(".") + ".", _equations(function.equations), *returns], indent=4)
    tail = ["    return 0"] if guarded else []
    lines = [DECORATOR, *head, f"    {text}", *indented(body, 4), *tail]
    return PrivateFunction(function, name, groups, guarded, "\n".join(lines), frozenset(names.helpers))


def _equations(equations: Iterable[str]) -> str:
    """A paragraph of equations, one a line; a long one is continued on the next line."""
    lines = [
        part
        for line in equations
        for part in textwrap.wrap(
            line,
            LINE_LENGTH - 4,
            initial_indent="    ",
            subsequent_indent="        ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
    return "\n".join(["Equations:", *lines]) if lines else ""


def _body(function: Function, layout: Layout, names: Names, unnamed: int) -> list[str]:
    lines: list[str] = []
    known: dict[tuple[str, str], str] = {}
    outer = Block(layout, None, known, names.taken)
    for item in function.body:
        if isinstance(item, Loop):
            block = Block(layout, item.start, known, names.taken)
            inner = Writer(block, names, unnamed, 8).lines(item.body)
            bounds = f"{item.start}, {item.stop}" + (f", {item.step}" if item.step != 1 else "")
            lines += [f"for k in range({bounds}):", *indented(inner, 4)]
        else:
            lines += Writer(outer, names, unnamed).lines((item,))
    return lines or ["pass"]
