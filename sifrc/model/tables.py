"""Fixed tables of numbers: constants whose entries are a function of their indices, or given.

A table is a symbol to everything that is derived, as data is; what its entries are is kept beside it, and
generated modules make it once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sifrc.ir import Axis, Input, Role
from sifrc.ir.arithmetic import Arithmetic, Array
from sifrc.ir.fixed import Entries, table_values

__all__ = ["TABLES", "Table", "Tables"]

TABLES = "θ"
"""Family of the tables."""


@dataclass(frozen=True)
class Table:
    """One table.

    Args:
        symbol: θ[k].
        entries: a function of the index along each axis, from 0, or the numbers themselves.
    """

    symbol: Input
    entries: Entries

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries along each axis."""
        return tuple(axis.entries for axis in self.symbol.axes)

    def values(self, arithmetic: Arithmetic) -> Array:
        """The entries as an array.

        Example:
            >>> from sifrc.ir.arithmetic import NUMPY
            >>> from sifrc.ir.fixed import Listed
            >>> tables = Tables()
            >>> symbol = tables.symbol(Listed((1.0, 2.0)), (2,))
            >>> tables.made[0].values(NUMPY)
            array([1., 2.])
        """
        return table_values(self.entries, self.sizes, arithmetic)


@dataclass
class Tables:
    """The tables of a model while it is built: layers that need equal ones read one."""

    made: list[Table] = field(default_factory=list)

    def symbol(self, entries: Entries, sizes: tuple[int, ...]) -> Input:
        """The symbol of a table.

        Args:
            entries: a function of an argument for each axis, or the numbers themselves.
            sizes: of the axes.
        """
        for table in self.made:
            if (table.entries, table.sizes) == (entries, sizes):
                return table.symbol
        number = len(self.made) + 1
        axes = tuple(Axis(f"{TABLES}{number}.{axis}", size) for axis, size in enumerate(sizes))
        self.made.append(Table(Input(TABLES, number, axes, Role.BUFFER), entries))
        return self.made[-1].symbol
