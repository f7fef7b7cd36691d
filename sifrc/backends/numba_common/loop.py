"""The loop over batches, as far as it depends on the machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sifrc.backends.numba_common.functions import PrivateFunction
from sifrc.backends.numba_common.nests import indented
from sifrc.backends.numba_common.parts import Parts
from sifrc.backends.numba_common.storage import Group

__all__ = ["OTHER", "LoopText", "Piece", "parameter_name"]

OTHER = "curvature_"
"""Of the variables of another batch, for the periodic part."""


@dataclass(frozen=True)
class Piece:
    """A piece of a step.

    Args:
        lines: source lines, from column 0.
        launched: whether it consists of the same launches in every step, on machines that launch; else the
            host has a part in it.
    """

    lines: list[str]
    launched: bool = False


@dataclass(frozen=True)
class LoopText(ABC):
    """Pieces of the loop, for the batch of the step and for one of its periodic part; from column 0.

    Args:
        parts: of the module.
    """

    parts: Parts
    decorators: ClassVar[tuple[str, ...]] = ()
    """Lines before the definition."""
    arguments: ClassVar[tuple[str, ...]] = ()
    """Further variables of the workspace that the loop takes."""
    total: ClassVar[str] = "total"
    """The sum in the end."""
    fresh: ClassVar[str] = "age >= period"
    """Whether the periodic part runs."""

    def begun(self, other: bool) -> list[str]:
        """What comes first, with another batch for the periodic part or without one."""
        return ["total = 0.0", *(["first = 0"] if other else [])]

    @abstractmethod
    def samples(self, targets: Group | None, count: str, first: str, prefix: str = "") -> list[str]:
        """Copy samples and their targets to where the functions read them.

        Args:
            targets: their variable, if something reads them.
            count: how many.
            first: position of the first one in the order.
            prefix: of the variables.
        """

    @abstractmethod
    def filled(self, states: Group, targets: Group | None, batched: bool) -> list[str]:
        """The same for a batch of the step, or for one sample."""

    @abstractmethod
    def call(self, function: PrivateFunction, arguments: Sequence[str], indent: int) -> list[str]:
        """A call, with the loop's return where a check fails."""

    @abstractmethod
    def checked(self, objective: Group, batched: bool, code: int) -> list[str]:
        """The check of the objective."""

    @abstractmethod
    def added(self, objective: Group, batched: bool) -> list[Piece]:
        """Its part in the sum, before the update."""

    @abstractmethod
    def saved(self, group: Group) -> list[str]:
        """Copy what a variable has into the one that remembers it."""

    def periodic(self, fill: list[str], there: list[str], here: list[str], launched: bool) -> list[Piece]:
        """What runs every ``period`` steps; from column 0.

        Args:
            fill: copies samples of another batch.
            there: calls on that batch.
            here: calls on the batch of the step, if there is no other one.
            launched: whether calls consist of launches alone.
        """
        lines = [f"if len({OTHER}order):", *indented([*fill, *there], 4), "else:", *indented(here, 4)]
        return [Piece([f"if {self.fresh}:", *indented(lines, 4)])]

    def arranged(self, pieces: Sequence[Piece], given: Sequence[str]) -> tuple[list[str], list[str]]:
        """What comes before the loop, and one step in it; from column 0.

        Args:
            pieces: of the step.
            given: variables that are not the same in all calls of the loop.
        """
        return [], [line for piece in pieces for line in piece.lines]

    def ended(self, indent: int) -> list[str]:
        """What follows the calls of a public function."""
        return []


def parameter_name(parts: Parts, group: Group) -> str:
    return "work_x" if parts.has_input(group) and group.is_tuple else group.name
