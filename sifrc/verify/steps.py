"""Level 2 for optimizer steps that use structure: the same step by the program without that pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import mpmath
import numpy as np

from sifrc.derive.curvature.scores import NORMAL, UNIFORM
from sifrc.errors import DerivationError, MethodError, VerificationError
from sifrc.ir.arithmetic import MPMATH, Array
from sifrc.lower.interpret import Key, Machine, run_functions
from sifrc.lower.lowering import Passes, lower
from sifrc.lower.program import Program, Storage
from sifrc.methods.planning import make_plan
from sifrc.model import Model, build_model
from sifrc.spec.types import Spec, TargetSpec
from sifrc.verify.comparison import separate_digits
from sifrc.verify.points import Point, capped, random_point
from sifrc.verify.table import Row

__all__ = ["step_rows"]

_CAP = 4
_BATCH = 2
_STEPS = 2
_ORACLE = "without the structure pass"


def step_rows(spec: Spec, digits: int, seed: int) -> Iterator[tuple[str, str, Callable[[], Row | None]]]:
    """The check of a step as (quantity, oracle, check), if linear systems in it have structure."""
    if spec.method is None:
        return
    small = replace(capped(spec, _CAP), target=TargetSpec())
    model = build_model(small)
    try:
        plan = make_plan(model).plan
    except (DerivationError, MethodError):
        return  # no step, which compiling says
    program, plain = lower(plan), lower(plan, Passes(structure=False))
    if program != plain and program.step_batched:
        yield "step", _ORACLE, lambda: _row(model, program, plain, digits, seed)


def _row(model: Model, program: Program, plain: Program, digits: int, seed: int) -> Row:
    """Parameters and memory after two steps by both programs."""
    with mpmath.workdps(digits):
        point = random_point(model.spec, seed, _BATCH)
        found, expected = (_after(model, each, point, seed) for each in (program, plain))
        moved = [name for name, value in expected.items() if np.any(value != 0)]
        if not moved:
            raise VerificationError("the step changes nothing")
        agreed = separate_digits(found, expected, digits)
    required = digits / 2  # conjugate gradients lose digits as they converge
    note = f"layers capped at {_CAP} units; batch of {_BATCH}, {_STEPS} steps with the default numbers"
    return Row("step", 2, _ORACLE, agreed, required, agreed >= required, note)


def _after(model: Model, program: Program, point: Point, seed: int) -> dict[str, Array]:
    """How far parameters went, and memory, by name."""
    values = _values(model, program, point, seed)
    start = dict(values)
    for _ in range(_STEPS):
        machine = Machine(program, values, MPMATH)
        run_functions(machine, [program.function(name, True) for name in program.step_batched])
        values = {key: machine.arrays[key] for key in values}
    result: dict[str, Array] = {}
    for family in program.families:
        if family.storage in (Storage.PARAMETER, Storage.MEMORY):
            for index, _ in family.shapes:
                key = family.name, index
                result[f"{family.name}[{index}]"] = np.asarray(values[key] - start[key])
    return result


def _values(model: Model, program: Program, point: Point, seed: int) -> dict[Key, Array]:
    """What a step is given: parameters, a batch, hyperparameters, memory as it starts, random numbers."""
    size = model.spec.layers[-1].size
    classes = model.spec.loss.targets == "classes"
    values: dict[Key, Array] = {
        ("x", 0): MPMATH.array(point.inputs),
        ("t", None): MPMATH.array(np.eye(size)[point.targets] if classes else point.targets),
        ("mean", None): MPMATH.array(1) / len(point.inputs),
    }
    for owned in model.parameters:
        for name, symbol in owned.members:
            values["W" if symbol is owned.weight else "β", owned.index] = MPMATH.array(point.params[name])
    for name, default, _ in program.hyperparameters:
        values[name, None] = MPMATH.array(repr(float(default)))
    generator = np.random.default_rng(seed)
    shape_of_draws = (_BATCH, size)
    draws = {
        UNIFORM: generator.uniform(size=shape_of_draws),
        NORMAL: generator.normal(size=shape_of_draws),
    }
    for family in program.families:
        for index, shape in family.shapes:
            if family.storage is Storage.MEMORY:
                given = [1 if length is None else length for length in shape]
                start = np.eye(given[0]) if family.initial == "identity" else np.zeros(given)
                values[family.name, index] = MPMATH.array(start)
            elif family.name in draws:
                values[family.name, index] = MPMATH.array(draws[family.name])
    return values
