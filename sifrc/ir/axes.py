"""Named axes: what the entries of an expression are indexed by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any, ClassVar
from weakref import WeakValueDictionary

__all__ = ["SAMPLE", "Axis", "AxisKind", "primed"]


class AxisKind(Enum):
    """What an axis counts."""

    FEATURE = "feature"
    """Entries of a state or a parameter."""
    PLACE = "place"
    """Places at each of which a state has features: its axes but the last one."""
    SAMPLE = "sample"
    """Samples of a batch, however many a call has."""
    GROUP = "group"
    """Groups of parameters."""
    CLASS = "class"
    """Classes that a target may be."""


class _Interned(type):
    """Metaclass that returns the existing equal axis where there is one: they are compared all the time."""

    _table: ClassVar[WeakValueDictionary[tuple[Any, ...], Axis]] = WeakValueDictionary()

    def __call__(cls, name: str, size: int | None, primes: int = 0, kind: AxisKind = AxisKind.FEATURE) -> Any:
        known = _Interned._table.get((name, size, primes, kind.value))
        if known is not None:
            return known
        axis: Axis = super().__call__(name, size, primes, kind)
        return _Interned._table.setdefault((name, size, primes, kind.value), axis)


@dataclass(frozen=True, eq=False)
class Axis(metaclass=_Interned):
    """An index with a name and a size.

    Equal axes are one object, and the same index; operands are joined by labelling their slots
    with axes, so a weight whose own slots are named after one layer can be used at another one of
    the same size.

    Args:
        name: the state or layer whose entries it counts, e.g. ``fc1``; contracted indices of a
            normalised product are called ``#0``, ``#1``, …
        size: number of entries; None for samples, of which a call says how many there are.
        primes: 1 for the second index of a block over one layer (i'), and so on.
        kind: what it counts.
    """

    name: str
    size: int | None
    primes: int = 0
    kind: AxisKind = AxisKind.FEATURE

    def __post_init__(self) -> None:
        if (self.size is None) != self.is_sample:
            raise ValueError(f"axis '{self.name}': samples have no size, and everything else has one")

    @cached_property
    def key(self) -> str:
        """A text that tells axes apart, for digests."""
        kind = f":{self.kind.value}" if self.kind in (AxisKind.GROUP, AxisKind.CLASS) else ""
        return f"{self.name}'{self.primes}:{self.size}{kind}"

    @property
    def place(self) -> tuple[str, int, int]:
        """Name, size and primes, by which axes are sorted."""
        return self.name, -1 if self.size is None else self.size, self.primes

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


def primed(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """The next indices over the same entries, of each axis."""
    return tuple([axis.primed for axis in axes])


SAMPLE = Axis("sample", None, kind=AxisKind.SAMPLE)
"""The batch axis: the only one whose size is not known at compile time."""
