"""Numbers that layers draw for each sample: data of no derivative, as the inputs after the first are."""

from __future__ import annotations

from dataclasses import dataclass, field

from sifrc.ir import Axis, Input, Role

__all__ = ["OTHERS", "Draw", "Draws"]

OTHERS = "d"
"""Family of the inputs after the first, and of what is drawn."""


@dataclass(frozen=True)
class Draw:
    """Uniform numbers between 0 and 1.

    Args:
        layer: that reads them.
        symbol: d[k].
    """

    layer: str
    symbol: Input

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries along each axis."""
        return tuple(axis.entries for axis in self.symbol.axes)


@dataclass
class Draws:
    """The draws of a model while it is built.

    Args:
        given: inputs after the first, whose numbers come before.
    """

    given: int = 0
    made: list[Draw] = field(default_factory=list)

    def symbol(self, layer: str, axes: tuple[Axis, ...]) -> Input:
        """The numbers of a layer, over some axes."""
        symbol = Input(OTHERS, self.given + len(self.made) + 1, axes, Role.DATA)
        self.made.append(Draw(layer, symbol))
        return symbol
