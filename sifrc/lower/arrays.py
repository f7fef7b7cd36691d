"""Arrays of a program: families of buffers, their members, and the entries that statements touch.

A family is the arrays of one quantity for all layers, e.g. x[0..n]; a statement refers to its members by
a constant subscript, or inside a loop by ``k + offset``. Statements name the entries they touch by
one-letter labels; ``p`` is the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from sifrc.ir.fixed import Entries
from sifrc.ir.quantity import Storage

__all__ = [
    "OBJECTIVE",
    "OTHER_INPUTS",
    "SAMPLE_LABEL",
    "AtStep",
    "Change",
    "Family",
    "Gather",
    "Load",
    "Ref",
    "Reshape",
    "Slot",
    "Subscript",
    "Upto",
    "Window",
]

OBJECTIVE = "objective"
"""Family of the objective of a sample."""

OTHER_INPUTS = "d"
"""Family of the inputs after the first."""

SAMPLE_LABEL = "p"


@dataclass(frozen=True)
class Family:
    """All arrays of one quantity.

    Args:
        name: canonical name, e.g. ``x``, ``ζ``, ``W``.
        code: ASCII identifier for generated code, e.g. ``x``, ``zeta``, ``weights``.
        storage: who owns it.
        shapes: index -> shape; None in a shape is the batch size. A family without index has the
            single index None. Scalars have shape ().
        text: what it is, one line with its symbol, e.g. ``states x_k``.
        part_of: family of the quantity that an intermediate array is made for; empty for a quantity itself.
        values: of a CONSTANT family, in the order of ``shapes``; initial fill value of a MEMORY
            family is ``initial`` (``zeros`` or ``identity``).
        entries: of the members of a TABLE family, in the order of ``shapes``.
    """

    name: str
    code: str
    storage: Storage
    shapes: tuple[tuple[int | None, tuple[int | None, ...]], ...]
    text: str
    part_of: str = ""
    values: tuple[float, ...] = ()
    initial: str = "zeros"
    entries: tuple[Entries, ...] = ()

    @property
    def indexed(self) -> bool:
        """Whether members have a subscript."""
        return self.shapes[0][0] is not None

    @property
    def first(self) -> int:
        """Lowest index; generated tuples are zero-based, so code subtracts it."""
        return min(index for index, _ in self.shapes if index is not None)


@dataclass(frozen=True)
class Subscript:
    """``offset``, or ``k + offset`` where ``relative`` (inside a loop over k)."""

    offset: int
    relative: bool = False


@dataclass(frozen=True)
class Ref:
    """One array: a member of a family."""

    family: str
    subscript: Subscript | None = None


@dataclass(frozen=True)
class Slot:
    """The position of the group that owns a tensor: an entry of the program's table ``owners``."""

    family: str
    subscript: Subscript


@dataclass(frozen=True)
class Upto:
    """The first positions, as many as the first dimension of another array has."""

    ref: Ref


@dataclass(frozen=True)
class AtStep:
    """The position of the step that a loop over steps is at."""


Window: TypeAlias = Slot | Upto | AtStep | int | None
"""Part of a leading dimension: one position, the first positions, or (None) all of it."""


@dataclass(frozen=True)
class Reshape:
    """Neighbouring dimensions as one, the last of them running fastest, or one dimension as several.

    Args:
        position: of the first of them.
        sizes: of the several.
        joins: whether they become one.

    Example:
        >>> Reshape(1, (3, 4), joins=True).of((None, 3, 4)), Reshape(0, (3, 4), joins=False).of((12, 5))
        ((None, 12), (3, 4, 5))
    """

    position: int
    sizes: tuple[int, ...]
    joins: bool

    def of(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape that comes of a shape."""
        before = shape[: self.position]
        if self.joins:
            return (*before, prod(self.sizes), *shape[self.position + len(self.sizes) :])
        return (*before, *self.sizes, *shape[self.position + 1 :])


@dataclass(frozen=True)
class Gather:
    """A dimension read at places that are affine in new indices, and zero where these are no entries.

    Args:
        position: of the dimension.
        sizes: of the dimensions that take its place.
        steps: of their indices.
        offset: of the entry at (i, j, …), which is (offset + Σ step · index) / divisor.
        divisor: there is no entry where it does not divide.

    Example:
        >>> Gather(1, (3, 2), (2, 1), -1).of((None, 6)), Gather(0, (3, 2), (2, 1), -1).places(6)
        ((None, 3, 2), (-1, 0, 1, 2, 3, 4))
    """

    position: int
    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    offset: int
    divisor: int = 1

    def of(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape that comes of a shape."""
        return (*shape[: self.position], *self.sizes, *shape[self.position + 1 :])

    def places(self, entries: int) -> tuple[int, ...]:
        """The entry for each index, the last of which runs fastest, of a dimension of so many; -1 is none."""
        found = [0]
        for size, step in zip(self.sizes, self.steps, strict=True):
            found = [before + step * index for before in found for index in range(size)]
        whole = (divmod(self.offset + place, self.divisor) for place in found)
        return tuple(place if not rest and 0 <= place < entries else -1 for place, rest in whole)


Change: TypeAlias = Reshape | Gather
"""What is made of the dimensions of an array before they are read."""


@dataclass(frozen=True)
class Load:
    """An entry of an array; one label for each dimension, but none for those of one position.

    ``window`` is the part of each leading dimension that is meant; () is the whole array. ``changes`` are
    made of what has labels, in order, before the labels are read.
    """

    ref: Ref
    labels: tuple[str, ...] = ()
    window: tuple[Window, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it is the array as it lies in memory."""
        return not self.window and not self.changes

    @property
    def rank(self) -> int:
        """Number of dimensions that have labels before they are changed."""
        joins = (isinstance(change, Reshape) and change.joins for change in self.changes)
        more = sum((len(c.sizes) - 1) * (1 if j else -1) for c, j in zip(self.changes, joins, strict=True))
        return len(self.labels) + more

    def changed(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Sizes of the labels, from those of the dimensions."""
        for change in self.changes:
            shape = change.of(shape)
        return shape
