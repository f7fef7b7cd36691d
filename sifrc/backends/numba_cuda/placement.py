"""Steps of single samples in one launch: what blocks divide, and what each of them makes for itself.

A grid of blocks waits longer for itself than a block takes for a small product. So a statement is divided
among blocks only where it is large; every block makes all others, on arrays of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sifrc.backends.numba_common.products import as_sum
from sifrc.backends.numba_common.storage import Layout
from sifrc.backends.numba_cuda.barriers import Access, Array, Barriers, Wait, accesses, array_of
from sifrc.backends.numba_cuda.shares import (
    LARGE,
    Share,
    cost_of,
    is_shareable,
    row_labels,
    share_of,
    sizes_of,
)
from sifrc.lower import statements as st
from sifrc.lower.access import loads_of, targets_of
from sifrc.lower.program import Function

__all__ = ["Part", "Placement", "is_solver", "parts_of", "place"]

_ROUNDS = 2
"""Samples after which no further wait is found."""


@dataclass(frozen=True, eq=False)
class Part:
    """A statement where it stands: equal ones at two places are two.

    Args:
        statement: with products as sums.
        loop: in which it stands.
        function: of which it is, by number.
    """

    statement: st.Statement
    loop: st.Loop | None
    function: int

    @property
    def values(self) -> Sequence[int | None]:
        """Values of the loop index."""
        loop = self.loop
        return (None,) if loop is None else range(loop.start, loop.stop, loop.step)


@dataclass(frozen=True)
class Placement:
    """How the blocks divide the steps.

    Args:
        shares: of each part.
        waits: before each part.
        begins: who waits before the arrays of a sample are filled.
        shared: arrays that all blocks have together; each has its own of all others.
        widest: rows of the widest part that blocks divide; 1 if there is none.
    """

    shares: dict[Part, Share]
    waits: dict[Part, Wait]
    begins: Wait
    shared: frozenset[Array]
    widest: int


def is_solver(statement: st.Statement) -> bool:
    """Whether the threads of a block call a function for it."""
    return isinstance(statement, st.SolveSystem | st.MatrixFunction | st.SolveSylvester | st.SolveKronecker)


def parts_of(functions: Sequence[Function]) -> list[Part] | None:
    """The statements of the functions in order; None where one of them is not for blocks."""
    found: list[Part] = []
    for number, function in enumerate(functions):
        for item in function.body:
            loop = item if isinstance(item, st.Loop) else None
            for statement in item.body if isinstance(item, st.Loop) else (item,):
                own = as_sum(statement) if isinstance(statement, st.Contract) else statement
                whole = not isinstance(own, st.Kernel | st.Sum | st.Guard)
                rows = is_shareable(own) and not (whole and row_labels(own))
                every = (*loads_of(own), *targets_of(own))
                plain = all(load.is_whole for load in every) and not (isinstance(own, st.Guard) and own.rows)
                if not (plain and (rows or is_solver(own))):
                    return None
                found.append(Part(own, loop, number))
    return found


def place(parts: Sequence[Part], layout: Layout, filled: Sequence[Array], threads: int) -> Placement | None:
    """Who makes what, and who waits when; None where blocks would write numbers that they share.

    Args:
        parts: of a step.
        layout: of the arrays of one sample.
        filled: arrays that each block fills with a sample, in the beginning.
        threads: of a block.
    """
    spread = {part for part in parts if _is_large(part, layout)}
    shared = _shared(parts, spread, layout)
    if any(part not in spread and _written(part, layout) & shared for part in parts):
        return None
    shares = {}
    for part in parts:
        sizes = sizes_of(part.statement, layout, part.values[0])
        shares[part] = share_of(part.statement, (), part in spread, sizes, threads)
    waits, begins = _waits(parts, shares, layout, frozenset(shared), filled)
    widest = max((_rows(part, layout) for part in spread), default=1)
    return Placement(shares, waits, begins, frozenset(shared), widest)


def _is_large(part: Part, layout: Layout) -> bool:
    if is_solver(part.statement) or not row_labels(part.statement):
        return False
    return any(cost_of(part.statement, sizes_of(part.statement, layout, k)) >= LARGE for k in part.values)


def _rows(part: Part, layout: Layout) -> int:
    lead = row_labels(part.statement)[0]
    return max(sizes_of(part.statement, layout, k)[lead] or 1 for k in part.values)


def _written(part: Part, layout: Layout) -> set[Array]:
    return {array_of(layout, load, k) for load in targets_of(part.statement) for k in part.values}


def _shared(parts: Sequence[Part], spread: set[Part], layout: Layout) -> set[Array]:
    """Arrays that parts write which blocks divide; what writes them besides is divided too."""
    while True:
        shared = {array for part in spread for array in _written(part, layout)}
        shared |= {array for own in _together(parts, layout) if own & shared for array in own}
        more = {
            part
            for part in parts
            if part not in spread and row_labels_of(part) and _written(part, layout) & shared
        }
        if not more:
            return shared
        spread |= more


def _together(parts: Sequence[Part], layout: Layout) -> list[set[Array]]:
    """Arrays that one text means, at the values of a loop: all or none of them are shared."""
    return [
        {array_of(layout, load, k) for k in part.values}
        for part in parts
        if part.loop is not None
        for load in (*loads_of(part.statement), *targets_of(part.statement))
    ]


def row_labels_of(part: Part) -> tuple[str, ...]:
    """Labels of what is computed; none of what a function of the block makes."""
    return () if is_solver(part.statement) else row_labels(part.statement)


def _waits(
    parts: Sequence[Part],
    shares: dict[Part, Share],
    layout: Layout,
    shared: frozenset[Array],
    filled: Sequence[Array],
) -> tuple[dict[Part, Wait], Wait]:
    """Goes through some samples as the kernel will, and notes where it must wait."""
    waits: dict[Part, Wait] = dict.fromkeys(parts, "")
    barriers = Barriers(shared)
    last = parts[-1].function
    begins: Wait = "block"
    fills = [Access(array, True, "entry") for array in filled]
    for _ in range(_ROUNDS):
        begins = "grid" if "grid" in (begins, barriers.needed(fills)) else begins
        barriers.waited(begins)
        barriers.done(fills)
        before = True
        for part, k in _run(parts):
            if before and part.function == last:
                # All blocks learn whether a check has failed.
                barriers.waited("grid")
                before = False
            steps = _steps(part.statement, shares[part], layout, k)
            needed = barriers.needed(steps[0])
            if needed == "grid" or not waits[part]:
                waits[part] = needed or waits[part]
            barriers.waited(waits[part])
            for number, step in enumerate(steps):
                barriers.waited("block" if number else "")
                barriers.done(step)
    return waits, begins


def _steps(statement: st.Statement, share: Share, layout: Layout, k: int | None) -> list[list[Access]]:
    """What it does between waits of its own."""
    if not is_solver(statement):
        return accesses(statement, share, layout, k)
    found = [access for step in accesses(statement, share, layout, k) for access in step]
    return [[a for a in found if not a.writes], [a for a in found if a.writes], []]


def _run(parts: Sequence[Part]) -> Iterator[tuple[Part, int | None]]:
    """The parts in the order in which they run."""
    position = 0
    while position < len(parts):
        part = parts[position]
        if part.loop is None:
            yield part, None
            position += 1
            continue
        body = [other for other in parts[position:] if other.loop is part.loop]
        for k in part.values:
            yield from ((other, k) for other in body)
        position += len(body)
