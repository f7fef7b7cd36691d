"""What products with a vector need of the point alone is computed once, before the first vector.

A product runs functions that prepare the point, and others for each vector. What the latter compute without a
vector goes to a function of its own, which prepares too: slopes, and products of slopes that loops over steps
read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from sifrc.catalogue.record import Operator
from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, loads_of, targets_of, unrolled
from sifrc.lower.again import is_made_again
from sifrc.lower.blocks import fuse_kernels, shapes_lookup
from sifrc.lower.program import Function, Program
from sifrc.lower.statements import (
    ArgMaxOver,
    Contract,
    Convolve,
    Kernel,
    LargestPosition,
    LogSoftmaxOver,
    LogSumExpOver,
    Loop,
    MaximumOver,
    Statement,
    Sum,
)

__all__ = ["with_point_apart"]

Member: TypeAlias = tuple[str, int | None]

_OF_POINT = frozenset({Storage.PARAMETER, Storage.BUFFER, Storage.DATA, Storage.TABLE})
"""What is given with a point."""
_OVER = (LogSoftmaxOver, LogSumExpOver, MaximumOver, ArgMaxOver)
_PLAIN = (Kernel, Sum, Contract, Convolve, LargestPosition, *_OVER)
"""Statements that write one array whole, and do nothing else."""


def with_point_apart(program: Program) -> Program:
    """The program with functions of the point for what functions of a vector compute without it."""
    for function in program.functions:
        users = _users(program, function)
        if users:
            program = _taken_apart(program, function, users)
    return program


def _users(program: Program, function: Function) -> list[Operator]:
    """The products that run a function for each vector; none where something else runs it too."""
    steps = {*program.of_steps, *program.step_single, *program.curvature_batch}
    running = [
        operator
        for operator in program.operators
        if operator.batched == function.batched and function.name in operator.functions()
    ]
    products = all(
        operator.linearized and operator.plain and function.name not in operator.prepare
        for operator in running
    )
    return running if products and function.name not in steps else []


def _taken_apart(program: Program, function: Function, users: Sequence[Operator]) -> Program:
    pieces: list[Statement | Loop] = []
    for statement in function.body:
        pieces += [statement] if isinstance(statement, Loop) else _pieces(statement)
    whole = replace(function, body=tuple(pieces))
    moved = _of_point(program, whole, users)
    if not moved:
        return program
    name = f"{function.name}_point"
    before = replace(function, name=name, title=f"{function.title}: what it has of the point", equations=())
    shape_of = shapes_lookup({family.name: dict(family.shapes) for family in program.families})
    own = fuse_kernels(moved, shape_of)
    rest: list[Statement | Loop] = []
    for statement in function.body:
        if isinstance(statement, Loop):
            rest.append(statement)
        else:
            rest += fuse_kernels([piece for piece in _pieces(statement) if piece not in moved], shape_of)
    found: list[Function] = []
    for each in program.functions:
        found += [_with(before, own), _with(function, rest)] if each is function else [each]
    operators = tuple(
        replace(operator, prepare=(*operator.prepare, name)) if operator in users else operator
        for operator in program.operators
    )
    return replace(program, functions=tuple(found), operators=operators)


def _pieces(statement: Statement) -> list[Statement]:
    """A kernel as one for each of the arrays that it writes."""
    if not isinstance(statement, Kernel):
        return [statement]
    loads = dict(statement.loads)
    found: list[Statement] = []
    for assign in statement.assigns:
        used = {symbol.name for symbol in assign.value.free_symbols}
        own = tuple((name, load) for name, load in loads.items() if name in used)
        found.append(Kernel(statement.labels, (assign,), own))
    return found


def _with(function: Function, body: Iterable[Statement | Loop]) -> Function:
    """A function with another body."""
    body = tuple(body)
    reads: dict[str, None] = {}
    writes: dict[Member, None] = {}
    for statement, k in unrolled(body):
        members = [absolute(load.ref, k) for load in loads_of(statement)]
        reads |= {member[0]: None for member in members if member not in writes}
        writes |= {absolute(target.ref, k): None for target in targets_of(statement)}
    families = tuple(dict.fromkeys(family for family, _ in writes))
    return replace(function, body=body, reads=tuple(reads), writes=families)


def _of_point(program: Program, function: Function, users: Sequence[Operator]) -> list[Statement]:
    """Statements that read nothing of a vector, and write arrays of families that have nothing of it."""
    prepared = [_written(program, operator.prepare, function.batched) for operator in users]
    known = set[Member].intersection(*prepared)
    fixed = {
        family
        for operator in users
        for case in operator.cases
        for family, _ in _written(program, case.functions, function.batched, but=function)
    }
    while True:
        moved: list[Statement] = []
        made: set[Member] = set()
        for statement in function.body:
            if isinstance(statement, Loop) or not isinstance(statement, _PLAIN):
                continue
            loads = [(load, absolute(load.ref, None)) for load in loads_of(statement)]
            targets = targets_of(statement)
            given = all(
                member in known | made or program.family(load.ref.family).storage in _OF_POINT
                for load, member in loads
            )
            whole = not any(
                target.window or target.ref.family in fixed or is_made_again(target.ref.family)
                for target in targets
            )
            if loads and given and whole:
                moved.append(statement)
                made |= {absolute(target.ref, None) for target in targets}
        left = [s for s in function.body if isinstance(s, Loop) or s not in moved]
        shared = {target.ref.family for s, _ in unrolled(left) for target in targets_of(s)}
        if not shared & {family for family, _ in made}:
            return moved
        fixed |= shared


def _written(
    program: Program, names: Iterable[str], batched: bool, but: Function | None = None
) -> set[Member]:
    """Members that some functions write."""
    functions = [program.function(name, batched) for name in names]
    return {
        absolute(target.ref, k)
        for function in functions
        if but is None or function.name != but.name
        for statement, k in unrolled(function.body)
        for target in targets_of(statement)
    }
