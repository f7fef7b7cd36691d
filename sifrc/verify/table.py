"""What verification reports: one row for each check, and the verdict."""

from __future__ import annotations

import html
from dataclasses import dataclass

from sifrc.markup import html_table

__all__ = ["Report", "Row"]

HEADERS = ("quantity", "level", "oracle", "agreed digits", "tolerance", "result", "note")


@dataclass(frozen=True)
class Row:
    """One check.

    Args:
        quantity: what was checked, e.g. ``gradient``.
        level: of the ladder; 1 symbolic, 2 many digits, 3 generated code.
        oracle: what it was compared with.
        digits: decimal digits that agree; None for a proof or where nothing was compared.
        tolerance: digits that were asked for; None for a proof.
        passed: None means: not checked.
        note: the reason of a failure, conditions, what was decided how.
    """

    quantity: str
    level: int
    oracle: str
    digits: float | None
    tolerance: float | None
    passed: bool | None
    note: str = ""

    @property
    def result(self) -> str:
        """``passed``, ``FAILED`` or ``not checked``."""
        return {True: "passed", False: "FAILED", None: "not checked"}[self.passed]

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of :data:`HEADERS`."""
        digits = "" if self.digits is None else f"{self.digits:.1f}"
        if self.digits is None and self.passed:
            digits = "exact"
        tolerance = "" if self.tolerance is None else f"{self.tolerance:.1f}"
        return (self.quantity, str(self.level), self.oracle, digits, tolerance, self.result, self.note)


@dataclass(frozen=True)
class Report:
    """All checks of one spec.

    Args:
        name: of the spec.
        rows: in order of levels.
        requested: pairs (quantity, level) that had to be checked.

    Example:
        >>> row = Row("gradient", 2, "duals", 49.2, 40.0, True)
        >>> Report("tiny", (row,), (("gradient", 2),)).passed
        True
        >>> Report("tiny", (row,), (("gradient", 2), ("gradient", 3))).passed
        False
    """

    name: str
    rows: tuple[Row, ...]
    requested: tuple[tuple[str, int], ...]

    @property
    def missing(self) -> tuple[tuple[str, int], ...]:
        """What was requested and has no passed check."""
        checked = {(row.quantity, row.level) for row in self.rows if row.passed}
        return tuple(pair for pair in self.requested if pair not in checked)

    @property
    def passed(self) -> bool:
        """No check failed, and everything requested was checked."""
        return not self.missing and all(row.passed is not False for row in self.rows)

    @property
    def failures(self) -> tuple[Row, ...]:
        """The failed checks."""
        return tuple(row for row in self.rows if row.passed is False)

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text under :attr:`headers`."""
        return [row.cells for row in self.rows]

    @property
    def headers(self) -> tuple[str, ...]:
        """Column titles of :meth:`table`."""
        return HEADERS

    def text(self) -> str:
        """The table as plain text, with the verdict in the last line."""
        cells = [HEADERS, *self.table()]
        widths = [max(len(row[column]) for row in cells) for column in range(len(HEADERS))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        return "\n".join([*lines, self.verdict])

    @property
    def verdict(self) -> str:
        """In one line, with what was not checked."""
        found = f"{self.name}: passed" if self.passed else f"{self.name}: NOT passed"
        missing = [f"{quantity} at level {level}" for quantity, level in self.missing]
        return found + (f" (not checked: {', '.join(missing)})" if missing else "")

    def _repr_html_(self) -> str:
        """For notebooks."""
        return f"{html_table(HEADERS, self.table())}<p>{html.escape(self.verdict)}</p>"
