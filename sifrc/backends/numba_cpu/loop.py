"""Pieces of the compiled loop over batches, for the batch of the step and for one of its periodic part."""

from __future__ import annotations

from collections.abc import Sequence

from sifrc.backends.layout import call
from sifrc.backends.numba_common.functions import PrivateFunction
from sifrc.backends.numba_common.nests import indented
from sifrc.backends.numba_common.parts import Parts
from sifrc.backends.numba_common.storage import Group

__all__ = ["checked_call", "returned_age", "sample_lines"]


_LETTERS = "jlmnoq"
"""Of the axes of an input."""


def sample_lines(parts: Parts, targets: Group | None, count: str, first: str, prefix: str = "") -> list[str]:
    """Copy samples and their targets to where the functions read them; from column 0.

    Args:
        parts: of the module.
        targets: their variable, if something reads them.
        count: how many.
        first: position of the first one in the order.
        prefix: of the variables.
    """
    letters = _LETTERS[: len(parts.module.input_shape)]
    entry = ", ".join(letters)
    copied = [f"{prefix}rows[p, {entry}] = {prefix}samples[sample, {entry}]"]
    for dimension, letter in reversed([*enumerate(letters, start=1)]):
        copied = [f"for {letter} in range({prefix}samples.shape[{dimension}]):", *indented(copied, 4)]
    lines = [
        f"for p in range({count}):",
        f"    sample = {prefix}order[{first} + p]",
        *indented(copied, 4),
    ]
    if targets is None:
        return lines
    name = f"{prefix}{targets.name}"
    if parts.classes:
        return [
            *lines,
            f"    {name}[p, :] = {parts.real}(0.0)",
            f"    {name}[p, {prefix}labels[sample]] = {parts.real}(1.0)",
        ]
    return [
        *lines,
        f"    for j in range({prefix}labels.shape[1]):",
        f"        {name}[p, j] = {prefix}labels[sample, j]",
    ]


def returned_age(parts: Parts) -> str:
    """What the loop returns besides, where something runs only now and then."""
    return ", age" if parts.program.periodic else ""


def checked_call(parts: Parts, function: PrivateFunction, arguments: Sequence[str], indent: int) -> list[str]:
    """A call, with the loop's return where a check fails."""
    if not function.guarded:
        return call([], function.name, list(arguments), indent)
    pad = " " * indent
    lines = call(["code"], function.name, list(arguments), indent)
    return [*lines, f"{pad}if code != 0:", f"{pad}    return total, code, position{returned_age(parts)}"]
