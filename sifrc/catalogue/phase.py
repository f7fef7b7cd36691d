"""A phase: one derived system as a step of evaluation; before it is derived, a row of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sifrc.derive.system import System

__all__ = ["Phase", "Row"]


@dataclass(frozen=True)
class Phase:
    """One system as a step of evaluation.

    Args:
        system: the equations, for one sample.
        after: names of the phases that always ran before it, whose values it may use.
        forms: ``batched``, ``single`` or both.
        lines: the equations as text, for docstrings.
    """

    system: System
    after: tuple[str, ...]
    forms: tuple[str, ...] = ("batched",)
    lines: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the system."""
        return self.system.name

    def with_forms(self, *forms: str) -> Phase:
        """The phase with these forms added."""
        return replace(self, forms=tuple(dict.fromkeys((*self.forms, *forms))))


@dataclass(frozen=True)
class Row:
    """A system that is derived when it is wanted.

    Args:
        name: of the system.
        derive: the system.
        after: as in a phase.
    """

    name: str
    derive: Callable[[], System]
    after: tuple[str, ...] = ()
