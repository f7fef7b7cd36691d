"""Tables of the groups of parameters in Torch modules."""

from __future__ import annotations

from sifrc.backends.names import groups_name, groups_table, owner_name
from sifrc.backends.text import assigned
from sifrc.backends.torch_eager.calls import Parts
from sifrc.lower.access import flat
from sifrc.lower.statements import Fresh

__all__ = ["group_tables"]


def group_tables(parts: Parts) -> list[str]:
    """Positions of the groups that own tensors, and numbers of groups that arrays hold, by layer."""
    tables: dict[str, dict[int, int]] = {}
    for (family, index), position in parts.program.owners.items():
        tables.setdefault(owner_name(family), {})[index] = position
    fresh = {
        statement.target.ref.family
        for function in parts.program.functions
        for statement in flat(function.body)
        if isinstance(statement, Fresh)
    }
    for stored in parts.program.families:
        if stored.name in fresh and stored.indexed:
            sizes = {index: shape[0] for index, shape in stored.shapes if index is not None}
            tables[groups_name(stored)] = {index: size for index, size in sizes.items() if size is not None}
    return [*groups_table(parts.program), *(assigned(f"{name} = ", table) for name, table in tables.items())]
