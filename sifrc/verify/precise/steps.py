"""Level 2 for optimizer steps: those that use structure against the program without that pass, those of
grouped Newton against the oracle's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import mpmath
import numpy as np

from sifrc.derive.curvature.scores import NORMAL, UNIFORM
from sifrc.errors import DerivationError, MethodError, VerificationError
from sifrc.ir.arithmetic import MPMATH, Array
from sifrc.ir.quantity import Storage
from sifrc.lower.interpret import Key, Machine, run_functions
from sifrc.lower.lowering import Passes, lower
from sifrc.lower.program import Program
from sifrc.methods.base import read_options
from sifrc.methods.grouped_newton import GroupedNewton
from sifrc.methods.planning import make_plan
from sifrc.model import Model, build_model
from sifrc.spec.types import Spec, TargetSpec
from sifrc.verify.capped import capped
from sifrc.verify.comparison import separate_digits
from sifrc.verify.inputs import given_symbols
from sifrc.verify.oracles.batch_mpmath import settled
from sifrc.verify.oracles.grouped_step import GroupedSteps, NoMinimiserError
from sifrc.verify.oracles.network import as_vectors, input_parts
from sifrc.verify.points import Point, random_point
from sifrc.verify.subjects.program import buffers_of
from sifrc.verify.table import Row

__all__ = ["step_rows"]

_CAP = 4
_BATCH = 2
_STEPS = 2
_ORACLE = "without the structure pass"
_DUALS = "nested duals, bisection"
_ATTEMPTS = 5


def step_rows(spec: Spec, digits: int, seed: int) -> Iterator[tuple[str, str, Callable[[], Row | None]]]:
    """The check of a step as (quantity, oracle, check), where there is something to compare with."""
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
    if spec.method.name == GroupedNewton.name:
        yield "step", _DUALS, lambda: _grouped_row(model, program, digits, seed)


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


_MOVING = frozenset({Storage.PARAMETER, Storage.BUFFER, Storage.MEMORY})
"""What a step leaves for the next one."""


def _after(model: Model, program: Program, point: Point, seed: int) -> dict[str, Array]:
    """How far parameters went, and memory, by name."""
    values = _values(model, program, point, seed)
    start = {key: np.array(value) for key, value in values.items()}  # a step may write into what it is given
    moving = {family.name for family in program.families if family.storage in _MOVING}
    for _ in range(_STEPS):
        machine = Machine(program, values, MPMATH)
        run_functions(machine, [program.function(name, True) for name in program.step_batched])
        values |= {key: machine.arrays[key] for key in values if key[0] in moving}
    result: dict[str, Array] = {}
    for family in program.families:
        if family.storage in (Storage.PARAMETER, Storage.MEMORY):
            for index, _ in family.shapes:
                key = family.name, index
                result[f"{family.name}[{index}]"] = np.asarray(values[key] - start[key])
    return result


def _grouped_row(model: Model, program: Program, digits: int, seed: int) -> Row:
    """Parameters and rates after two steps of grouped Newton, each with a summary of its batch."""
    spec = model.spec
    assert spec.method is not None
    options = read_options(GroupedNewton(), spec.method)
    note = f"layers capped at {_CAP} units; batch of {_BATCH}, {_STEPS} steps, each with a summary"
    with mpmath.workdps(digits):
        for attempt in range(_ATTEMPTS):
            point = settled(spec, random_point(spec, seed + 101 * attempt, _BATCH), seed)
            steps = GroupedSteps(spec, options, point, digits)
            try:
                for _ in range(_STEPS):
                    steps.step()
            except NoMinimiserError as error:
                reason = str(error)
                continue
            assert steps.rates is not None
            after = _after(model, program, point, seed)
            found, expected = {"rates": after["η̃[None]"]}, {"rates": steps.rates}
            for parameter in model.tensors:
                name = parameter.name
                found[name] = after[parameter.symbol.name]
                expected[name] = steps.params[name] - MPMATH.array(point.params[name])
            agreed = separate_digits(found, expected, digits)
            required = digits / 2  # minimisers lose digits where the model is flat
            return Row("step", 2, _DUALS, agreed, required, agreed >= required, note)
    return Row("step", 2, _DUALS, None, None, None, f"{reason}, at {_ATTEMPTS} random points")


def _values(model: Model, program: Program, point: Point, seed: int) -> dict[Key, Array]:
    """What a step is given: parameters, a batch, hyperparameters, memory as it starts, random numbers."""
    size = model.spec.layers[-1].size
    classes = model.spec.loss.targets == "classes"
    parts = input_parts(model.spec, point.inputs)
    values: dict[Key, Array] = {
        **{
            (symbol.family, symbol.index): MPMATH.array(as_vectors(source, parts[source.name]))
            for symbol, source in given_symbols(model)
        },
        ("t", None): MPMATH.array(np.eye(size)[point.targets] if classes else point.targets),
        ("mean", None): MPMATH.array(1) / len(point.inputs),
    }
    for parameter in model.tensors:
        symbol = parameter.symbol
        values[symbol.family, symbol.index] = MPMATH.array(point.params[parameter.name])
    values |= buffers_of(model, MPMATH)
    for number in program.hyperparameters:
        values[number.name, None] = MPMATH.array(repr(float(number.default)))
    generator = np.random.default_rng(seed)
    drawn = (_BATCH, size)
    draws = {UNIFORM: generator.uniform(size=drawn), NORMAL: generator.normal(size=drawn)}
    for family in program.families:
        for index, shape in family.shapes:
            if family.storage is Storage.MEMORY:
                given = [1 if length is None else length for length in shape]
                start = np.eye(given[0]) if family.initial == "identity" else np.zeros(given)
                values[family.name, index] = MPMATH.array(start)
            elif family.name in draws:
                values[family.name, index] = MPMATH.array(draws[family.name])
    return values
