"""Named axes: what the entries of an expression are indexed by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

__all__ = ["SAMPLE", "Axis"]


@dataclass(frozen=True, order=True)
class Axis:
    """An index with a name and a size.

    Two axes are the same index when they are equal; operands are joined by labelling their slots
    with axes, so a weight whose own slots are named after one layer can be used at another one of
    the same size.

    Args:
        name: the state or layer whose entries it counts, e.g. ``fc1``; contracted indices of a
            normalised product are called ``#0``, ``#1``, …
        size: number of entries, or None for the symbolic batch size.
        primes: 1 for the second index of a block over one layer (i'), and so on.
    """

    name: str
    size: int | None
    primes: int = 0

    def __hash__(self) -> int:
        return hash((self.name, self.primes))

    @cached_property
    def key(self) -> str:
        """A text that tells axes apart, for digests."""
        return f"{self.name}'{self.primes}:{self.size}"

    @property
    def primed(self) -> Axis:
        """The next index over the same entries: i' of i."""
        return Axis(self.name, self.size, self.primes + 1)

    def __str__(self) -> str:
        return self.name + "'" * self.primes

    def fits(self, other: Axis) -> bool:
        """Whether one can stand for the other: equal sizes, the batch only for the batch."""
        return self.size == other.size


SAMPLE = Axis("sample", None)
"""The batch axis: the only one whose size is not known at compile time."""
