"""The lowered program, interpreted: the operators of one sample in any number system.

It runs the very statements that backends print. Operators of batches run with a batch of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sifrc.errors import DerivationError, VerificationError
from sifrc.ir.arithmetic import NUMPY, Array, NumberSystem
from sifrc.lower.interpret import Key, Machine, run_functions
from sifrc.lower.lowering import lower
from sifrc.lower.program import Operator, Program
from sifrc.methods.operators import OPERATORS
from sifrc.methods.planning import make_plan
from sifrc.model import Model, build_model
from sifrc.spec.types import Spec, TargetSpec

__all__ = ["ProgramSample", "operator_program"]


def operator_program(spec: Spec) -> tuple[Model, Program]:
    """The program of every operator that exists for a spec, without a method."""
    names = tuple(OPERATORS)
    try:
        return _lowered(spec, names)
    except (DerivationError, VerificationError):
        return _lowered(spec, tuple(name for name in names if name != "newton_direction"))


def _lowered(spec: Spec, operators: tuple[str, ...]) -> tuple[Model, Program]:
    model = build_model(replace(spec, method=None, target=TargetSpec(operators=operators)))
    return model, lower(make_plan(model).plan)


class ProgramSample:
    """Operators at one sample, through the interpreter.

    Args:
        spec: what to compile.
        params: parameters by name.
        sample: input (n_0,).
        target: class index or vector (n_out,).
        arithmetic: number system.
    """

    def __init__(
        self,
        spec: Spec,
        params: Mapping[str, Any],
        sample: Any,
        target: Any,
        arithmetic: NumberSystem = NUMPY,
    ) -> None:
        self.model, self.program = operator_program(spec)
        self.arithmetic = arithmetic
        vector = target if spec.loss.targets == "vectors" else np.eye(spec.layers[-1].size)[int(target)]
        self.sample, self.target = arithmetic.array(sample), arithmetic.array(vector)
        self.params = self._shaped("W", "β", params)

    def _shaped(self, weight: str, bias: str, tensors: Mapping[str, Any]) -> dict[Key, Array]:
        return {
            (weight if symbol is owned.weight else bias, owned.index): self.arithmetic.array(tensors[name])
            for owned in self.model.parameters
            for name, symbol in owned.members
        }

    def _run(self, name: str, vector: Mapping[str, Any] | None = None) -> tuple[Operator, Machine]:
        operator = next((o for o in self.program.operators if o.name == name), None)
        if operator is None:
            raise DerivationError(f"'{name}' does not exist for this model")
        batched = operator.batched
        values: dict[Key, Any] = dict(self.params)
        values["x", 0] = self.sample[np.newaxis] if batched else self.sample
        values["t", None] = self.target[np.newaxis] if batched else self.target
        values["mean", None] = self.arithmetic.array(1)
        if vector is not None:
            values.update(self._shaped("N", "η", vector))
        machine = Machine(self.program, values, self.arithmetic)
        names = (*operator.prepare, *operator.apply)
        run_functions(machine, [self.program.function(function, batched) for function in names])
        return operator, machine

    def _scalar(self, name: str) -> Any:
        operator, machine = self._run(name)
        return machine.arrays[operator.scalar, None].sum()

    def _tensors(self, name: str, vector: Mapping[str, Any] | None = None) -> dict[str, Array]:
        operator, machine = self._run(name, vector)
        weight, bias = operator.tensors
        return {
            member: machine.arrays[weight if symbol is owned.weight else bias, owned.index]
            for owned in self.model.parameters
            for member, symbol in owned.members
        }

    def loss(self) -> Any:
        """Loss of the sample."""
        return self._scalar("loss")

    def objective(self) -> Any:
        """Loss and regularisation of the sample."""
        return self._scalar("objective")

    def gradient(self) -> dict[str, Array]:
        """Gradient of the objective."""
        return self._tensors("gradient")

    def hessian_vector_product(self, vector: Mapping[str, Any]) -> dict[str, Array]:
        """Hessian of the objective times vector."""
        return self._tensors("hessian_vector_product", vector)

    def gauss_newton_vector_product(self, vector: Mapping[str, Any]) -> dict[str, Array]:
        """Gauss–Newton matrix of the data loss times vector."""
        return self._tensors("gauss_newton_vector_product", vector)

    def newton_direction(self) -> dict[str, Array]:
        """Newton direction (N, η) of the sample."""
        return self._tensors("newton_direction")
