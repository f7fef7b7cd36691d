"""The lowered program, interpreted: the operators of one sample in any number system.

It runs the very statements that backends print. Operators of batches run with a batch of one, those on
curvature blocks with any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from sifrc.derive.shaped import DIRECTION, PARAMETER
from sifrc.errors import DerivationError, VerificationError
from sifrc.ir.arithmetic import NUMPY, Array, NumberSystem
from sifrc.lower.interpret import Key, Machine, run_functions
from sifrc.lower.lowering import lower
from sifrc.lower.program import Program
from sifrc.methods.planning import make_plan
from sifrc.model import Model, build_model
from sifrc.model.parameters import Shaped
from sifrc.operators.derivatives import DERIVATIVES
from sifrc.operators.record import Case, KindPlan, Operator, Pairs, Result, Table, members_of, with_extra
from sifrc.operators.registry import BLOCK_OPERATORS
from sifrc.spec.types import Spec, TargetSpec

__all__ = ["ProgramBatch", "ProgramSample", "block_program", "operator_program", "read"]


def operator_program(spec: Spec) -> tuple[Model, Program]:
    """The program of every operator that exists for a spec, without a method."""
    names = tuple(declared.name for declared in DERIVATIVES)
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
        self.params = self._shaped(PARAMETER, params)

    def _shaped(self, quantity: Shaped, tensors: Mapping[str, Any]) -> dict[Key, Array]:
        return {
            (quantity.family(parameter.slot), owned.index): self.arithmetic.array(tensors[parameter.name])
            for owned in self.model.parameters
            for parameter in owned.members
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
            values.update(self._shaped(DIRECTION, vector))
        machine = Machine(self.program, values, self.arithmetic)
        (case,) = operator.cases
        names = (*operator.prepare, *case.functions)
        run_functions(machine, [self.program.function(function, batched) for function in names])
        return operator, machine

    def _scalar(self, name: str) -> Any:
        operator, machine = self._run(name)
        (member,) = members_of(operator.cases[0].results)
        return machine.arrays[member].sum()

    def _tensors(self, name: str, vector: Mapping[str, Any] | None = None) -> dict[str, Array]:
        operator, machine = self._run(name, vector)
        return {key: value for result in operator.cases[0].results for key, value in read(machine, result)}

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


def block_program(spec: Spec) -> tuple[Model, Program]:
    """The program of the operators on curvature blocks; the diagonal where there is the kind ``hessian``."""
    exact = not spec.curvature or any(entry.name == "hessian" for entry in spec.curvature)
    return _lowered(spec, tuple(name for name in BLOCK_OPERATORS if exact or name != "hessian_diagonal"))


class ProgramBatch:
    """Operators on curvature blocks at a batch, through the interpreter.

    Args:
        model: the network.
        program: of the operators on blocks, see :func:`block_program`.
        params: parameters by name.
        inputs: (B, n_0).
        targets: vectors (B, n_out).
        vector: direction of products, by name.
        drawn: family of random numbers -> (B, n_out).
        arithmetic: number system.
    """

    def __init__(
        self,
        model: Model,
        program: Program,
        params: Mapping[str, Any],
        inputs: Any,
        targets: Any,
        vector: Mapping[str, Any],
        drawn: Mapping[str, Any],
        arithmetic: NumberSystem = NUMPY,
    ) -> None:
        self.model, self.program = model, program
        self.kinds = {kind.name: kind for kind in self.program.kinds}
        self.operators = {operator.name: operator for operator in self.program.operators if operator.kinds}
        self.arithmetic = arithmetic
        values: dict[Key, Any] = {
            ("x", 0): arithmetic.array(inputs),
            ("t", None): arithmetic.array(targets),
            ("mean", None): arithmetic.array(1) / len(inputs),
        }
        for quantity, tensors in ((PARAMETER, params), (DIRECTION, vector)):
            for owned in self.model.parameters:
                for parameter in owned.members:
                    family = quantity.family(parameter.slot)
                    values[family, owned.index] = arithmetic.array(tensors[parameter.name])
        for family, numbers in drawn.items():
            values[family, None] = arithmetic.array(numbers)
        self._values = values
        self._prepared: dict[tuple[str, tuple[str, ...]], Machine] = {}

    def call(self, name: str, kind: str, **choices: object) -> dict[str, Array]:
        """What a function of the module returns; members of pairs and gradients by name too.

        Args:
            name: of the operator.
            kind: of curvature.
            choices: its other arguments.

        Raises:
            VerificationError: the operator is not there, or the choices do not go with the kind.
        """
        if name not in self.operators:
            raise VerificationError(f"'{name}' does not exist for this model")
        operator, plan = self.operators[name], self.kinds[kind]
        case = next((c for c in operator.cases if _fits(c, plan, choices)), None)
        if case is None:
            raise VerificationError(f"{name} has no case for kind '{kind}' with {choices}")
        machine = copy(self._after(plan, operator))
        machine.arrays = dict(machine.arrays)
        run_functions(machine, [self.program.function(function, True) for function in case.functions])
        found: dict[str, Array] = {}
        for result in (*operator.also, *case.results):
            found.update(read(machine, result))
        return found

    def _after(self, kind: KindPlan, operator: Operator) -> Machine:
        """Memory after the blocks of a kind, which all operators with the same extra functions share."""
        key = (kind.name, operator.extra)
        if key not in self._prepared:
            machine = Machine(self.program, self._values, self.arithmetic)
            names = with_extra(kind, operator.extra)
            run_functions(machine, [self.program.function(function, True) for function in names])
            self._prepared[key] = machine
        return self._prepared[key]


def _fits(case: Case, kind: KindPlan, choices: Mapping[str, object]) -> bool:
    if kind.form not in case.forms:
        return False
    return all(choices[name] in values for name, values in case.choices)


def read(machine: Machine, result: Result) -> Iterator[tuple[str, Array]]:
    """Arrays of a result by key; members of pairs have both names in it."""
    if isinstance(result, Table):
        for entry in result.entries:
            value = machine.arrays[entry.member]
            size = value.shape[0] * value.shape[1] if entry.matrix else 0
            yield entry.key, value.reshape(size, size) if entry.matrix else value
    elif isinstance(result, Pairs):
        for key, pair in result.rows:
            for field, member in zip(result.record.fields, pair, strict=True):
                yield f"{key}.{field.name}", machine.arrays[member]
    else:
        yield result.key, machine.arrays[result.family, None]
