"""Names that generated code of every backend gives to the tables of a program."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sifrc.derive.groups import OWNER
from sifrc.lower.arrays import Family

__all__ = ["groups_name", "owner_name"]

_OWNED: Mapping[str, str] = MappingProxyType({OWNER["N"]: "WEIGHTS", OWNER["η"]: "BIASES"})
"""Family of owners -> what they own."""


def owner_name(family: str) -> str:
    """Module-level name of the groups that own tensors, by layer."""
    return f"_GROUP_OF_{_OWNED[family]}"


def groups_name(family: Family) -> str:
    """Module-level name of the numbers of groups that the arrays of a family hold, by layer."""
    return f"_{family.code.upper()}_GROUPS"
