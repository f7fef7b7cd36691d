"""Runs of statements that one kernel makes, a row at a time: what a sample needs, or a row of a matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from sifrc.backends.numba_common.products import as_sum
from sifrc.backends.numba_common.storage import Layout
from sifrc.backends.numba_cuda.barriers import Barriers, accesses
from sifrc.backends.numba_cuda.products import subscripts
from sifrc.backends.numba_cuda.shares import (
    LARGE,
    Share,
    cost_of,
    is_shareable,
    over_labels,
    row_labels,
    share_of,
    sizes_of,
)
from sifrc.backends.numba_cuda.threads import Threads, joined
from sifrc.lower import statements as st
from sifrc.lower.access import loads_of, targets_of
from sifrc.lower.arrays import SAMPLE_LABEL

__all__ = ["LEAST_THREADS", "Run", "run_lines", "runs", "threads_of"]

LEAST_THREADS = 32
"""Threads that run together."""
_LONG_SUM = 64
"""Terms of a sum from which a block makes it."""


@dataclass(frozen=True)
class Run:
    """Statements that one kernel makes.

    Args:
        statements: in order.
        labels: of the rows; none if there is but one.
        entries: whether a thread does all that a row needs.
    """

    statements: tuple[st.Statement, ...]
    labels: tuple[str, ...]
    entries: bool


def runs(statements: Sequence[st.Statement], layout: Layout, k: int | None) -> Iterator[Run | st.Statement]:
    """The statements in order, those that one kernel makes together."""
    pending: list[st.Statement] = []
    of_samples = False
    for statement in statements:
        own = as_sum(statement) if isinstance(statement, st.Contract) else statement
        samples = _of_samples(own) and not isinstance(statement, st.Contract)
        small = not samples and _is_small(own, layout, k)
        joins = (samples or small) and (not pending or samples == of_samples)
        if pending and (not joins or (samples and _rereads(pending, own))):
            yield _together(pending, of_samples, layout, k)
            pending = []
        if samples or small:
            pending.append(own)
            of_samples = samples
        elif isinstance(statement, st.Contract):
            yield statement if subscripts(statement) else _alone(own, layout, k)
        else:
            yield _alone(statement, layout, k) if _is_dividable(statement) else statement
    if pending:
        yield _together(pending, of_samples, layout, k)


def _together(statements: Sequence[st.Statement], samples: bool, layout: Layout, k: int | None) -> Run:
    """What one block makes, or a block for each sample."""
    if samples:
        return _samples(statements)
    if len(statements) == 1 and _is_dividable(statements[0]):
        return _alone(statements[0], layout, k)
    return Run(tuple(statements), (), False)


def _is_small(statement: st.Statement, layout: Layout, k: int | None) -> bool:
    """Whether one block makes it as fast as several, and it has no samples."""
    if isinstance(statement, st.Guard):
        if statement.rows or not statement.operand.is_whole:
            return False
    elif not _is_dividable(statement):
        return False
    if not isinstance(statement, st.Kernel | st.Sum | st.Guard) and row_labels(statement):
        return False
    sizes = sizes_of(statement, layout, k)
    return None not in sizes.values() and cost_of(statement, sizes) < LARGE


def _is_dividable(statement: st.Statement) -> bool:
    """Whether a kernel of its own can make it."""
    return is_shareable(statement) and not isinstance(statement, st.Guard)


def _of_samples(statement: st.Statement) -> bool:
    """Whether it is made for each sample alone."""
    if not is_shareable(statement) or row_labels(statement)[:1] != (SAMPLE_LABEL,):
        return False
    if isinstance(statement, st.Guard):
        return not statement.rows and statement.operand.is_whole
    if SAMPLE_LABEL in over_labels(statement):
        return False
    return isinstance(statement, st.Kernel | st.Sum) or len(row_labels(statement)) == 1


def _rereads(pending: Sequence[st.Statement], statement: st.Statement) -> bool:
    """Whether it needs what other samples write before."""
    written = {load.ref.family for other in pending for load in targets_of(other)}
    touched = (*loads_of(statement), *targets_of(statement))
    return any(load.ref.family in written and load.labels[:1] != (SAMPLE_LABEL,) for load in touched)


def _samples(statements: Sequence[st.Statement]) -> Run:
    alone = all(isinstance(s, st.Kernel | st.Guard) and len(row_labels(s)) == 1 for s in statements)
    return Run(tuple(statements), (SAMPLE_LABEL,), alone)


def _alone(statement: st.Statement, layout: Layout, k: int | None) -> Run:
    """A statement without samples: rows are those of its first label, if it has several or long sums."""
    labels = row_labels(statement)
    if not isinstance(statement, st.Kernel | st.Sum):
        return Run((statement,), labels, False)
    sizes = sizes_of(statement, layout, k)
    terms = prod(sizes.get(label) or _LONG_SUM for label in over_labels(statement))
    if len(labels) == 1 and not (over_labels(statement) and terms >= _LONG_SUM):
        return Run((statement,), labels, True)
    return Run((statement,), labels[:1], False)


def threads_of(shares: Sequence[tuple[Share, dict[str, int | None]]], most: int) -> int:
    """Threads that find work at once, a power of two."""
    widest = 1
    for share, sizes in shares:
        work = share.free if share.lanes == 1 and share.free else (*share.free, *share.over)
        widest = max(widest, prod(sizes.get(label) or most for label in work))
    threads = LEAST_THREADS
    while threads < min(widest, most):
        threads *= 2
    return min(threads, most)


def run_lines(run: Run, threads: Threads, layout: Layout, k: int | None, most: int) -> tuple[list[str], int]:
    """What a kernel does for a row, with the waits between, and the threads of a block."""
    barriers = Barriers(())
    lines: list[str] = []
    found: list[tuple[Share, dict[str, int | None]]] = []
    for statement in run.statements:
        sizes = sizes_of(statement, layout, k)
        share = share_of(statement, run.labels, False, sizes, most)
        found.append((share, sizes))
        if run.entries:
            assert isinstance(statement, st.Kernel | st.Sum | st.Guard)
            lines += threads.inner(statement)[1]
            continue
        body = threads.lines(statement, share)
        steps = accesses(statement, share, layout, k)
        wait = barriers.needed(steps[0])
        barriers.waited(wait)
        lines = joined([*lines, *(["cuda.syncthreads()"] if wait else [])], body)
        for number, step in enumerate(steps):
            barriers.waited("block" if number else "")
            barriers.done(step)
    return lines, threads_of(found, most)
