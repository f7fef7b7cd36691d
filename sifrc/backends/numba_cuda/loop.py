"""The loop over batches in CUDA modules: it launches, and asks once a step whether a check failed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar

from sifrc.backends.layout import call, lines_of
from sifrc.backends.numba_common.functions import PrivateFunction
from sifrc.backends.numba_common.loop import OTHER, LoopText, Piece
from sifrc.backends.numba_common.nests import indented
from sifrc.backends.numba_common.storage import Group

__all__ = ["CudaLoop"]


class CudaLoop(LoopText):
    """A loop of Python; objectives are summed on the device."""

    arguments: ClassVar[tuple[str, ...]] = ("checks", "sums", "graphs")
    fresh: ClassVar[str] = "fresh"
    total: ClassVar[str] = "float(_on_host(sums)[0])"

    def begun(self, other: bool) -> list[str]:
        """The order goes to the device once."""
        lines = ["_put(sums, np.zeros(1))", "order = _sent(order)"]
        if not other:
            return lines
        more = ["if elsewhere:", f"    {OTHER}order = _sent({OTHER}order)"]
        return [*lines, "first = 0", f"elsewhere = len({OTHER}order) > 0", *more]

    def samples(self, targets: Group | None, count: str, first: str, prefix: str = "") -> list[str]:
        """One launch for all samples, and one for their targets."""
        rows = f"{prefix}rows"
        lines = [f"_take({prefix}samples, {prefix}order, {first}, {rows}, {count})"]
        if targets is None:
            return lines
        take = "_take_classes" if self.parts.classes else "_take"
        return [*lines, f"{take}({prefix}labels, {prefix}order, {first}, {prefix}{targets.name}, {count})"]

    def filled(self, states: Group, targets: Group | None, batched: bool) -> list[str]:
        """The same for one sample."""
        if batched:
            return self.samples(targets, "batch", "position")
        return [f"rows, {states.name} = work_x[0], work_x", *self.samples(targets, "1", "position")]

    def call(self, function: PrivateFunction, arguments: Sequence[str], indent: int) -> list[str]:
        """Checks are looked at before the update."""
        return call([], function.name, [*arguments, *(["checks"] if function.guarded else [])], indent)

    def checked(self, objective: Group, batched: bool, code: int) -> list[str]:
        """Like any check."""
        return [f"_check({objective.name}, checks, {code})"]

    def added(self, objective: Group, batched: bool) -> list[Piece]:
        """Nothing is changed where a check has failed; this is where the host waits for the device."""
        verdict = [
            "code = checks.code()",
            "if code != 0:",
            f"    return {self.total}, code, position{self.parts.returned_age}",
        ]
        return [Piece(verdict), Piece([f"_launch(_add_up, 1, {objective.name}, sums)"], launched=True)]

    def periodic(self, fill: list[str], there: list[str], here: list[str], launched: bool) -> list[Piece]:
        """Samples first; which batch is meant is known before all launches."""
        on_other = "if fresh and elsewhere:"
        lines = [on_other, *indented(there, 4), "elif fresh:", *indented(here, 4)]
        first = [Piece([on_other, *indented(fill, 4)])] if fill else []
        return [*first, Piece(lines, launched)]

    def arranged(self, pieces: Sequence[Piece], given: Sequence[str]) -> tuple[list[str], list[str]]:
        """Launches that follow each other are a function, of which a graph can be made."""
        step = ["fresh = age >= period"] if self.parts.program.periodic else []
        before = ["# What a step launches without the host; a graph can be made of each part."]
        before += lines_of(given, "graphs.at(", ")", 4)
        before[1:] = [line[4:] for line in before[1:]]
        count = 0
        for launched, some in groupby(pieces, lambda piece: piece.launched):
            lines = [line for piece in some for line in piece.lines]
            if launched:
                count += 1
                flags = [flag for flag in ("fresh", "elsewhere") if any(flag in line for line in lines)]
                typed = ", ".join(f"{flag}: bool" for flag in flags)
                before += ["", f"def part_{count}({typed}) -> None:", *indented(lines, 4)]
                lines = [f"graphs.run({', '.join([f'part_{count}', *flags])})"]
            step += lines
        before.append("")
        return before, step

    def saved(self, group: Group) -> list[str]:
        """Array by array."""
        return [f"_remember({group.name}, {group.name}_before)"]

    def ended(self, indent: int) -> list[str]:
        """Checks of all that was launched."""
        return [" " * indent + "_refuse(work.checks.code())"]
