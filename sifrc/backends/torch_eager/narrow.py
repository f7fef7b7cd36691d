"""Tensors with one entry for all of an axis, which need no more entries where their readers repeat them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sifrc.lower import statements as st
from sifrc.lower.access import loads_of
from sifrc.lower.arrays import Load, Ref

__all__ = ["broadcast_by_readers"]


def broadcast_by_readers(target: Load, following: Sequence[st.Statement], narrow: Collection[Ref]) -> bool:
    """Whether all readers of a tensor are formulas in which other operands have all its labels.

    Args:
        target: the tensor.
        following: the statements after it.
        narrow: tensors that have one entry for all of an axis themselves.
    """
    for statement in following:
        if not isinstance(statement, st.Kernel | st.Sum):
            if any(load.ref == target.ref for load in loads_of(statement)):
                return False
            continue
        assigns = statement.assigns if isinstance(statement, st.Kernel) else (statement,)
        values = [assign.value for assign in assigns]
        loads = dict(statement.loads)
        for value in values:
            used = [loads[s.name] for s in value.free_symbols if s.name in loads]
            mine = [load for load in used if load.ref == target.ref]
            others = [load for load in used if load.ref != target.ref and load.ref not in narrow]
            covered = {label for load in others for label in load.labels}
            # What is read in another shape must have all entries.
            if any(load.changes or not set(load.labels) <= covered for load in mine):
                return False
    return True
