"""Where an expression stands in a spec."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sifrc.errors import Location

__all__ = ["Excerpt"]


@dataclass(frozen=True)
class Excerpt:
    """Maps character offsets of the expression to places in the spec.

    ``base`` covers the expression in its line. Where the line does not hold the text as it is
    (escapes, several lines), every offset maps to the whole of ``base``.
    """

    text: str
    base: Location

    @property
    def exact(self) -> bool:
        """Whether the line holds the text as it is."""
        return self.base.text[self.base.column - 1 : self.base.end_column - 1] == self.text

    def at(self, start: int, end: int) -> Location:
        """The place of some characters, from ``start`` to before ``end``."""
        if not self.exact:
            return self.base
        column = self.base.column
        return replace(self.base, column=column + start, end_column=column + max(end, start + 1))
