"""Named axes: what the entries of an expression are indexed by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

__all__ = ["SAMPLE", "Axis", "AxisKind"]


class AxisKind(Enum):
    """What an axis counts."""

    FEATURE = "feature"
    """Entries of a state or a parameter."""
    SAMPLE = "sample"
    """Samples of a batch, however many a call has."""
    GROUP = "group"
    """Groups of parameters."""
    CLASS = "class"
    """Classes that a target may be."""


@dataclass(frozen=True, order=True)
class Axis:
    """An index with a name and a size.

    Two axes are the same index when they are equal; operands are joined by labelling their slots
    with axes, so a weight whose own slots are named after one layer can be used at another one of
    the same size.

    Args:
        name: the state or layer whose entries it counts, e.g. ``fc1``; contracted indices of a
            normalised product are called ``#0``, ``#1``, …
        size: number of entries; None for samples, of which a call says how many there are.
        primes: 1 for the second index of a block over one layer (i'), and so on.
        kind: what it counts; equal axes are of one kind.
    """

    name: str
    size: int | None
    primes: int = 0
    kind: AxisKind = field(default=AxisKind.FEATURE, compare=False)

    def __post_init__(self) -> None:
        if (self.size is None) != self.is_sample:
            raise ValueError(f"axis '{self.name}': samples have no size, and everything else has one")

    def __hash__(self) -> int:
        return hash((self.name, self.primes))

    @cached_property
    def key(self) -> str:
        """A text that tells axes apart, for digests."""
        return f"{self.name}'{self.primes}:{self.size}"

    @property
    def primed(self) -> Axis:
        """The next index over the same entries: i' of i."""
        return replace(self, primes=self.primes + 1)

    @property
    def entries(self) -> int:
        """Number of entries.

        Raises:
            ValueError: it counts samples, of which a call says how many there are.
        """
        if self.size is None:
            raise ValueError(f"the size of the axis '{self}' is not known")
        return self.size

    @property
    def is_sample(self) -> bool:
        """Whether it counts the samples of a batch."""
        return self.kind is AxisKind.SAMPLE

    @property
    def is_group(self) -> bool:
        """Whether it counts groups of parameters."""
        return self.kind is AxisKind.GROUP

    def summed(self, name: str) -> Axis:
        """The index of a sum over it: what is added up are samples, or else just entries."""
        return Axis(name, self.size, kind=self.kind if self.is_sample else AxisKind.FEATURE)

    def __str__(self) -> str:
        return self.name + "'" * self.primes

    def fits(self, other: Axis) -> bool:
        """Whether one can stand for the other: equal sizes, the batch only for the batch."""
        return self.size == other.size


SAMPLE = Axis("sample", None, kind=AxisKind.SAMPLE)
"""The batch axis: the only one whose size is not known at compile time."""
