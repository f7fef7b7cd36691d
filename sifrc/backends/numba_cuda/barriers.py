"""Where threads wait for each other: between a write and what another thread does to the same entries."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sifrc.backends.numba_common.storage import Layout, is_array
from sifrc.backends.numba_cuda.shares import Share
from sifrc.lower import statements as st
from sifrc.lower.access import absolute, loads_of, targets_of
from sifrc.lower.arrays import Load

__all__ = ["Access", "Array", "Barriers", "Wait", "accesses", "array_of"]

Wait: TypeAlias = Literal["", "block", "grid"]
"""Nobody waits, the threads of a block do, or those of all blocks."""
Array: TypeAlias = tuple[str, int | None]


@dataclass(frozen=True)
class Access:
    """What a statement does to an array.

    Args:
        array: family and subscript.
        writes: whether it writes.
        thread: which thread touches which entry; two accesses that are equal in it touch an entry by the same
            thread. None is any.
        row: whether a block touches only the rows that are its own.
    """

    array: Array
    writes: bool
    thread: str | None = None
    row: bool = False


def array_of(layout: Layout, load: Load, k: int | None) -> Array:
    """The array in memory; intermediate ones may lie in another."""
    family, index = absolute(load.ref, k)
    return layout.merged.get(family, family), index


def accesses(statement: st.Statement, share: Share, layout: Layout, k: int | None) -> list[list[Access]]:
    """What it does, and what it does after all threads of the block have waited for each other in it."""
    reads, writes = (
        [load for load in loads if is_array(layout.program.family(load.ref.family))]
        for loads in (loads_of(statement), targets_of(statement))
    )

    def access(load: Load, writing: bool) -> Access:
        labels = tuple(label for label in load.labels if label not in share.fixed)
        row = share.lead is not None and labels[:1] == (share.lead,)
        return Access(
            array_of(layout, load, k), writing, _thread(statement, share, load, labels, writing), row
        )

    before = [access(load, False) for load in reads]
    after = [access(load, True) for load in writes]
    waits = (isinstance(statement, st.Sum) and share.lanes != 1) or isinstance(
        statement, st.LogSumExpOver | st.MaximumOver
    )
    return [before, after] if waits else [[*before, *after]]


def _thread(
    statement: st.Statement, share: Share, load: Load, labels: tuple[str, ...], writing: bool
) -> str | None:
    """A name of the rule by which threads touch the entries."""
    own = (*((share.lead,) if share.lead else ()), *share.free)
    if not load.is_whole:
        return None
    if isinstance(statement, st.LogSoftmaxOver):
        return "entry" if labels == share.over and not own else None
    if isinstance(statement, st.Kernel | st.Guard) or (isinstance(statement, st.Sum) and share.lanes == 1):
        if not share.free:
            return "first" if not labels or labels == own else None
        return ("row entry" if share.lead else "entry") if labels == own else None
    if isinstance(statement, st.Sum) and share.lanes == 0 and labels == share.over and not writing:
        return "entry"
    # All threads find the sum, and the first of them writes it.
    return "first" if writing and not share.free else None


@dataclass
class Barriers:
    """Goes through statements in the order in which they run.

    Args:
        shared: arrays that all blocks have together; each has its own of all others.
    """

    shared: Collection[Array]
    _block: list[Access] = field(default_factory=list)
    _grid: list[Access] = field(default_factory=list)

    def needed(self, found: Iterable[Access]) -> Wait:
        """Who has to wait before these."""
        found = list(found)
        for now in found:
            if any(_meet(now, past) and not (now.row and past.row) for past in self._grid):
                return "grid"
        for now in found:
            same = (past for past in self._block if _meet(now, past))
            if any(now.thread is None or now.thread != past.thread for past in same):
                return "block"
        return ""

    def waited(self, wait: Wait) -> None:
        """They have waited."""
        if wait:
            self._block.clear()
        if wait == "grid":
            self._grid.clear()

    def done(self, found: Iterable[Access]) -> None:
        """They have been made."""
        for access in found:
            if access not in self._block:
                self._block.append(access)
            if access.array in self.shared and access not in self._grid:
                self._grid.append(access)


def _meet(one: Access, other: Access) -> bool:
    """Whether both touch an array, and one of them writes."""
    return one.array == other.array and (one.writes or other.writes)
