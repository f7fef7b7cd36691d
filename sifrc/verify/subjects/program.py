"""The lowered program, interpreted in any number system: the very statements that backends print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from sifrc.catalogue.record import Case, KindPlan, Mean, Operator, Pairs, Result, Table
from sifrc.catalogue.registry import is_built_in
from sifrc.derive.curvature.scores import NORMAL, UNIFORM
from sifrc.derive.shaped import DIRECTION, PARAMETER
from sifrc.ir.arithmetic import MPMATH, Array, NumberSystem
from sifrc.lower.interpret import Key, Machine, run_functions
from sifrc.lower.lowering import lower
from sifrc.lower.program import Program
from sifrc.methods.planning import make_plan
from sifrc.model import Model, build_model
from sifrc.model.parameters import Shaped
from sifrc.spec.types import Spec, TargetSpec
from sifrc.verify.inputs import given_symbols
from sifrc.verify.meaning import SINGLE
from sifrc.verify.oracles.batch_mpmath import PreciseBatch
from sifrc.verify.oracles.network import all_inputs, as_vectors, buffer_values, input_parts
from sifrc.verify.subjects.base import Choices, Results, Subject

__all__ = ["ProgramSubject", "RunningProgram", "buffers_of", "program_of"]


def program_of(spec: Spec, operators: tuple[str, ...]) -> tuple[Model, Program]:
    """The model and the program of some operators, without a method."""
    outside = [name for name in spec.target.operators if not is_built_in(name)]
    asked = (*filter(is_built_in, operators), *outside)
    model = build_model(replace(spec, method=None, target=TargetSpec(operators=asked)))
    return model, lower(make_plan(model).plan)


def _as_stored(model: Model, targets: Any) -> Any:
    """Targets with all axes as one as programs hold them: classes along the last axis."""
    shape, axis = model.spec.layers[-1].shape, model.spec.loss.axis
    if len(shape) == 1:
        return targets
    targets = targets.reshape(*targets.shape[:-1], *shape)
    return np.moveaxis(targets, axis - len(shape), -1) if model.spec.loss.targets == "classes" else targets


def buffers_of(model: Model, arithmetic: NumberSystem) -> dict[Key, Any]:
    """What layers keep besides parameters, at the values at which networks are looked at."""
    values = buffer_values(model.spec)
    return {
        (buffer.symbol.family, buffer.symbol.index): arithmetic.array(values[buffer.name])
        for buffer in model.buffers
    }


class RunningProgram:
    """A program at a batch, or at one sample.

    Args:
        model: the network.
        program: its operators.
        params: parameters by name.
        inputs: of a batch, (B, *axes of the network input), or of one sample.
        targets: vectors (B, n_out), or (n_out,), all axes of the output as one.
        arithmetic: number system.
    """

    def __init__(
        self,
        model: Model,
        program: Program,
        params: Mapping[str, Any],
        inputs: Any,
        targets: Any,
        arithmetic: NumberSystem,
    ) -> None:
        self.model, self.program, self.arithmetic = model, program, arithmetic
        inputs = arithmetic.array(inputs)
        spec = model.spec
        self.batched = inputs.ndim > (1 if len(all_inputs(spec)) > 1 else len(spec.input.shape))
        parts = input_parts(spec, inputs)
        self._given: dict[Key, Any] = {
            **{
                (symbol.family, symbol.index): arithmetic.array(as_vectors(source, parts[source.name]))
                for symbol, source in given_symbols(model)
            },
            ("t", None): _as_stored(model, arithmetic.array(targets)),
            ("mean", None): arithmetic.array(1) / (len(inputs) if self.batched else 1),
            **self._keyed(PARAMETER, params),
            **buffers_of(model, arithmetic),
        }
        self._begun: dict[tuple[str, ...], Machine] = {}

    def give(self, family: str, numbers: Any) -> None:
        """Random numbers (B, n_out) of a family."""
        self._given[family, None] = self.arithmetic.array(numbers)

    def give_direction(self, tensors: Mapping[str, Any], parts: list[dict[str, Array]] | None) -> None:
        """A direction by name; its parts where every number is a group by itself."""
        self._given.update(self._keyed(DIRECTION, tensors))
        if parts is not None:
            stacked = {name: np.stack([part[name] for part in parts]) for name in tensors}
            self._given.update(self._keyed(DIRECTION.marked("°"), stacked))
        self._begun.clear()

    def operator(self, name: str) -> Operator:
        """The record of an operator.

        Raises:
            LookupError: the program does not have it.
        """
        found = next((operator for operator in self.program.operators if operator.name == name), None)
        if found is None:
            raise LookupError(f"'{name}' does not exist for this model")
        return found

    def call(self, name: str, kind: str = "", **choices: object) -> dict[str, Array]:
        """What an operator returns for some arguments, all results in one dict."""
        operator = self.operator(name)
        plan = next(plan for plan, _ in operator.starts() if plan is None or plan.name == kind)
        fits = (c for c in operator.fitting(plan) if all(choices[n] in values for n, values in c.choices))
        results = self.run(operator, next(fits), plan)
        return {key: value for _, found in results for key, value in found.items()}

    def run(
        self, operator: Operator, case: Case, kind: KindPlan | None = None, switches: tuple[str, ...] = ()
    ) -> Results:
        """What the functions of a case compute, after those of the kind or the prepared ones."""
        # The program's own record: lowering takes apart what a product has of the point.
        starts = self.operator(operator.name).starts()
        start = next(functions for known, functions in starts if known == kind)
        machine = self._after(start)
        chosen = [switch for switch in operator.switches if switch.name in switches]
        names = [name for switch in chosen for name in switch.functions]
        self._functions(machine, (*names, *case.functions))
        results = (*operator.also, *(switch.result for switch in chosen), *case.results)
        return [(result.meaning, dict(read(machine, result))) for result in results]

    def _after(self, functions: tuple[str, ...]) -> Machine:
        """Memory after some functions, which is shared by all that begin with them."""
        if functions not in self._begun:
            machine = Machine(self.program, dict(self._given), self.arithmetic)
            self._functions(machine, functions)
            self._begun[functions] = machine
        machine = copy(self._begun[functions])
        machine.arrays = dict(machine.arrays)
        return machine

    def _functions(self, machine: Machine, names: tuple[str, ...]) -> None:
        run_functions(machine, [self.program.function(name, self.batched) for name in names])

    def _keyed(self, quantity: Shaped, tensors: Mapping[str, Any]) -> dict[Key, Any]:
        symbols = {parameter.name: quantity.of(parameter) for parameter in self.model.tensors}
        return {(s.family, s.index): self.arithmetic.array(tensors[name]) for name, s in symbols.items()}


def read(machine: Machine, result: Result) -> Iterator[tuple[str, Array]]:
    """Arrays of a result by name; members of pairs have both names in it."""
    if isinstance(result, Table):
        for entry in result.entries:
            value = machine.arrays[entry.member]
            size = prod(value.shape[: value.ndim // 2]) if entry.matrix else 0
            yield entry.key, value.reshape(size, size) if entry.matrix else value
    elif isinstance(result, Pairs):
        for key, pair in result.rows:
            for field, member in zip(result.record.fields, pair, strict=True):
                yield f"{key}.{field.name}", machine.arrays[member]
    else:
        value = np.asarray(machine.arrays[result.family, None])
        yield SINGLE, np.asarray(value.sum() / value.size) if isinstance(result, Mean) else value


class ProgramSubject(Subject):
    """The program of a spec at a random point, at the precision in force.

    Args:
        oracle: at the point.
        batched: whether the operators take a batch; of others the first sample is taken.
        lowered: the model and its program.
    """

    def __init__(
        self, oracle: PreciseBatch, batched: bool, lowered: Callable[[], tuple[Model, Program]]
    ) -> None:
        self._oracle, self.batched, self.lowered = oracle, batched, lowered
        self._running: RunningProgram | None = None

    @property
    def oracle(self) -> PreciseBatch:
        return self._oracle

    @property
    def samples(self) -> int:
        return len(self._oracle.inputs)

    @property
    def running(self) -> RunningProgram:
        """The program, with everything that a caller gives."""
        if self._running is None:
            oracle = self._oracle
            data = (oracle.inputs, oracle.vectors) if self.batched else (oracle.inputs[0], oracle.vectors[0])
            model, program = self.lowered()
            running = RunningProgram(model, program, oracle.params, data[0], data[1], MPMATH)
            discrete = running.model.spec.partition.kind == "discrete"
            running.give_direction(oracle.vector, oracle.parts if discrete else None)
            drawn = (self.samples, *model.spec.layers[-1].shape)
            running.give(UNIFORM, oracle.uniform.reshape(drawn))
            running.give(NORMAL, oracle.normal.reshape(drawn))
            self._running = running
        return self._running

    def call(
        self,
        operator: Operator,
        case: Case,
        kind: KindPlan | None,
        choices: Choices = MappingProxyType({}),
        switches: tuple[str, ...] = (),
    ) -> Results:
        return self.running.run(operator, case, kind, switches)
