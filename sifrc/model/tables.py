"""Fixed tables of numbers: constants whose entries are a function of their indices.

A table is a symbol to everything that is derived, as data is; its formula is kept beside it, and generated
modules compute it once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sifrc.ir import Axis, Input, Role
from sifrc.ir.arithmetic import Arithmetic, Array
from sifrc.scalar.function import ScalarFunction

__all__ = ["TABLES", "Table", "Tables"]

TABLES = "θ"
"""Family of the tables."""


@dataclass(frozen=True)
class Table:
    """One table.

    Args:
        symbol: θ[k].
        formula: of the index along each axis, from 0.
    """

    symbol: Input
    formula: ScalarFunction

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries along each axis."""
        return tuple(axis.entries for axis in self.symbol.axes)

    def values(self, arithmetic: Arithmetic) -> Array:
        """The entries.

        Example:
            >>> import sympy
            >>> from sifrc.ir.arithmetic import NUMPY
            >>> row, column = sympy.symbols("row column", real=True)
            >>> tables = Tables()
            >>> symbol = tables.symbol(ScalarFunction("sum", ("row", "column"), row + 10 * column), (2, 3))
            >>> tables.made[0].values(NUMPY)
            array([[ 0., 10., 20.],
                   [ 1., 11., 21.]])
        """
        indices = arithmetic.array(np.indices(self.sizes))
        return arithmetic.apply(
            self.formula, (0,) * len(self.sizes), dict(zip(self.formula.arguments, indices, strict=True))
        )


@dataclass
class Tables:
    """The tables of a model while it is built: layers that need equal ones read one."""

    made: list[Table] = field(default_factory=list)

    def symbol(self, formula: ScalarFunction, sizes: tuple[int, ...]) -> Input:
        """The symbol of a table.

        Args:
            formula: of an argument for each axis.
            sizes: of the axes.
        """
        for table in self.made:
            if (table.formula, table.sizes) == (formula, sizes):
                return table.symbol
        number = len(self.made) + 1
        axes = tuple(Axis(f"{TABLES}{number}.{axis}", size) for axis, size in enumerate(sizes))
        self.made.append(Table(Input(TABLES, number, axes, Role.BUFFER), formula))
        return self.made[-1].symbol
