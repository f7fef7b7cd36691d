"""A small interpreter of tensor programs on NumPy: what verification runs.

It executes the very statements that backends print, on float64 arrays or on object arrays of mpmath
numbers, one statement at a time and without optimisation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any, TypeAlias

import mpmath
import numpy as np
import numpy.typing as npt
import sympy

from sifrc.ir.arithmetic import NUMPY, NumberSystem
from sifrc.ir.fixed import table_values
from sifrc.ir.quantity import Storage
from sifrc.lower import statements as st
from sifrc.lower.access import loads_of
from sifrc.lower.arrays import SAMPLE_LABEL, AtStep, Load, Ref, Slot, Subscript, Upto
from sifrc.lower.changed import changed, classes_from, largest_positions, spread
from sifrc.lower.convolutions import as_contraction
from sifrc.lower.program import Function, Program
from sifrc.scalar import POWER_OF_TWO, evaluate

__all__ = ["Key", "Machine", "run_functions"]

Array: TypeAlias = npt.NDArray[Any]
Key: TypeAlias = tuple[str, int | None]


class Machine:
    """Memory of a running program.

    Args:
        program: what runs.
        values: arrays of the families that are given: parameters, data, directions, memory,
            hyperparameters (scalars). Classes are given as equations have them, as vectors with a one.
        arithmetic: number system, see :mod:`sifrc.ir.arithmetic`.
    """

    def __init__(self, program: Program, values: Mapping[Key, Any], arithmetic: NumberSystem = NUMPY) -> None:
        self.program = program
        self.arithmetic = arithmetic
        self.dialect = arithmetic.dialect
        self.arrays: dict[Key, Array] = {key: np.asarray(value) for key, value in values.items()}
        for family in program.families:
            for index in family.classes:
                if (family.name, index) in self.arrays:
                    self.arrays[family.name, index] = classes_from(self.arrays[family.name, index])
        self.loop: int | None = None
        self.step = 0
        for family in program.families:
            for position, (index, shape) in enumerate(family.shapes):
                if family.storage is Storage.CONSTANT:
                    # the decimal number of the spec, not the binary number next to it
                    self.arrays[family.name, index] = arithmetic.array(repr(float(family.values[position])))
                elif family.storage is Storage.TABLE:
                    sizes = tuple(size or 0 for size in shape)
                    self.arrays[family.name, index] = table_values(
                        family.entries[position], sizes, arithmetic
                    )
                elif family.storage is Storage.IDENTITY:
                    self.arrays[family.name, index] = arithmetic.array(np.eye(shape[0] or 0))

    def write(self, target: Load, values: Any) -> None:
        """Set an array, or a window of it."""
        if target.window:
            # A single entry of an array of objects takes the object, not an array around it.
            self.arrays[self.key(target.ref)][self._window(target)] = np.asarray(values)[()]
        else:
            self.arrays[self.key(target.ref)] = np.asarray(values)

    def _window(self, load: Load) -> tuple[int | slice, ...]:
        """The index of the part that a load means."""
        found: list[int | slice] = []
        for part in load.window:
            if isinstance(part, Slot):
                found.append(self.program.owners[part.family, self.index(part.subscript)])
            elif isinstance(part, Upto):
                found.append(slice(0, len(self.arrays[self.key(part.ref)])))
            elif isinstance(part, AtStep):
                found.append(self.step)
            else:
                found.append(slice(None) if part is None else part)
        return tuple(found)

    def key(self, ref: Ref) -> Key:
        """Family and index, loop variable put in."""
        return ref.family, None if ref.subscript is None else self.index(ref.subscript)

    def index(self, subscript: Subscript) -> int:
        """Value of a subscript."""
        if not subscript.relative:
            return subscript.offset
        assert self.loop is not None
        return self.loop + subscript.offset

    def read(self, load: Load) -> Array:
        """The array of a load, or the window of it that is meant."""
        array = self.arrays[self.key(load.ref)]
        array = np.asarray(array[self._window(load)]) if load.window else array
        for change in load.changes:
            array = changed(array, change, lambda ref: self.arrays[self.key(ref)], self.arithmetic)
        return array

    def scalars(self, loads: Sequence[tuple[str, Load]], labels: tuple[str, ...]) -> dict[str, Array]:
        """Loads as arrays over the labels, missing ones with length one."""
        return {name: spread(self.read(load), load.labels, labels) for name, load in loads}

    def value(
        self,
        expr: sympy.Expr,
        loads: Mapping[str, Array],
        extents: Mapping[str, int],
        labels: tuple[str, ...],
    ) -> Array:
        """A scalar expression over all entries."""
        shape = tuple(extents[label] for label in labels)
        full = {name: np.broadcast_to(array, shape) for name, array in loads.items()}
        return np.array(np.broadcast_to(evaluate(expr, full, self.dialect), shape))

    def extents(self, loads: Sequence[Load]) -> dict[str, int]:
        """Sizes of labels, from arrays that exist."""
        sizes: dict[str, int] = {}
        for load in loads:
            if self.key(load.ref) in self.arrays:
                sizes.update(zip(load.labels, self.read(load).shape, strict=True))
        return sizes

    def shape(self, ref: Ref, labels: tuple[str, ...], sizes: dict[str, int]) -> None:
        """Fill in sizes of labels that only the target has, from the program's table."""
        family = self.program.family(ref.family)
        known = dict(family.shapes)[self.key(ref)[1]]
        inputs = self.arrays.get(("x", 0))
        if SAMPLE_LABEL in labels and inputs is not None:
            sizes.setdefault(SAMPLE_LABEL, len(inputs))
        given = [size for size in known if size is not None]
        own = [label for label in labels if label != SAMPLE_LABEL]
        for label, size in zip(reversed(own), reversed(given), strict=False):
            sizes.setdefault(label, size)


def run_functions(machine: Machine, functions: Sequence[Function]) -> None:
    """Execute functions in order; results are in ``machine.arrays``."""
    for function in functions:
        for item in function.body:
            if isinstance(item, st.Loop):
                for k in range(item.start, item.stop, item.step):
                    machine.loop = k
                    for statement in item.body:
                        _execute(statement, machine)
                machine.loop = None
            else:
                _execute(item, machine)


@singledispatch
def _execute(statement: st.Statement, machine: Machine) -> None:
    raise TypeError(f"no interpretation of {type(statement).__name__}")


@_execute.register
def _(statement: st.Fresh, machine: Machine) -> None:
    family, index = machine.key(statement.target.ref)
    sizes = dict(machine.program.family(family).shapes)[index]
    shape = [len(machine.arrays["x", 0]) if size is None else size for size in sizes]
    machine.write(statement.target, machine.arithmetic.array(np.zeros(shape)))


@_execute.register
def _(statement: st.Kernel, machine: Machine) -> None:
    sizes = machine.extents([load for _, load in statement.loads])
    for assign in statement.assigns:
        machine.shape(assign.target.ref, assign.target.labels, sizes)
    for assign in statement.assigns:
        used = {symbol.name for symbol in assign.value.free_symbols}
        loads = machine.scalars([(n, load) for n, load in statement.loads if n in used], statement.labels)
        machine.write(assign.target, machine.value(assign.value, loads, sizes, statement.labels))


@_execute.register
def _(statement: st.Sum, machine: Machine) -> None:
    labels = (*statement.target.labels, *statement.over)
    sizes = machine.extents([load for _, load in statement.loads])
    machine.shape(statement.target.ref, statement.target.labels, sizes)
    entries = machine.value(statement.value, machine.scalars(statement.loads, labels), sizes, labels)
    axes = tuple(range(len(statement.target.labels), len(labels)))
    machine.write(statement.target, np.sum(entries, axis=axes))


@_execute.register
def _(statement: st.Contract, machine: Machine) -> None:
    left, right = statement.left, statement.right
    numbers: dict[str, int] = {}
    first, second, out = (
        [numbers.setdefault(label, len(numbers)) for label in load.labels]
        for load in (left, right, statement.target)
    )
    product = np.einsum(machine.read(left), first, machine.read(right), second, out)
    scale = evaluate(statement.scale, {n: machine.read(load) for n, load in statement.loads}, machine.dialect)
    machine.write(statement.target, product * scale)


@_execute.register
def _(statement: st.Put, machine: Machine) -> None:
    target, operand, classes = statement.target, statement.operand, statement.classes
    values, places = machine.read(operand), machine.arrays[machine.key(classes.ref)]
    sizes = machine.extents([operand])
    machine.shape(target.ref, target.labels, sizes)
    grids = dict(zip(operand.labels, np.indices(values.shape), strict=True))
    grids[statement.at] = places[tuple(grids[label] for label in classes.labels)]
    found = machine.arithmetic.array(np.zeros([sizes[label] for label in target.labels]))
    np.add.at(found, tuple(grids[label] for label in target.labels), values)
    scale = evaluate(statement.scale, {n: machine.read(load) for n, load in statement.loads}, machine.dialect)
    machine.write(target, found * scale)


@_execute.register
def _(statement: st.Convolve, machine: Machine) -> None:
    _execute(as_contraction(statement), machine)


@_execute.register(st.LogSumExpOver)
@_execute.register(st.LogSoftmaxOver)
@_execute.register(st.MaximumOver)
@_execute.register(st.ArgMaxOver)
def _(
    statement: st.LogSumExpOver | st.LogSoftmaxOver | st.MaximumOver | st.ArgMaxOver, machine: Machine
) -> None:
    values, axis = machine.read(statement.operand), statement.operand.labels.index(statement.over)
    if isinstance(statement, st.LogSumExpOver):
        found = machine.arithmetic.log_sum_exp(values, axis)
    elif isinstance(statement, st.LogSoftmaxOver):
        found = machine.arithmetic.log_softmax(values, axis)
    elif isinstance(statement, st.ArgMaxOver):
        first = np.expand_dims(np.argmax(values, axis=axis), axis)
        places = np.moveaxis(np.arange(values.shape[axis]).reshape(-1, *[1] * (values.ndim - 1)), 0, axis)
        found = machine.arithmetic.array((places == first).astype(float))
    else:
        found = machine.arithmetic.maximum(abs(values) if statement.magnitude else values, axis)
    machine.write(statement.target, found)


@_execute.register
def _(statement: st.LargestPosition, machine: Machine) -> None:
    machine.write(statement.target, largest_positions(machine.read(statement.image), statement.axes))


@_execute.register
def _(statement: st.Steps, machine: Machine) -> None:
    for _, before in statement.carried:
        sizes: dict[str, int] = {}
        machine.shape(before.ref, before.labels, sizes)
        zeros = np.zeros([sizes[label] for label in before.labels])
        machine.write(before, machine.arithmetic.array(zeros))
    found: list[list[Array]] = [[] for _ in statement.stored]
    for step in reversed(range(statement.count)) if statement.backwards else range(statement.count):
        machine.step = step
        for part in statement.body:
            _execute(part, machine)
        for values, (now, _) in zip(found, statement.stored, strict=True):
            values.append(machine.read(now))
        for now, before in statement.carried:
            machine.write(before, machine.read(now))
    for values, (_, whole) in zip(found, statement.stored, strict=True):
        ordered = values[::-1] if statement.backwards else values
        machine.write(whole, np.stack(ordered, axis=whole.labels.index(statement.over)))


@_execute.register
def _(statement: st.Guard, machine: Machine) -> None:
    finite = np.frompyfunc(lambda v: bool(mpmath.isfinite(v)), 1, 1)(machine.read(statement.operand))
    if not np.all(finite):
        bad = int(np.argmin(np.all(finite.reshape(len(finite), -1), axis=1))) if statement.rows else 0
        layer, quantity = machine.program.guards[machine.index(statement.code) - 1 + bad]
        raise FloatingPointError(f"{quantity} of '{layer}' is not finite")


def _each(function: Callable[..., Array], *arrays: Array) -> Array:
    """Apply a function of matrices to every sample, where the first array has a sample axis."""
    if arrays[0].ndim == 2:
        return function(*arrays)
    return np.stack([function(*parts) for parts in zip(*arrays, strict=True)])


@_execute.register
def _(statement: st.SolveSystem, machine: Machine) -> None:
    matrix, rhs = machine.read(statement.matrix), machine.read(statement.rhs)
    solution = _each(machine.arithmetic.solve, matrix, rhs)
    if statement.checked and not _solved(machine.arithmetic, matrix, rhs, solution):
        name, quantity = "the network", "a linear system"
        if statement.guard is not None:
            name, quantity = machine.program.guards[statement.guard - 1]
        raise FloatingPointError(
            f"{quantity} of '{name}' is not defined: the right side is not in the range of the matrix"
        )
    machine.write(statement.target, solution)


def _solved(arithmetic: NumberSystem, matrix: Array, rhs: Array, solution: Array) -> bool:
    """Whether every column of every sample is a solution, to half of the digits."""
    shape = (*matrix.shape[:-1], -1)
    left, right = solution.reshape(shape), rhs.reshape(shape)
    error = ((matrix @ left - right) ** 2).sum(axis=-2)
    return bool(np.all(error <= arithmetic.epsilon() * (right**2).sum(axis=-2)))


@_execute.register
def _(statement: st.MatrixFunction, machine: Machine) -> None:
    def function(matrix: Array) -> Array:
        return machine.arithmetic.spectral(matrix, statement.kind)

    machine.write(statement.target, _each(function, machine.read(statement.matrix)))


@_execute.register
def _(statement: st.SolveSylvester, machine: Machine) -> None:
    operands = (machine.read(load) for load in loads_of(statement))
    machine.write(statement.target, machine.arithmetic.sylvester(*operands))


@_execute.register
def _(statement: st.SolveKronecker, machine: Machine) -> None:
    operands = (machine.read(load) for load in loads_of(statement))
    machine.write(statement.target, machine.arithmetic.kronecker(*operands))


@_execute.register
def _(statement: st.SolveCubic, machine: Machine) -> None:
    matrix, rhs, third, strength = (machine.read(load) for load in loads_of(statement))
    solution = machine.arithmetic.cubic_newton(matrix, rhs, third, strength, statement.unbounded)
    machine.write(statement.target, solution)


@_execute.register
def _(statement: st.ConjugateGradients, machine: Machine) -> None:
    """From zero, until a limit, a small residual, or a direction whose curvature is not positive to rounding.

    A product and an inner product of ``terms`` terms are off by ``rounding`` relative to the norm of the
    operator. So a curvature may be rounding alone in two ways: against that norm, for the direction as it is;
    or because of the direction, if its part along its product is no longer than the ``error`` of the
    residuals that it is made of. In a singular system without a solution the steps before that are long, and
    the error is large. The second way is looked at only where direction and product are closer to a right
    angle than they are for any operator whose condition number costs less than half of the digits. Squares of
    small numbers vanish: the search is on the right sides divided by a power of two of their size.
    """
    unknowns = statement.unknowns

    def inner(left: Sequence[Load], right: Sequence[Load]) -> Any:
        return sum(np.sum(machine.read(a) * machine.read(b)) for a, b in zip(left, right, strict=True))

    directions, products = [u.direction for u in unknowns], [u.product for u in unknowns]
    residuals = [u.residual for u in unknowns]
    largest = np.asarray(max(np.max(abs(machine.read(unknown.rhs))) for unknown in unknowns))
    scale = machine.arithmetic.apply(POWER_OF_TWO, (0,), {"x": largest})
    for unknown in unknowns:
        rhs = machine.read(unknown.rhs) / scale
        machine.write(unknown.solution, 0 * rhs)
        machine.write(unknown.residual, rhs)
        machine.write(unknown.direction, rhs)
    start = size = inner(residuals, residuals)
    bound = start * machine.read(statement.tolerance) ** 2
    terms = sum(max(1, sum(np.shape(machine.read(r)))) for r in residuals)
    rounding = 4 * (1 + terms**0.5) * machine.arithmetic.epsilon()
    count, steepest, error = 0, 0 * start, 0 * start
    while count < int(machine.read(statement.limit)) and not size <= bound:
        for part in statement.body:
            _execute(part, machine)
        curvature = inner(directions, products)
        length, reach = inner(directions, directions) ** 0.5, inner(products, products) ** 0.5
        steepest = max(steepest, reach / length) if length > 0 else steepest
        if curvature <= max(rounding * steepest * length**2, reach * min(rounding**0.25 * length, error)):
            break
        rate = size / curvature
        error += 16 * rounding * rate * steepest * length * (1 + reach * length / curvature)
        for u in unknowns:
            machine.write(u.solution, machine.read(u.solution) + rate * machine.read(u.direction))
            machine.write(u.residual, machine.read(u.residual) - rate * machine.read(u.product))
        following = inner(residuals, residuals)
        for unknown in unknowns:
            moved = machine.read(unknown.residual) + following / size * machine.read(unknown.direction)
            machine.write(unknown.direction, moved)
        size = following
        count += 1
    for unknown in unknowns:
        machine.write(unknown.solution, machine.read(unknown.solution) * scale)
    machine.write(statement.iterations, count)
    machine.write(statement.remaining, (size / start) ** 0.5 if start > 0 else size)
