"""Which arrays of a step may lie in the same memory: those that are never needed at the same time.

An array is needed from the statement that writes it first to the one that reads it last. Two arrays share
their memory entry by entry where one kernel is the last to read the one and the first to write the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from sifrc.catalogue.record import Case, Operator, members_of
from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, loads_of, targets_of, unrolled
from sifrc.lower.arrays import OBJECTIVE, OTHER_INPUTS
from sifrc.lower.program import Function, Place, Program
from sifrc.lower.reuse import aliases, destination
from sifrc.lower.statements import Kernel, Statement

__all__ = ["handed_families", "kept_families", "operator_places", "other_places", "places"]

Member: TypeAlias = tuple[str, int | None]
_KEPT = frozenset({Storage.WORK, Storage.RESULT})
_PLACED = frozenset({Storage.WORK, Storage.RESULT, Storage.DATA, Storage.RANDOM})


@dataclass
class _Life:
    """From which statement to which an array is needed."""

    first: int
    last: int


def kept_families(program: Program) -> frozenset[str]:
    """Families that a periodic function computes and others use in the steps between its runs."""
    kept = set(program.kept)
    for functions in _steps(program):
        written = {family for f in functions if f.name in program.periodic for family in f.writes}
        kept |= written & {family for f in functions if f.name not in program.periodic for family in f.reads}
    return frozenset(f.name for f in program.families if f.name in kept and f.storage in _KEPT)


def handed_families(program: Program) -> frozenset[str]:
    """Families that periodic functions on a batch of their own compute for the rest of the step.

    They have one array each, whichever batch they are computed on.
    """
    if not program.curvature_batch:
        return frozenset()
    step = _steps(program)[0]
    shapes = {family.name: family.shapes for family in program.families}
    on_batch = [
        function
        for function in step
        if function.name in program.periodic
        and any(None in shape for name in (*function.reads, *function.writes) for _, shape in shapes[name])
    ]
    written = {family for function in on_batch for family in function.writes}
    return frozenset(family for f in step if f not in on_batch for family in f.reads if family in written)


def places(program: Program) -> tuple[Place, ...]:
    """Places for the arrays of a step on a batch; what is kept from step to step has none."""
    return _places(program, _steps(program)[0], kept_families(program), {OBJECTIVE})


def operator_places(program: Program) -> Mapping[str, tuple[tuple[Place, ...], ...]]:
    """Places for the arrays of operators that take a batch in parts, for each of their cases.

    Results of switches, which may be asked for with them, have arrays of their own.
    """
    found: dict[str, tuple[tuple[Place, ...], ...]] = {}
    merged: Mapping[str, str] | None = None
    for operator in program.operators:
        if operator.chunks:
            merged = aliases(program) if merged is None else merged
            found[operator.name] = tuple(
                _case_places(program, operator, case, merged) for case in operator.cases
            )
    return MappingProxyType(found)


def _case_places(
    program: Program, operator: Operator, case: Case, merged: Mapping[str, str]
) -> tuple[Place, ...]:
    switched = [name for switch in operator.switches for name in switch.functions]
    names = (*operator.prepare, *switched, *case.functions)
    functions = [program.function(name, True) for name in names]
    apart = {family for name in switched for family in program.function(name, True).writes}
    also = {family for family, _ in members_of(operator.also)}
    results = {f for name in case.functions for f in program.function(name, True).writes}
    results = {f for f in results if program.family(f).storage is Storage.RESULT} | also
    return _places(program, functions, apart, results, merged)


def other_places(program: Program) -> tuple[Place, ...]:
    """Places for what a step computes on a batch of its own; the rest of the step has arrays elsewhere."""
    if not program.curvature_batch:
        return ()
    names = [*program.curvature_batch, *(n for n in program.step_batched if n in program.periodic)]
    functions = [program.function(name, True) for name in names]
    written = {family for function in functions for family in function.writes}
    elsewhere = {family.name for family in program.families} - written - {"x", "t", OTHER_INPUTS}
    return _places(program, functions, kept_families(program) | handed_families(program) | elsewhere, ())


def _places(
    program: Program,
    functions: Sequence[Function],
    excluded: Collection[str],
    results: Collection[str],
    merged: Mapping[str, str] | None = None,
) -> tuple[Place, ...]:
    """Places for the arrays of functions that run in order.

    What is read before it is written (inputs, targets, random numbers) is there from the beginning, and
    results are there to the end. ``merged`` are the aliases of the program, if they are known.
    """
    merged = aliases(program) if merged is None else merged
    shapes = {
        (family.name, index): shape
        for family in program.families
        if family.storage in _PLACED and family.name not in excluded
        for index, shape in family.shapes
        if shape and index not in family.classes
    }
    lives: dict[Member, _Life] = {}
    joins: list[tuple[int, Member, Member]] = []
    position = 0
    for function in functions:
        for statement, k in unrolled(function.body):
            touched = [(load, 0) for load in loads_of(statement)]
            touched += [(load, position) for load in targets_of(statement)]
            for load, begin in touched:
                name, index = absolute(load.ref, k)
                member = merged.get(name, name), index
                if member in shapes:
                    lives.setdefault(member, _Life(begin, position)).last = position
            joins += [(position, source, target) for source, target in _passed_on(statement, k)]
            position += 1
    for member, life in lives.items():
        if member[0] in results:
            life.last = position
    owner: dict[Member, Member] = {}
    for at, source, target in joins:
        ends = source in lives and target in lives and lives[source].last == at == lives[target].first
        if ends and shapes[source] == shapes[target] and target not in owner:
            owner[target] = source
            root = _root(owner, source)
            lives[root].last = max(lives[root].last, lives[target].last)
    gathered: dict[Member, list[Member]] = {}
    for member in lives:
        gathered.setdefault(_root(owner, member), []).append(member)
    return tuple(Place(tuple(found), lives[root].first, lives[root].last) for root, found in gathered.items())


def _steps(program: Program) -> tuple[list[Function], list[Function]]:
    """Functions of a step: on a batch, and on one sample."""
    return (
        [program.function(name, True) for name in program.step_batched],
        [program.function(name, False) for name in program.step_single],
    )


def _root(owner: dict[Member, Member], member: Member) -> Member:
    while member in owner:
        member = owner[member]
    return member


def _passed_on(statement: Statement, k: int | None) -> list[tuple[Member, Member]]:
    """Arrays that a kernel reads entry by entry for the entries of another one."""
    if not isinstance(statement, Kernel):
        return []
    found = []
    for _, load in statement.loads:
        target = destination(statement, load)
        if target is not None:
            found.append((absolute(load.ref, k), absolute(target.ref, k)))
    return found
