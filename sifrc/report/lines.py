"""Equations of one system as lines of text, for the docstrings of generated code."""

from __future__ import annotations

from sifrc.derive.system import System
from sifrc.model import Model

__all__ = ["describe_system"]


def describe_system(system: System, model: Model) -> tuple[str, ...]:
    """One line for each equation, generic k first."""
    return tuple(dict.fromkeys(f"{e.symbol.family}_k  [{e.source}]" for e in system.equations))
