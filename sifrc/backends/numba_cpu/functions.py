"""Private functions of a generated module: one compiled function for each lowered system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sifrc.backends.layout import call, lines_of
from sifrc.backends.numba_common.access import Block
from sifrc.backends.numba_common.functions import (
    PrivateFunction,
    function_text,
    is_guarded,
    loop_head,
    private_name,
    taken_names,
)
from sifrc.backends.numba_common.nests import Names, indented
from sifrc.backends.numba_common.parts import Parts
from sifrc.backends.numba_common.storage import Layout
from sifrc.backends.numba_cpu.statements import Writer
from sifrc.lower.program import Function
from sifrc.lower.statements import Loop

__all__ = ["DECORATOR", "CpuParts"]

DECORATOR = '@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})'
"""Sums may be reordered, so that they use vector instructions; NaN and infinity keep their meaning."""


@dataclass(frozen=True)
class CpuParts(Parts):
    """A module for the CPU taken apart: each private function is compiled as a whole."""

    def printed(self, function: Function) -> PrivateFunction:
        """The function with its loops."""
        layout = self.layouts[function.batched]
        groups = tuple(layout.used(function))
        name = private_name(function)
        names = Names(self.real, taken_names(self.program, groups))
        unnamed = len(self.program.guards) + 1
        guarded = is_guarded(function)
        body = _body(function, layout, names, unnamed)
        head = lines_of([group.name for group in groups], f"def {name}(", "):", 0)
        returns = ["Returns 0, or the code of the first check that failed (see ``GUARDS``)."]
        text = function_text(function, returns if guarded else [])
        tail = ["    return 0"] if guarded else []
        lines = [DECORATOR, *head, f"    {text}", *indented(body, 4), *tail]
        return PrivateFunction(function, name, groups, guarded, "\n".join(lines), frozenset(names.helpers))

    def number(self, array: str, total: bool) -> str:
        """By NumPy."""
        return f"float(np.{'sum' if total else 'mean'}({array}))"

    def call_lines(self, function: PrivateFunction, arguments: Sequence[str], indent: int) -> list[str]:
        """The call, and the error of the check that it returns."""
        if not function.guarded:
            return call([], function.name, arguments, indent)
        return [*call(["code"], function.name, arguments, indent), " " * indent + "_refuse(code)"]


def _body(function: Function, layout: Layout, names: Names, unnamed: int) -> list[str]:
    lines: list[str] = []
    known: dict[tuple[str, str], str] = {}
    outer = Block(layout, None, known, names.taken)
    for item in function.body:
        if isinstance(item, Loop):
            block = Block(layout, item.start, known, names.taken)
            inner = Writer(block, names, unnamed, 8).lines(item.body)
            lines += [loop_head(item), *indented(inner, 4)]
        else:
            lines += Writer(outer, names, unnamed).lines((item,))
    return lines or ["pass"]
