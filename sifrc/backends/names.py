"""Tables of a program that modules of every backend have, and their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sifrc.backends.text import assigned
from sifrc.derive.groups import OWNER
from sifrc.lower.arrays import Family, Subscript
from sifrc.lower.program import Program

__all__ = ["first_group_table", "groups_name", "groups_table", "indexed", "owner_name", "subscript_text"]

_OWNED: Mapping[str, str] = MappingProxyType({OWNER["N"]: "WEIGHTS", OWNER["η"]: "BIASES"})
"""Family of owners -> what they own."""


def subscript_text(value: Subscript) -> str:
    """Source text of a subscript: a number or ``k + offset``."""
    if not value.relative:
        return str(value.offset)
    return "k" if value.offset == 0 else f"k {'+' if value.offset > 0 else '-'} {abs(value.offset)}"


def indexed(text: str, parts: Sequence[str]) -> str:
    """An array at indices and slices; whole dimensions at the end go without saying."""
    kept = list(parts)
    while kept and kept[-1] == ":":
        kept.pop()
    return f"{text}[{', '.join(kept)}]" if kept else text


def owner_name(family: str) -> str:
    """Module-level name of the groups that own tensors, by layer."""
    return f"_GROUP_OF_{_OWNED[family]}"


def groups_name(family: Family) -> str:
    """Module-level name of the numbers of groups that the arrays of a family hold, by layer."""
    return f"_{family.code.upper()}_GROUPS"


def groups_table(program: Program) -> list[str]:
    """``GROUPS``, where there are groups of parameters."""
    if not program.groups:
        return []
    text = assigned("GROUPS = ", dict(program.groups))
    return [f'{text}\n"""Groups of the parameters -> their tensors."""']


def first_group_table(program: Program) -> str:
    """First group of every tensor, where each of its entries is a group; '' where none is."""
    vectors = (operator.vector for operator in program.operators)
    single = next((vector.single for vector in vectors if vector is not None and vector.single), ())
    text = '"""Group of the first entry of a tensor; the others follow along its rows."""'
    return f"{assigned('_FIRST_GROUP = ', dict(single))}\n{text}" if single else ""
