"""What each operator of ATen becomes: a table of rules by the name of the operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from sifrc.importing.calls import Call
from sifrc.importing.rules import (
    attention,
    entrywise,
    norms,
    products,
    recurrence,
    reductions,
    shapes,
    windows,
)

__all__ = ["RULES"]

RULES: Mapping[str, Callable[[Call], Any]] = MappingProxyType(
    {
        **entrywise.RULES,
        **shapes.RULES,
        **reductions.RULES,
        **products.RULES,
        **attention.RULES,
        **windows.RULES,
        **norms.RULES,
        **recurrence.RULES,
    }
)
"""Operator, without its overload -> its rule."""
