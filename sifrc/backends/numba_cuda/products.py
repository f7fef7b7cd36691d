"""Products of arrays on the device: what one call of the module's product can compute."""

from __future__ import annotations

from collections.abc import Sequence

from sifrc.lower.statements import Contract

__all__ = ["subscripts"]


def subscripts(statement: Contract) -> str | None:
    """The product as in ``einsum``; None where its labels do not lie in groups.

    The labels of the left operand alone are rows, those of the right one alone columns; what both have is
    summed, or is there for each sample where the target has it too. Each group must lie in one piece.
    """
    left, right, out = statement.left.labels, statement.right.labels, statement.target.labels
    if any(len(set(labels)) < len(labels) for labels in (left, right, out)):
        return None
    each = tuple(label for label in out if label in left and label in right)
    rows = tuple(label for label in left if label not in right)
    columns = tuple(label for label in right if label not in left)
    summed = tuple(label for label in left if label in right and label not in each)
    groups = [group for group in (each, rows, columns, summed) if group]
    operands = [load for load in (statement.left, statement.right, statement.target) if load.labels]
    if not all(_in_groups(load.labels, groups) for load in operands):
        return None
    return f"{''.join(left)},{''.join(right)}->{''.join(out)}"


def _in_groups(labels: Sequence[str], groups: Sequence[tuple[str, ...]]) -> bool:
    """Whether labels are some of the groups, one after the other."""
    rest = tuple(labels)
    while rest:
        found = next((group for group in groups if rest[: len(group)] == group), None)
        if found is None:
            return False
        rest = rest[len(found) :]
    return True
