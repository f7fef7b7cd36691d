"""Loops over steps in Numba modules for the CPU."""

from __future__ import annotations

from collections.abc import Sequence

from sifrc.backends.numba_common.access import Block
from sifrc.lower.statements import Steps

__all__ = ["steps_lines"]


def steps_lines(statement: Steps, block: Block, real: str, body: Sequence[str]) -> list[str]:
    """The loop: arrays of one step lie in one piece, and are copied to their place after it.

    Args:
        statement: the loop.
        block: how its arrays are called.
        real: type of numbers.
        body: lines of one step.
    """
    last = statement.count - 1
    steps = f"range({last}, -1, -1)" if statement.backwards else f"range({statement.count})"
    lines = [f"{block.local(before)}[:] = {real}(0.0)" for _, before in statement.carried]
    lines += [f"for step in {steps}:", *(f"    {line}" for line in body)]
    for now, whole in statement.stored:
        leading = ":, " * whole.labels.index(statement.over)
        lines.append(f"    {block.local(whole)}[{leading}step] = {block.local(now)}")
    lines += [f"    {block.local(before)}[:] = {block.local(now)}" for now, before in statement.carried]
    return lines
