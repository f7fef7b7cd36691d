"""Names that generated code of every backend gives to the tables of a program."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sifrc.derive.summaries import OWNER

__all__ = ["OWNED"]

OWNED: Mapping[str, str] = MappingProxyType({OWNER["N"]: "WEIGHTS", OWNER["η"]: "BIASES"})
"""Family of owners -> what they own."""
