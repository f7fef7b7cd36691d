"""Private functions of generated modules: one for each lowered system."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sifrc.backends.numba_common.storage import Group
from sifrc.backends.text import LINE_LENGTH, docstring
from sifrc.lower.access import flat
from sifrc.lower.program import Function, Program
from sifrc.lower.statements import Guard, Loop, SolveSystem

__all__ = ["PrivateFunction", "function_text", "is_guarded", "loop_head", "private_name", "taken_names"]

_RESERVED = frozenset(
    {*"kpijlmnoqrsuvw", "np", "math", "len", "range", "step"},
)
"""Names that no array may have: labels, and what functions use."""


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
        launched: whether it consists of launches alone, on machines that launch.
    """

    function: Function
    name: str
    groups: tuple[Group, ...]
    guarded: bool
    text: str
    helpers: frozenset[str]
    launched: bool = True


def private_name(function: Function) -> str:
    """What the function is called."""
    return f"_{function.name}" + ("" if function.batched else "_one")


def taken_names(program: Program, groups: Sequence[Group]) -> set[str]:
    """Names that locals of a function with these arguments may not have."""
    return {group.name for group in groups} | {f.code for f in program.families} | set(_RESERVED)


def is_guarded(function: Function) -> bool:
    """Whether it checks something."""
    return any(isinstance(statement, Guard | SolveSystem) for statement in flat(function.body))


def loop_head(loop: Loop) -> str:
    """The line that begins a loop over k."""
    step = f", {loop.step}" if loop.step != 1 else ""
    return f"for k in range({loop.start}, {loop.stop}{step}):"


def function_text(function: Function, more: Sequence[str] = ()) -> str:
    """Its docstring: title, equations, further paragraphs."""
    return docstring([function.title.rstrip(".") + ".", _equations(function.equations), *more], indent=4)


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
