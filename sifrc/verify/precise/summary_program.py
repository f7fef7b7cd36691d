"""The lowered program of summaries, interpreted in any number system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sifrc.derive.shaped import DIRECTION, PARAMETER
from sifrc.ir.arithmetic import NUMPY, Array, NumberSystem
from sifrc.lower.interpret import Key, Machine, run_functions
from sifrc.lower.lowering import lower
from sifrc.lower.program import Program
from sifrc.methods.planning import make_plan
from sifrc.model import Model, build_model
from sifrc.model.parameters import Shaped
from sifrc.operators.record import Operator
from sifrc.spec.types import Spec, TargetSpec
from sifrc.verify.precise.programs import read
from sifrc.verify.summary_parts import SUMMARY, Found, parts_of

__all__ = ["SummaryProgram", "summary_program"]

_FAMILIES = ("ḡ", "H̿", "D̄", "T̄")


def summary_program(spec: Spec) -> tuple[Model, Program]:
    """The program of summaries, with the Hessian–vector product, which has a derivation of its own."""
    operators = (SUMMARY, "gradient", "hessian_vector_product")
    model = build_model(replace(spec, method=None, target=TargetSpec(operators=operators)))
    return model, lower(make_plan(model).plan)


class SummaryProgram:
    """The program at a batch.

    Args:
        model: the network.
        program: see :func:`summary_program`.
        params: parameters by name.
        inputs: (B, n_0).
        targets: vectors (B, n_out).
        arithmetic: number system.
    """

    def __init__(
        self,
        model: Model,
        program: Program,
        params: Mapping[str, Any],
        inputs: Any,
        targets: Any,
        arithmetic: NumberSystem = NUMPY,
    ) -> None:
        self.model, self.program, self.arithmetic = model, program, arithmetic
        self._given: dict[Key, Any] = {
            ("x", 0): arithmetic.array(inputs),
            ("t", None): arithmetic.array(targets),
            ("mean", None): arithmetic.array(1) / len(inputs),
            **self._keyed(PARAMETER, params),
        }

    def order(self, number: int, direction: Mapping[str, Array]) -> Found:
        """Summaries up to an order, that of order 3 by its diagonal."""
        return self._case({"order": (number,), "full": (False,)}, direction)

    def whole(self, direction: Mapping[str, Array]) -> Found:
        """Summaries of all orders, all of order 3."""
        return self._case({"order": (3,), "full": (True,)}, direction)

    def _case(self, choices: Mapping[str, object], direction: Mapping[str, Array]) -> Found:
        operator = self._operator(SUMMARY)
        case = next(case for case in operator.cases if dict(case.choices) == choices)
        return self._found((*operator.prepare, *case.functions), direction)

    def _operator(self, name: str) -> Operator:
        return next(operator for operator in self.program.operators if operator.name == name)

    def gradient(self) -> dict[str, Array]:
        """Of the objective, by name."""
        return self._tensors("gradient", {})

    def hessian_vector_product(self, vector: Mapping[str, Array]) -> dict[str, Array]:
        """Of the objective, by name."""
        return self._tensors("hessian_vector_product", self._keyed(DIRECTION, vector))

    def _found(self, names: tuple[str, ...], direction: Mapping[str, Array]) -> Found:
        values = self._keyed(DIRECTION, direction)
        if self.model.spec.partition.kind == "discrete":
            parts = parts_of(self.model.spec, direction)
            stacked = {name: np.stack([part[name] for part in parts]) for name in direction}
            values |= self._keyed(DIRECTION.marked("°"), stacked)
        machine = self._run(names, values)
        return Found.of(machine.arrays.get((family, None)) for family in _FAMILIES)

    def _tensors(self, name: str, values: Mapping[Key, Any]) -> dict[str, Array]:
        operator = self._operator(name)
        (case,) = operator.cases
        machine = self._run((*operator.prepare, *case.functions), values)
        return {key: value for result in case.results for key, value in read(machine, result)}

    def _run(self, names: tuple[str, ...], values: Mapping[Key, Any]) -> Machine:
        machine = Machine(self.program, {**self._given, **values}, self.arithmetic)
        run_functions(machine, [self.program.function(name, True) for name in names])
        return machine

    def _keyed(self, quantity: Shaped, tensors: Mapping[str, Any]) -> dict[Key, Any]:
        return {
            (quantity.family(parameter.slot), owned.index): self.arithmetic.array(tensors[parameter.name])
            for owned in self.model.parameters
            for parameter in owned.members
        }
