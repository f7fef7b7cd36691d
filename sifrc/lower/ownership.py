"""Whose memory is whose: the parameters that a quantity kept from step to step acts on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, loads_of, targets_of, unrolled
from sifrc.lower.arrays import Load
from sifrc.lower.program import Function, Program
from sifrc.lower.statements import Kernel

__all__ = ["Member", "users_of_memory"]

Member: TypeAlias = tuple[str, int | None]
"""Family and subscript."""


def users_of_memory(program: Program, batched: bool) -> Mapping[Member, frozenset[Member]]:
    """For each quantity in memory, the parameters whose steps depend on it, now or later.

    Args:
        program: with a step.
        batched: form of the step.
    """
    storage = {family.name: family.storage for family in program.families}
    memory = [
        (family.name, k)
        for family in program.families
        if family.storage is Storage.MEMORY
        for k, _ in family.shapes
    ]
    sources: dict[Member, frozenset[Member]] = {member: frozenset({member}) for member in memory}
    names = program.step_batched if batched else program.step_single
    for name in names:
        for target, loads in _assignments(program.function(name, batched)):
            found = (sources.get(member, frozenset()) for member in (target, *loads))
            sources[target] = frozenset().union(*found)
    users = {
        member: {target for target, found in sources.items() if member in found and target[0] in storage}
        for member in memory
    }
    # What acts on memory acts on what that memory acts on.
    while True:
        wider = {
            member: found.union(*(users[other] for other in found if other in users))
            for member, found in users.items()
        }
        if wider == users:
            break
        users = wider
    return MappingProxyType(
        {
            member: frozenset(target for target in found if storage[target[0]] is Storage.PARAMETER)
            for member, found in users.items()
        }
    )


def _assignments(function: Function) -> Iterator[tuple[Member, list[Member]]]:
    """What is written and what it is made of, in the order in which it happens."""
    for statement, k in unrolled(function.body):

        def member(load: Load, k: int | None = k) -> Member:
            return absolute(load.ref, k)

        if isinstance(statement, Kernel):
            loads = dict(statement.loads)
            for assign in statement.assigns:
                read = sorted(symbol.name for symbol in assign.value.free_symbols)
                yield member(assign.target), [member(loads[name]) for name in read if name in loads]
        else:
            read_by_all = [member(load) for load in loads_of(statement)]
            for target in targets_of(statement):
                yield member(target), read_by_all
