"""A small interpreter of tensor programs on NumPy: what verification runs.

It executes the very statements that backends print, on float64 arrays or on object arrays of mpmath
numbers, one statement at a time and without optimisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any, TypeAlias

import mpmath
import numpy as np
import numpy.typing as npt
import sympy

from sifrc.lower.program import (
    Contract,
    Function,
    Guard,
    Kernel,
    Load,
    LogSumExpOver,
    Loop,
    MatrixFunction,
    MaximumOver,
    Program,
    Ref,
    SolveSylvester,
    SolveSystem,
    Statement,
    Storage,
    Subscript,
    Sum,
)
from sifrc.scalar import EvaluationDialect, evaluate

__all__ = ["Machine", "run_functions"]

Array: TypeAlias = npt.NDArray[Any]
Key: TypeAlias = tuple[str, int | None]


class Machine:
    """Memory of a running program.

    Args:
        program: what runs.
        values: arrays of the families that are given: parameters, data, directions, memory,
            hyperparameters (scalars).
        dialect: ``numpy`` or ``mpmath``.
    """

    def __init__(self, program: Program, values: Mapping[Key, Any], dialect: EvaluationDialect) -> None:
        self.program = program
        self.dialect: EvaluationDialect = dialect
        self.arrays: dict[Key, Array] = {key: np.asarray(value) for key, value in values.items()}
        self.loop: int | None = None
        for family in program.families:
            for position, (index, shape) in enumerate(family.shapes):
                if family.storage is Storage.CONSTANT:
                    self.arrays[family.name, index] = self.number(family.values[position])
                elif family.storage is Storage.IDENTITY:
                    self.arrays[family.name, index] = self.number(np.eye(shape[0] or 0))

    def number(self, value: Any) -> Array:
        """Numbers of the dialect; decimal constants are exact in mpmath."""
        if self.dialect == "numpy":
            return np.asarray(value, dtype=np.float64)
        convert = np.frompyfunc(lambda v: mpmath.mpf(repr(float(v))), 1, 1)
        return np.asarray(convert(np.asarray(value)))

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
        """The array of a load."""
        return self.arrays[self.key(load.ref)]

    def scalars(self, loads: Sequence[tuple[str, Load]], labels: tuple[str, ...]) -> dict[str, Array]:
        """Loads as arrays over the labels, missing ones with length one."""
        return {name: _spread(self.read(load), load.labels, labels) for name, load in loads}

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
        given = [size for size in known if size is not None]
        for label, size in zip(reversed(labels), reversed(given), strict=False):
            sizes.setdefault(label, size)


def _spread(array: Array, have: tuple[str, ...], want: tuple[str, ...]) -> Array:
    order = [have.index(label) for label in want if label in have]
    moved = np.transpose(array, order) if array.ndim else array
    return moved.reshape(
        [moved.shape[[w for w in want if w in have].index(label)] if label in have else 1 for label in want]
    )


def run_functions(machine: Machine, functions: Sequence[Function]) -> None:
    """Execute functions in order; results are in ``machine.arrays``."""
    for function in functions:
        for item in function.body:
            if isinstance(item, Loop):
                for k in range(item.start, item.stop, item.step):
                    machine.loop = k
                    for statement in item.body:
                        _execute(statement, machine)
                machine.loop = None
            else:
                _execute(item, machine)


@singledispatch
def _execute(statement: Statement, machine: Machine) -> None:
    raise TypeError(f"no interpretation of {type(statement).__name__}")


@_execute.register
def _(statement: Kernel, machine: Machine) -> None:
    sizes = machine.extents([load for _, load in statement.loads])
    for assign in statement.assigns:
        machine.shape(assign.target.ref, assign.target.labels, sizes)
    for assign in statement.assigns:
        used = {symbol.name for symbol in assign.value.free_symbols}
        loads = machine.scalars([(n, load) for n, load in statement.loads if n in used], statement.labels)
        machine.arrays[machine.key(assign.target.ref)] = machine.value(
            assign.value, loads, sizes, statement.labels
        )


@_execute.register
def _(statement: Sum, machine: Machine) -> None:
    labels = (*statement.target.labels, *statement.over)
    sizes = machine.extents([load for _, load in statement.loads])
    machine.shape(statement.target.ref, statement.target.labels, sizes)
    entries = machine.value(statement.value, machine.scalars(statement.loads, labels), sizes, labels)
    axes = tuple(range(len(statement.target.labels), len(labels)))
    machine.arrays[machine.key(statement.target.ref)] = np.asarray(np.sum(entries, axis=axes))


@_execute.register
def _(statement: Contract, machine: Machine) -> None:
    left, right = statement.left, statement.right
    text = f"{''.join(left.labels)},{''.join(right.labels)}->{''.join(statement.target.labels)}"
    product = np.einsum(text, machine.read(left), machine.read(right))
    scale = evaluate(statement.scale, {n: machine.read(load) for n, load in statement.loads}, machine.dialect)
    machine.arrays[machine.key(statement.target.ref)] = np.asarray(product * scale)


def _axis(load: Load, label: str) -> int:
    return load.labels.index(label)


@_execute.register
def _(statement: LogSumExpOver, machine: Machine) -> None:
    values, axis = machine.read(statement.operand), _axis(statement.operand, statement.over)
    largest = np.max(values, axis=axis, keepdims=True)
    x = sympy.Symbol("x", real=True)
    powers = evaluate(sympy.exp(x), {"x": values - largest}, machine.dialect)
    logs = evaluate(sympy.log(x), {"x": np.asarray(np.sum(powers, axis=axis))}, machine.dialect)
    machine.arrays[machine.key(statement.target.ref)] = np.asarray(np.squeeze(largest, axis=axis) + logs)


@_execute.register
def _(statement: MaximumOver, machine: Machine) -> None:
    values = machine.read(statement.operand)
    machine.arrays[machine.key(statement.target.ref)] = np.asarray(
        np.max(values, axis=_axis(statement.operand, statement.over))
    )


@_execute.register
def _(statement: Guard, machine: Machine) -> None:
    finite = np.frompyfunc(lambda v: bool(mpmath.isfinite(v)), 1, 1)(machine.read(statement.operand))
    if not np.all(finite):
        layer, quantity = machine.program.guards[machine.index(statement.code) - 1]
        raise FloatingPointError(f"{quantity} of '{layer}' is not finite")


@_execute.register
def _(statement: SolveSystem, machine: Machine) -> None:
    matrix, rhs = machine.read(statement.matrix), machine.read(statement.rhs)
    batched = matrix.ndim == 3
    pairs = zip(matrix, rhs, strict=True) if batched else [(matrix, rhs)]
    solutions = [least_norm_solution(m, r, machine.dialect) for m, r in pairs]
    machine.arrays[machine.key(statement.target.ref)] = np.stack(solutions) if batched else solutions[0]


@_execute.register
def _(statement: MatrixFunction, machine: Machine) -> None:
    matrix = machine.read(statement.matrix)
    function = abs if statement.kind == "absolute" else (lambda v: v if v > 0 else v * 0)
    stacked = matrix if matrix.ndim == 3 else matrix[None]
    values = []
    for one in stacked:
        eigenvalues, vectors = _symmetric_eigen(one, machine.dialect)
        mapped = np.array([function(v) for v in eigenvalues], dtype=eigenvalues.dtype)
        values.append((vectors * mapped) @ vectors.T)
    machine.arrays[machine.key(statement.target.ref)] = np.stack(values) if matrix.ndim == 3 else values[0]


@_execute.register
def _(statement: SolveSylvester, machine: Machine) -> None:
    left, right, rhs = (machine.read(load) for load in (statement.left, statement.right, statement.rhs))
    (a, u), (b, v) = _symmetric_eigen(left, machine.dialect), _symmetric_eigen(right, machine.dialect)
    sums = a[:, None] + b[None, :]
    rotated = u.T @ rhs @ v
    cutoff = _epsilon(machine.dialect) * max(len(a), len(b)) * max(abs(sums).max(), 0)
    scaled = np.where(abs(sums) > cutoff, rotated / np.where(abs(sums) > cutoff, sums, 1), rotated * 0)
    machine.arrays[machine.key(statement.target.ref)] = u @ scaled @ v.T


def _epsilon(dialect: EvaluationDialect) -> Any:
    return np.finfo(np.float64).eps if dialect == "numpy" else mpmath.eps


def _symmetric_eigen(matrix: Array, dialect: EvaluationDialect) -> tuple[Array, Array]:
    if dialect == "numpy":
        eigenvalues, vectors = np.linalg.eigh(matrix)
        return eigenvalues, vectors
    n = matrix.shape[0]
    values, basis = mpmath.eigsy(mpmath.matrix(matrix.tolist()))
    return (
        np.array([values[i] for i in range(n)], dtype=object),
        np.array([[basis[i, j] for j in range(n)] for i in range(n)], dtype=object),
    )


def least_norm_solution(matrix: Array, rhs: Array, dialect: EvaluationDialect) -> Array:
    """Least-norm solution of a symmetric system, by its eigenvalues."""
    eigenvalues, vectors = _symmetric_eigen((matrix + matrix.T) / 2, dialect)
    largest = max(abs(eigenvalues))
    cutoff = 16 * len(eigenvalues) * _epsilon(dialect) * largest
    inverse = np.array([1 / v if abs(v) > cutoff else v * 0 for v in eigenvalues], dtype=eigenvalues.dtype)
    rotated = vectors.T @ rhs
    scaled = rotated * (inverse if rhs.ndim == 1 else inverse[:, None])
    return np.asarray(vectors @ scaled)
