"""Arrays over all steps that nobody reads are not put together: a step's own array is enough."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sifrc.lower.access import absolute, flat, loads_of, targets_of, unrolled
from sifrc.lower.arrays import Family, Load
from sifrc.lower.program import Function, Program
from sifrc.lower.statements import Steps
from sifrc.operators.record import members_of

__all__ = ["without_unread"]

Member = tuple[str, int | None]


def without_unread(program: Program, output: Member) -> Program:
    """The program whose loops over steps store what some statement reads, or an operator returns.

    Args:
        program: all functions of a module.
        output: the state that predictions are.
    """
    read = {output, *_returned(program)}
    for function in program.functions:
        for statement, k in unrolled(function.body):
            read |= {absolute(load.ref, k) for load in loads_of(statement)}
    loops = [s for function in program.functions for s in flat(function.body) if isinstance(s, Steps)]
    unread = {_member(whole) for loop in loops for _, whole in loop.stored} - read
    if not unread:
        return program
    families = tuple(found for family in program.families if (found := _left(family, unread)) is not None)
    functions = tuple(_shorter(function, unread) for function in program.functions)
    return replace(program, families=families, functions=functions)


def _returned(program: Program) -> set[Member]:
    """What operators return."""
    found: set[Member] = set()
    for operator in program.operators:
        results = [*operator.also, *(switch.result for switch in operator.switches)]
        for case in operator.cases:
            results += case.results
        found |= {*members_of(tuple(results))}
    return found


def _member(load: Load) -> Member:
    return absolute(load.ref, None)


def _left(family: Family, unread: Collection[Member]) -> Family | None:
    """The family without members that nobody reads; None if it has no other."""
    shapes = tuple((index, shape) for index, shape in family.shapes if (family.name, index) not in unread)
    return replace(family, shapes=shapes) if shapes else None


def _shorter(function: Function, unread: Collection[Member]) -> Function:
    body = tuple(
        replace(item, stored=tuple(pair for pair in item.stored if _member(pair[1]) not in unread))
        if isinstance(item, Steps)
        else item
        for item in function.body
    )
    written = {target.ref.family for statement in flat(body) for target in targets_of(statement)}
    writes = tuple(name for name in function.writes if name in written)
    return replace(function, body=body, writes=writes)
