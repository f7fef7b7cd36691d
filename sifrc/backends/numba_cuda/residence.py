"""Where the arrays of a block lie that goes over single samples, and how their entries read.

Each block has one piece of memory for all arrays of its own, at places that the compiler knows. Arrays that
blocks share are those of the caller, or of the workspace. All of them are read as arrays of one dimension:
indices are computed from sizes that are numbers, and take no registers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from sifrc.backends.names import subscript_text
from sifrc.backends.numba_common.access import Block
from sifrc.backends.numba_common.storage import Group, Layout, is_array
from sifrc.backends.numba_cuda.barriers import array_of
from sifrc.lower.arrays import Load, Subscript

__all__ = ["OnlineBlock", "Residence", "reside"]

Key = tuple[str, int | None]
"""A variable and a subscript; numbers of all subscripts lie together, without one."""


@dataclass(frozen=True)
class Residence:
    """Places of the arrays of a block.

    Args:
        layout: of one sample.
        starts: first number of each array.
        total: numbers of a block.
        shared: arrays that all blocks have together, by family and subscript.
        tables: constants of the module that the kernel reads, by name; filled in.
    """

    layout: Layout
    starts: Mapping[Key, int]
    total: int
    shared: Collection[tuple[str, int | None]]
    tables: dict[str, int | tuple[int, ...]] = field(default_factory=dict)

    def is_shared(self, group: Group, index: int | None) -> bool:
        """Whether blocks have it together."""
        return (group.family.name, index) in self.shared

    def table(self, group: Group, word: str, values: Mapping[int, int]) -> str:
        """The name of a table by subscript; 0 where there is no array."""
        name = f"{word}_{group.name}".upper()
        self.tables[name] = tuple(values.get(k, 0) for k in range(1 + max(values)))
        return name

    def start(self, group: Group, index: int | None) -> str:
        """The name of the number of an array's first entry."""
        name = f"AT_{group.name}{'' if index is None else f'_{index}'}".upper()
        self.tables[name] = self.starts[group.name, index]
        return name

    def text(self, group: Group, index: int) -> str:
        """The array of a subscript, of the block or of all."""
        if self.is_shared(group, index):
            return f"given_{group.name}[{index}]"
        start = self.start(group, index)
        return f"own[{start} : {start} + {_size(dict(group.members)[index])}]"


def reside(layout: Layout, groups: Sequence[Group], shared: Collection[tuple[str, int | None]]) -> Residence:
    """Places one after the other, in the order of the variables."""
    starts: dict[Key, int] = {}
    total = 0
    for group in groups:
        members = dict(group.members)
        if not group.is_tuple:
            members = {None: _shape_of(group)}
        for index, shape in members.items():
            if (group.family.name, index) not in shared:
                starts[group.name, index] = total
                total += _size(shape)
    return Residence(layout, starts, total, shared)


def _shape_of(group: Group) -> tuple[int | None, ...]:
    """Of a variable that is one array."""
    table = group.table
    assert isinstance(table, tuple)
    return table


def _size(shape: Sequence[int | None]) -> int:
    return prod(n or 1 for n in shape)


@dataclass
class OnlineBlock(Block):
    """How arrays and their entries read in a stretch of the kernel.

    Args:
        residence: of the arrays.
        values: of the loop index, or (None,).
    """

    residence: Residence | None = None
    values: Sequence[int | None] = (None,)

    @property
    def home(self) -> Residence:
        """Where the arrays lie."""
        assert self.residence is not None
        return self.residence

    def _shapes(self, load: Load) -> dict[int | None, tuple[int | None, ...]]:
        """Shapes by subscript, for all values of the loop index."""
        found = {}
        for k in self.values:
            _, index = array_of(self.layout, load, k)
            found[index] = self.layout.shape(load, k)
        return found

    def _is_own(self, load: Load) -> bool:
        """Whether it lies in the block's own memory."""
        group, index = self.group(load), next(iter(self._shapes(load)))
        key = index if group.is_tuple else None
        return (group.name, key) in self.home.starts

    def _start(self, load: Load) -> str:
        """Source text of the number of its first entry."""
        group, subscript = self.group(load), load.ref.subscript
        if subscript is None or not group.is_tuple:
            return self.home.start(group, None)
        if not subscript.relative:
            return self.home.start(group, subscript.offset)
        starts = {k: self.home.starts.get((group.name, k), 0) for k, _ in group.members if k is not None}
        return f"{self.home.table(group, 'starts', starts)}[{subscript_text(subscript)}]"

    def array(self, load: Load) -> str:
        """The array, in one dimension."""
        group, subscript = self.group(load), load.ref.subscript
        if not self._is_own(load):
            index = f"[{subscript_text(subscript)}]" if group.is_tuple and subscript is not None else ""
            return f"given_{group.name}{index}"
        start = self._start(load)
        if group.is_tuple:
            sizes = [self._dimension(load, n) for n in range(group.rank)]
            numbers = all(part.isdigit() for part in sizes)
            size = str(prod(map(int, sizes))) if numbers else " * ".join(sizes)
        else:
            size = str(_size(_shape_of(group)))
        return f"own[{start} : {start} + {size}]"

    def local(self, load: Load) -> str:
        """The array itself in the block's own memory; a local name for one that blocks share."""
        if self._is_own(load):
            return self.array(load)
        group = self.group(load)
        return super().local(load) if group.is_tuple else f"given_{group.name}"

    def slice(self, load: Load, fixed: Collection[str]) -> str:
        """All entries: no label is fixed where a kernel goes over single samples."""
        assert not fixed
        return self.array(load)

    def entry(self, load: Load) -> str:
        """An entry, by its number in memory."""
        if not is_array(self.layout.program.family(load.ref.family)):
            return super().entry(load)
        subscript = load.ref.subscript
        number = "0" if subscript is None else subscript_text(subscript)
        flat, *more = self._index(load) or [number]
        for dimension, label in enumerate(more, 1):
            flat = f"({flat})" if " + " in flat else flat
            flat = f"{flat} * {self._dimension(load, dimension)} + {label}"
        if not self._is_own(load):
            return f"{self.local(load)}[{flat}]"
        start = self._start(load)
        return f"own[{start}]" if flat == "0" else f"own[{start} + {flat}]"

    def _dimension(self, load: Load, dimension: int) -> str:
        """Source text of a size: a number, or an entry of a table."""
        sizes = {k: shape[dimension] or 1 for k, shape in self._shapes(load).items()}
        if len(set(sizes.values())) == 1:
            return str(next(iter(sizes.values())))
        group, subscript = self.group(load), load.ref.subscript
        assert isinstance(subscript, Subscript)
        every = {k: shape[dimension] or 1 for k, shape in group.members if k is not None}
        return f"{self.home.table(group, f'size{dimension}', every)}[{subscript_text(subscript)}]"

    def extent(self, load: Load, label: str) -> str:
        """Number of values of a label."""
        return self._dimension(load, self._index(load).index(label))
