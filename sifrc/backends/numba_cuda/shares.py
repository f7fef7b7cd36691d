"""Which thread computes which entry of a statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from sifrc.backends.numba_common.storage import Layout
from sifrc.ir.quantity import Storage
from sifrc.lower import statements as st
from sifrc.lower.access import loads_of, targets_of
from sifrc.lower.arrays import Load, Slot

__all__ = ["LARGE", "Share", "cost_of", "is_shareable", "load_sizes", "row_labels", "share_of", "sizes_of"]

Size = int | None
"""Number of values of a label; None is the batch."""
LARGE = 2**14
"""Operations from which blocks divide a statement."""
_LONG_SUM = 8
"""Terms of a sum from which threads that have no entry of their own help."""


@dataclass(frozen=True)
class Share:
    """How a statement is divided.

    Args:
        fixed: labels that have a value where the statement stands.
        lead: label whose values the blocks divide, if they do.
        free: labels of the entries that the threads of a block divide.
        over: labels that are summed, or gone through.
        lanes: threads that sum an entry together; 0 are all of the block.
    """

    fixed: tuple[str, ...]
    lead: str | None
    free: tuple[str, ...]
    over: tuple[str, ...]
    lanes: int = 1


def is_shareable(statement: st.Statement) -> bool:
    """Whether threads can divide it at all."""
    return isinstance(
        statement, st.Kernel | st.Sum | st.LogSoftmaxOver | st.LogSumExpOver | st.MaximumOver | st.Guard
    )


def row_labels(statement: st.Statement) -> tuple[str, ...]:
    """Labels of what is computed, apart from those that are gone through."""
    match statement:
        case st.Kernel(labels=labels):
            return labels
        case st.Guard(operand=operand):
            return operand.labels
        case st.LogSoftmaxOver(target=target, over=over):
            return tuple(label for label in target.labels if label != over)
    return targets_of(statement)[0].labels


def over_labels(statement: st.Statement) -> tuple[str, ...]:
    """Labels that are summed, or gone through."""
    match statement:
        case st.Sum(over=labels):
            return labels
        case st.LogSoftmaxOver(over=label) | st.LogSumExpOver(over=label) | st.MaximumOver(over=label):
            return (label,)
    return ()


def sizes_of(statement: st.Statement, layout: Layout, k: int | None) -> dict[str, Size]:
    """Sizes of the labels of a statement."""
    found: dict[str, Size] = {}
    for load in (*targets_of(statement), *loads_of(statement)):
        found |= load_sizes(load, layout, k)
    return found


def load_sizes(load: Load, layout: Layout, k: int | None) -> dict[str, Size]:
    """Sizes of the labels of a load; an identity has none of its own."""
    if not load.labels or layout.program.family(load.ref.family).storage is Storage.IDENTITY:
        return {}
    windows = (*load.window, *(None for _ in range(len(load.labels) + 1)))
    shape = layout.shape(load, k)
    kept = [size for size, part in zip(shape, windows, strict=False) if not isinstance(part, int | Slot)]
    return dict(zip(load.labels, load.changed(tuple(kept)), strict=False))


def cost_of(statement: st.Statement, sizes: Mapping[str, Size]) -> int:
    """Operations of one sample, roughly: entries times terms."""
    return prod(sizes.get(label) or 1 for label in (*row_labels(statement), *over_labels(statement)))


def share_of(
    statement: st.Statement,
    fixed: Sequence[str],
    spread: bool,
    sizes: Mapping[str, Size],
    threads: int,
) -> Share:
    """How the threads of a block divide a statement, or those of all blocks if it is ``spread``."""
    rest = tuple(label for label in row_labels(statement) if label not in fixed)
    lead = rest[0] if spread and rest else None
    free, over = rest[1:] if lead else rest, over_labels(statement)
    if not isinstance(statement, st.Sum):
        return Share(tuple(fixed), lead, free, over)
    lanes = 1
    terms = prod(sizes.get(label) or 1024 for label in over)
    if not free:
        lanes = 0
    elif len(free) == 1 and terms >= _LONG_SUM:
        entries = sizes.get(free[0]) or threads
        while 2 * lanes * entries <= threads and 2 * lanes <= terms:
            lanes *= 2
    return Share(tuple(fixed), lead, free, over, lanes)
