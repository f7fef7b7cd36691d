"""Tables of the groups of parameters in Numba modules."""

from __future__ import annotations

from sifrc.backends.names import groups_table, owner_name
from sifrc.backends.numba_common.parts import Parts
from sifrc.backends.text import assigned

__all__ = ["owner_tables"]


def owner_tables(parts: Parts) -> list[str]:
    """Position of the group that owns a tensor, by layer: compiled functions look them up."""
    tables: dict[str, dict[int, int]] = {}
    for (family, index), position in parts.program.owners.items():
        tables.setdefault(family, {})[index] = position
    texts = groups_table(parts.program)
    for family, table in tables.items():
        items = tuple(table.get(k, 0) for k in range(max(table) + 1))
        what = "weight" if family == "1W" else "bias"
        text = assigned(f"{owner_name(family)} = ", items)
        texts.append(f'{text}\n"""Group of the {what} of layer k, by k."""')
    return texts
