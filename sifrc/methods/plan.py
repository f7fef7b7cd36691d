"""What a module will contain: phases to run, operators composed of them, and the optimizer's step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sifrc.catalogue.phase import Phase
from sifrc.catalogue.record import Operator
from sifrc.methods.ranges import Range
from sifrc.model import Model

__all__ = ["Hyperparameter", "MemorySpec", "Plan"]


@dataclass(frozen=True)
class Hyperparameter:
    """A number that a step takes: its symbol's family name, default, range and meaning."""

    name: str
    default: float
    text: str
    range: Range

    @property
    def start(self) -> int | float:
        """The default as a number of its own type."""
        return int(self.default) if self.range.whole else float(self.default)


@dataclass(frozen=True)
class MemorySpec:
    """A family of optimizer state: what it is and how it starts (``zeros`` or ``identity``)."""

    family: str
    text: str
    initial: str = "zeros"


@dataclass(frozen=True)
class Plan:
    """Everything the lowering needs.

    Args:
        model: the model.
        phases: in an order in which they can run.
        operators: requested public operators.
        step: names of the phases of an optimizer step, the last one updates in place; () for none.
        periodic: names of those that run only every ``period`` steps.
        hyperparameters: of the step, ``lr`` first.
        memory: families of optimizer state.
        constants: (family, index) -> value, for families that are numbers of the spec.
        guarded: phases of the step whose results must be finite before anything is updated, and of
            which families (all that are written, where none is named).
        refreshable: whether the periodic phases may be given a batch of their own.
        separable: whether each parameter has a direction of its own.
        kept: families of the periodic part that the state keeps for readers.
        curvature_batch: functions that run on a batch of their own, if a step is given one, before the
            periodic ones.
        groups: of parameters, name and tensors of each.
        owners: (family, subscript) -> position of the group that owns a tensor, see
            :mod:`sifrc.derive.summaries`.
    """

    model: Model
    phases: tuple[Phase, ...]
    operators: tuple[Operator, ...]
    step: tuple[str, ...] = ()
    periodic: tuple[str, ...] = ()
    hyperparameters: tuple[Hyperparameter, ...] = ()
    memory: tuple[MemorySpec, ...] = ()
    constants: Mapping[tuple[str, int], float] = field(default_factory=lambda: MappingProxyType({}))
    guarded: tuple[tuple[str, tuple[str, ...]], ...] = ()
    refreshable: bool = False
    separable: bool = False
    curvature_batch: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    owners: Mapping[tuple[str, int], int] = field(default_factory=lambda: MappingProxyType({}))

    def phase(self, name: str) -> Phase:
        """A phase by name."""
        return next(phase for phase in self.phases if phase.name == name)
