"""Summaries of a spec at a point in two ways: the derived systems in NumPy, and the interpreted program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from curvature_values import Values
from summary_oracle import Derivatives, assert_near

from sifrc.catalogue.record import Operator
from sifrc.derive.groups import OWNER, SINGLE
from sifrc.derive.system import System
from sifrc.ir import Input
from sifrc.ir.evaluate import evaluate
from sifrc.ir.traverse import inputs_of
from sifrc.lower.batch import batch_system
from sifrc.lower.interpret import Machine, run_functions
from sifrc.lower.lowering import Passes, lower
from sifrc.lower.program import Program
from sifrc.methods.plan import Plan
from sifrc.methods.planning import make_plan
from sifrc.model import build_model
from sifrc.spec.types import Spec, TargetSpec
from sifrc.verify.points import Point

__all__ = ["FIELDS", "Interpreted", "SystemValues", "agree", "plan_of", "program_of"]

Found = dict[str, np.ndarray]
FIELDS = {"ḡ": "g", "H̿": "H", "D̄": "D", "T̄": "T"}
_WEIGHTS = {"N", "1W", "N°"}


def single_entries(groups: Sequence[str], name: str, value: np.ndarray) -> np.ndarray:
    """(S, …): for every group, named name[n], the tensor with that entry alone."""
    found = np.zeros((len(groups), *value.shape))
    for entry, position in enumerate(np.ndindex(value.shape)):
        found[(list(groups).index(f"{name}[{entry}]"), *position)] = value[position]
    return found


class SystemValues(Values):
    """The derived systems, evaluated equation by equation on a batch.

    Args:
        spec: with the partition.
        point: parameters, batch and direction.
        groups: what the partition means, see ``summary_oracle``.
    """

    def __init__(self, spec: Spec, point: Point, groups: Mapping[str, Sequence[str]]) -> None:
        super().__init__(spec, point)
        self.point = point
        self.groups = groups
        self.summaries = self.derived.summaries

    def run(self, env: dict[Input, Any], system: System) -> dict[Input, Any]:
        """As in the base class; groups of one axis are read along another one where pairs of them meet."""
        values = dict(env)
        known = self.named(values)
        for equation in batch_system(system).equations:
            used = {
                s: known[s.family, s.index] if (s.family, s.index) in known else self._given(s)
                for s in inputs_of(equation.value)
            }
            found = evaluate({"value": equation.value}, used, samples=self.samples)["value"]
            values[equation.symbol] = known[equation.symbol.family, equation.symbol.index] = np.asarray(found)
        return values

    def _given(self, symbol: Input) -> np.ndarray:
        """1 at the group that owns the tensor, or the tensors of single entries."""
        assert symbol.family in (*OWNER.values(), *SINGLE.values()), symbol.name
        owned = next(p for p in self.model.parameters if p.index == symbol.index)
        name = f"{owned.layer}.{'weight' if symbol.family in _WEIGHTS else 'bias'}"
        if symbol.family in SINGLE.values():
            return single_entries(list(self.groups), name, self.point.vector[name])
        return np.array([float(name in tensors) for tensors in self.groups.values()])

    def after_systems(self, *systems: System) -> dict[tuple[str, int | None], np.ndarray]:
        """(family, index) -> value after some systems."""
        env = self.env
        for system in systems:
            env = self.run(env, system)
        return self.named(env)

    def order(self, number: int) -> Found:
        """g, H and D up to an order."""
        return _fields(self.after_systems(self.summaries.of_order(number)))

    def whole(self) -> Found:
        """g, H and T."""
        return _fields(self.after_systems(*self.summaries.whole()))


def plan_of(spec: Spec) -> Plan:
    """What is lowered for the operator."""
    model = build_model(replace(spec, method=None, target=TargetSpec(operators=("summary",))))
    return make_plan(model).plan


def program_of(spec: Spec, passes: Passes | None = None, plan: Plan | None = None) -> Program:
    """The program of the operator, of a plan that is there already or of one of its own."""
    return lower(plan_of(spec) if plan is None else plan, passes)


class Interpreted:
    """The lowered program, interpreted.

    Args:
        spec: with the partition.
        point: parameters, batch and direction.
        passes: of the lowering.
        plan: of the spec, if it is there already.
    """

    def __init__(
        self, spec: Spec, point: Point, passes: Passes | None = None, plan: Plan | None = None
    ) -> None:
        self.spec, self.point = spec, point
        self.program = program_of(spec, passes, plan)

    @cached_property
    def _given(self) -> dict[tuple[str, int | None], Any]:
        point, size = self.point, self.spec.layers[-1].size
        vectors = point.targets if self.spec.loss.targets == "vectors" else np.eye(size)[point.targets]
        values: dict[tuple[str, int | None], Any] = {
            ("x", 0): point.inputs,
            ("t", None): vectors,
            ("mean", None): 1 / len(point.inputs),
        }
        vector = summary_of(self.program).vector
        names = [name for name, _ in self.program.groups]
        for owned in build_model(self.spec).parameters:
            for parameter in owned.members:
                name, weight = parameter.name, parameter.slot == "weight"
                values["W" if weight else "β", owned.index] = point.params[name]
                values["N" if weight else "η", owned.index] = point.vector[name]
                if vector is not None and vector.single:
                    entries = single_entries(names, name, point.vector[name])
                    values["N°" if weight else "η°", owned.index] = entries
        return values

    def run(self, *names: str) -> Found:
        """Results after the functions of any summary and these."""
        operator = summary_of(self.program)
        machine = Machine(self.program, self._given)
        run_functions(machine, [self.program.function(name, True) for name in (*operator.prepare, *names)])
        return {**_fields(machine.arrays), "objective": machine.arrays["objective", None]}

    def order(self, number: int) -> Found:
        """g, H and D up to an order."""
        return self.run(*functions_of(self.program, number))

    def whole(self) -> Found:
        """g, H and T."""
        return self.run(*functions_of(self.program, 3, full=True))


def summary_of(program: Program) -> Operator:
    """The record of the operator."""
    return next(operator for operator in program.operators if operator.name == "summary")


def functions_of(program: Program, order: int, full: bool = False) -> tuple[str, ...]:
    """What runs for an order, after the prepared functions."""
    choices = {"order": (order,), "full": (full,)}
    return next(case.functions for case in summary_of(program).cases if dict(case.choices) == choices)


def _fields(values: Mapping[Any, Any]) -> Found:
    return {FIELDS[f]: np.asarray(v) for (f, index), v in values.items() if f in FIELDS and index is None}


def agree(found: Interpreted | SystemValues, expected: Derivatives, factor: float = 1.0) -> None:
    """Every order, and all of order 3; ``factor`` is what the expected values have more than the means."""
    names = "gHD"
    wanted = {name: getattr(expected, name) / factor for name in (*names, "T")}
    for number in (1, 2, 3):
        values = found.order(number)
        assert {name for name in values if name != "objective"} == set(names[:number])
        for name in names[:number]:
            assert_near(values[name], wanted[name], floor=expected.scale)
    values = found.whole()
    for name in "gHT":
        assert_near(values[name], wanted[name], floor=expected.scale)
        symmetric(values[name], expected.scale)


def symmetric(values: np.ndarray, scale: float) -> None:
    """Unchanged when any two axes are exchanged."""
    for axis in range(1, values.ndim):
        assert_near(np.swapaxes(values, 0, axis), values, 1e-12, 100 * scale)
