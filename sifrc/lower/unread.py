"""What nobody reads is not computed: arrays over all steps, and arrays that only those are made of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import TypeAlias

from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, loads_of, targets_of, unrolled
from sifrc.lower.arrays import Family, Load
from sifrc.lower.chains import Key, chains
from sifrc.lower.program import Function, Program
from sifrc.lower.statements import ConjugateGradients, Guard, Kernel, Loop, SolveSystem, Statement, Steps

__all__ = ["without_unread"]

Member: TypeAlias = tuple[str, int | None]


def without_unread(program: Program, output: Member) -> Program:
    """The program without arrays of a layer that nothing reads which runs after they are written.

    Args:
        program: all functions of a module.
        output: the state that predictions are.
    """
    while unread := _unread(program, output):
        functions = tuple(
            _shorter(function, unread.get((function.name, function.batched), set()))
            for function in program.functions
        )
        if functions == program.functions:  # what is left is read in other rounds of its loop
            break
        touched = {member for function in functions for found in _touched(function.body) for member in found}
        gone = {member for members in unread.values() for member in members} - touched
        families = tuple(found for f in program.families if (found := _left(f, gone)) is not None)
        program = replace(program, families=families, functions=functions)
    return program


def _unread(program: Program, output: Member) -> dict[Key, set[Member]]:
    """Members of each function that nothing reads: what writes them does nothing else."""
    functions = {(function.name, function.batched): function for function in program.functions}
    reads = {key: _touched(function.body)[0] for key, function in functions.items()}
    needed: dict[Key, set[Member]] = {}
    results: dict[Key, set[str]] = {}
    for chain in chains(program):
        later: set[Member] = set()
        for key in reversed(chain.functions):
            later |= reads[key]
            needed[key] = needed.get(key, {output}) | later
            results.setdefault(key, set(program.kept)).update(chain.results)
    found: dict[Key, set[Member]] = {}
    for key, read in needed.items():
        unread = {
            member
            for member in _dispensable(functions[key]) - read
            if member[1] is not None
            and member[0] not in results[key]
            and program.family(member[0]).storage is Storage.WORK
        }
        if unread:
            found[key] = unread
    return found


def _dispensable(function: Function) -> set[Member]:
    """Members that statements of a function write which do nothing else."""
    written: set[Member] = set()
    fixed: set[Member] = set()
    for statement, k in unrolled(function.body):
        stored = [load for _, load in statement.stored] if isinstance(statement, Steps) else []
        targets = {absolute(load.ref, k) for load in stored or targets_of(statement)}
        written |= targets
        if isinstance(statement, ConjugateGradients | SolveSystem):  # whose ends are looked at
            fixed |= targets
    return written - fixed


def _left(family: Family, unread: Collection[Member]) -> Family | None:
    """The family without members that nobody reads; None if it has no other."""
    shapes = tuple((index, shape) for index, shape in family.shapes if (family.name, index) not in unread)
    return replace(family, shapes=shapes) if shapes else None


def _shorter(function: Function, unread: Collection[Member]) -> Function:
    body: list[Statement | Loop] = []
    for item in function.body:
        if not isinstance(item, Loop):
            body += _without(item, unread, (None,))
            continue
        rounds = tuple(range(item.start, item.stop, item.step))
        inner = tuple(part for statement in item.body for part in _without(statement, unread, rounds))
        body += [replace(item, body=inner)] if inner else []
    read, written = ({family for family, _ in found} for found in _touched(body))
    return replace(
        function,
        body=tuple(body),
        reads=tuple(name for name in function.reads if name in read),
        writes=tuple(name for name in function.writes if name in written),
    )


def _touched(body: Sequence[Statement | Loop]) -> tuple[set[Member], set[Member]]:
    read: set[Member] = set()
    written: set[Member] = set()
    for statement, k in unrolled(body):
        read |= {absolute(load.ref, k) for load in loads_of(statement)}
        written |= {absolute(load.ref, k) for load in targets_of(statement)}
    return read, written


@singledispatch
def _without(
    statement: Statement, unread: Collection[Member], rounds: tuple[int | None, ...]
) -> Iterator[Statement]:
    """What is left of a statement, whatever the round of the loop that it is in."""
    if not all(_is_unread(target, unread, rounds) for target in targets_of(statement)):
        yield statement


@_without.register
def _(statement: Guard, unread: Collection[Member], rounds: tuple[int | None, ...]) -> Iterator[Statement]:
    yield statement


@_without.register
def _(statement: Kernel, unread: Collection[Member], rounds: tuple[int | None, ...]) -> Iterator[Statement]:
    assigns = tuple(a for a in statement.assigns if not _is_unread(a.target, unread, rounds))
    used = {symbol.name for assign in assigns for symbol in assign.value.free_symbols}
    if assigns:
        loads = tuple(pair for pair in statement.loads if pair[0] in used)
        yield replace(statement, assigns=assigns, loads=loads)


@_without.register
def _(statement: Steps, unread: Collection[Member], rounds: tuple[int | None, ...]) -> Iterator[Statement]:
    stored = tuple(pair for pair in statement.stored if not _is_unread(pair[1], unread, rounds))
    if stored:
        yield replace(statement, stored=stored)


def _is_unread(target: Load, unread: Collection[Member], rounds: tuple[int | None, ...]) -> bool:
    return all(absolute(target.ref, k) in unread for k in rounds)
