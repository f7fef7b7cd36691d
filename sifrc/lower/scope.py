"""Kernels under construction: labels of axes, and symbols bound to entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import sympy

from sifrc.ir import Axis
from sifrc.lower.arrays import SAMPLE_LABEL, Load

__all__ = ["Scope"]

_LETTERS = "ijlmnoqsvwefgh"
"""Those that are no array's name."""


def _more_letters() -> Iterator[str]:
    """Letters, and after the last of them letters with numbers."""
    yield from _LETTERS
    for number in count(1):
        yield from (f"{letter}{number}" for letter in _LETTERS)


@dataclass
class Scope:
    """One kernel under construction.

    Args:
        labels: of the axes that it has met.
        layer: that its equation belongs to.
        loads: entry of each symbol.
    """

    labels: dict[Axis, str]
    layer: int | None
    loads: dict[str, Load] = field(default_factory=dict)

    def label(self, axis: Axis) -> str:
        """The letter of an axis, a new one if it has none."""
        if axis not in self.labels:
            used = set(self.labels.values())
            free = next(letter for letter in _more_letters() if letter not in used)
            self.labels[axis] = SAMPLE_LABEL if axis.is_sample else free
        return self.labels[axis]

    def of(self, axes: Sequence[Axis]) -> tuple[str, ...]:
        """The letters of some axes."""
        return tuple(self.label(axis) for axis in axes)

    def symbol(self, load: Load, hint: str) -> sympy.Symbol:
        """The symbol of an entry, a new one with the name of the hint if it has none."""
        for name, known in self.loads.items():
            if known == load:
                return sympy.Symbol(name, real=True)
        name, number = hint, 1
        while name in self.loads:
            number += 1
            name = f"{hint}_{number}"
        self.loads[name] = load
        return sympy.Symbol(name, real=True)

    def used(self, *values: sympy.Expr) -> tuple[tuple[str, Load], ...]:
        """Symbols of some values with their entries, in the order of their names."""
        free = {symbol.name for value in values for symbol in value.free_symbols}
        return tuple((name, self.loads[name]) for name in sorted(self.loads) if name in free)
