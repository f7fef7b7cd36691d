"""What cases ended in, and their table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Case", "table"]

_COLUMNS = ("as promised", "raw error", "lost run", "wrong end", "not run")


@dataclass
class Case:
    """One thing that was done to a run.

    Args:
        part: of the harness.
        name: of the case.
    """

    part: str
    name: str
    column: str = "not run"
    text: str = ""
    killed: int = 0

    @property
    def bad(self) -> bool:
        """Whether it is a finding."""
        return self.column in ("raw error", "lost run", "wrong end")

    def ended(self, text: str) -> Case:
        """It went as it must."""
        return self._as("as promised", text)

    def raw(self, text: str) -> Case:
        """An error that is not for people."""
        return self._as("raw error", text)

    def lost(self, text: str) -> Case:
        """Something that was there is there no more."""
        return self._as("lost run", text)

    def wrong(self, text: str) -> Case:
        """A clear error where there should be none, or none where there should be one."""
        return self._as("wrong end", text)

    def not_run(self, why: str) -> Case:
        """This machine cannot do that."""
        return self._as("not run", why)

    def _as(self, column: str, text: str) -> Case:
        self.column, self.text = column, text
        return self


def table(cases: Sequence[Case]) -> str:
    """Counts by part, how cases went that were as promised, and every finding."""
    lines = [f"{'part':<10}  {'cases':>6}  " + "  ".join(f"{name:>11}" for name in _COLUMNS)]
    parts = list(dict.fromkeys(case.part for case in cases))
    for part in (*parts, "all"):
        own = [case for case in cases if part in ("all", case.part)]
        counts = Counter(case.column for case in own)
        cells = "  ".join(f"{counts[name]:>11}" for name in _COLUMNS)
        lines.append(f"{part:<10}  {len(own):>6}  {cells}")
    lines.append("")
    for part in parts:
        ends = Counter(case.text for case in cases if case.part == part and case.column == "as promised")
        killed = sum(case.killed for case in cases if case.part == part)
        lines.append(f"{part}: " + ", ".join(f"{count} {text}" for text, count in ends.most_common()))
        if killed:
            lines[-1] += f"; {killed} kills"
    for case in cases:
        if case.bad or case.column == "not run":
            lines.append(f"{case.column}: {case.part}, {case.name}: {case.text.strip()}")
    return "\n".join(lines)
