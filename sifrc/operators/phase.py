"""A phase: one derived system as a step of evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sifrc.derive.system import System

__all__ = ["Phase"]


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
