"""The tensor program: functions of typed statements over families of buffers.

Backends print programs; they decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from sifrc.catalogue.record import KindPlan, Operator
from sifrc.lower.arrays import Family
from sifrc.lower.statements import Loop, Statement
from sifrc.methods.plan import Hyperparameter

__all__ = ["Function", "Place", "Program", "Stage"]


@dataclass(frozen=True)
class Function:
    """A private function of the generated module: one derived system, lowered.

    Args:
        name: e.g. ``forward``; printed with a leading underscore.
        title: docstring line.
        equations: text of the equations with their source, generic k first, one a line.
        batched: with a sample axis, or for one sample.
        reads: families it reads (not those it only writes), in a fixed order.
        writes: families it writes.
        body: statements and loops.
    """

    name: str
    title: str
    equations: tuple[str, ...]
    batched: bool
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    body: tuple[Statement | Loop, ...]


@dataclass(frozen=True)
class Place:
    """Memory that arrays of a step take one after the other.

    Args:
        members: families and subscripts, all of one shape, each made of the one before entry by entry.
        first: position, among the statements of the step, of the first that touches the memory.
        last: position of the last one.
    """

    members: tuple[tuple[str, int | None], ...]
    first: int
    last: int


@dataclass(frozen=True)
class Stage:
    """A part of a step over several batches: functions of each batch, then functions of their means.

    Args:
        each: names of the functions that run on each batch, in order; those of an earlier stage compute what
            others read once more.
        sums: families that these make whose mean over all samples is read later.
        once: names of the functions that run on the means.
    """

    each: tuple[str, ...]
    sums: tuple[str, ...]
    once: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """All functions and operators of one module.

    Args:
        families: by name, in order of first definition; shapes are those of the batched form, a
            one-sample function uses them without the leading None.
        functions: in the order in which they are printed.
        operators: in the order of the request.
        step: names of the functions of an optimizer step: (batched, one sample), each in order; the
            last one updates parameters and memory in place, those before it change WORK only.
        guards: table of (layer, quantity) by code − 1.
        hyperparameters: of the step.
        periodic: names of step functions that run only every ``period`` steps (``period`` is then a
            hyperparameter of the optimizer, an integer ≥ 1); they run at the first step.
        refreshable: whether those may be given a batch of their own, between steps.
        separable: whether each parameter has a direction of its own, so that others move as they would
            without one that is frozen.
        places: memory of the arrays of a step on a batch, where arrays may share it; () where each has
            its own.
        other_places: the same for the periodic part on a batch of its own.
        kept: families of the periodic part that the state keeps for readers.
        curvature_batch: functions that run on a batch of their own, if a step is given one, before the
            periodic ones.
        operator_places: memory of the arrays of operators that take a batch in parts: name -> for each case.
        groups: of parameters, name and tensors of each.
        owners: (family, subscript) -> position of the group that owns a tensor.
        stages: of a step over several batches; () where there is none.
        coupled: why there is none, though the step takes a batch.
        parts_of_steps: function that is a part of one of the step's for this -> name of that one.
    """

    families: tuple[Family, ...]
    functions: tuple[Function, ...]
    operators: tuple[Operator, ...]
    step_batched: tuple[str, ...] = ()
    step_single: tuple[str, ...] = ()
    guards: tuple[tuple[str, str], ...] = ()
    hyperparameters: tuple[Hyperparameter, ...] = ()
    periodic: tuple[str, ...] = ()
    refreshable: bool = False
    separable: bool = False
    places: tuple[Place, ...] = ()
    other_places: tuple[Place, ...] = ()
    curvature_batch: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    operator_places: Mapping[str, tuple[tuple[Place, ...], ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    owners: Mapping[tuple[str, int], int] = field(default_factory=lambda: MappingProxyType({}))
    stages: tuple[Stage, ...] = ()
    coupled: str = ""
    parts_of_steps: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def family(self, name: str) -> Family:
        """A family by its canonical name."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> Mapping[str, Family]:
        return MappingProxyType({family.name: family for family in self.families})

    @property
    def of_steps(self) -> tuple[str, ...]:
        """Functions of a step on a batch, and those of one over several batches."""
        return (*self.step_batched, *self.parts_of_steps)

    @property
    def kinds(self) -> tuple[KindPlan, ...]:
        """Kinds of curvature that some operator can be of."""
        return tuple(dict.fromkeys(kind for operator in self.operators for kind in operator.kinds))

    def function(self, name: str, batched: bool) -> Function:
        """A function by its name and form."""
        return next(f for f in self.functions if f.name == name and f.batched == batched)
