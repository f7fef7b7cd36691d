"""What a module will contain: phases to run, operators composed of them, and the optimizer's step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from sifrc.derive.system import System
from sifrc.methods.curvature_plan import CurvatureOperator, KindPlan
from sifrc.methods.ranges import Range
from sifrc.methods.summary_plan import SummaryOperator
from sifrc.model import Model

__all__ = ["Hyperparameter", "MemorySpec", "OperatorPlan", "Phase", "Plan"]


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
class OperatorPlan:
    """A public operator as a composition of phases; fields as in the program's Operator."""

    name: str
    prepare: tuple[str, ...]
    apply: tuple[str, ...] = ()
    scalar: str = ""
    tensors: tuple[str, ...] = ()
    vector: tuple[str, ...] = ()
    batched: bool = True
    doc: str = ""
    source: str = ""


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
        kinds: of curvature, and how each is computed.
        curvature: requested operators on curvature blocks.
        kept: families of the periodic part that the state keeps for readers.
        curvature_batch: functions that run on a batch of their own, if a step is given one, before the
            periodic ones.
        summary: the requested operator on summaries.
        groups: of parameters, name and tensors of each.
        owners: (family, subscript) -> position of the group that owns a tensor, see
            :mod:`sifrc.derive.summaries`.
    """

    model: Model
    phases: tuple[Phase, ...]
    operators: tuple[OperatorPlan, ...]
    step: tuple[str, ...] = ()
    periodic: tuple[str, ...] = ()
    hyperparameters: tuple[Hyperparameter, ...] = ()
    memory: tuple[MemorySpec, ...] = ()
    constants: Mapping[tuple[str, int], float] = field(default_factory=lambda: MappingProxyType({}))
    guarded: tuple[tuple[str, tuple[str, ...]], ...] = ()
    refreshable: bool = False
    separable: bool = False
    kinds: tuple[KindPlan, ...] = ()
    curvature: tuple[CurvatureOperator, ...] = ()
    summary: SummaryOperator | None = None
    curvature_batch: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    owners: Mapping[tuple[str, int], int] = field(default_factory=lambda: MappingProxyType({}))

    def phase(self, name: str) -> Phase:
        """A phase by name."""
        return next(phase for phase in self.phases if phase.name == name)
