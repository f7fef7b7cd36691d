"""Which intermediate arrays can lie in the array of what is made of them.

A product that one kernel reads once, entry by entry, on the way to an array of the same shape needs no
array of its own: it can be written there, and the kernel updates it in place.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TypeAlias

from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, loads_of, targets_of, unrolled
from sifrc.lower.arrays import Load, Ref
from sifrc.lower.program import Program
from sifrc.lower.statements import Contract, Kernel, Loop, Statement, Sum

__all__ = ["aliases", "destination"]

Member: TypeAlias = tuple[str, int | None]
_KEPT = frozenset(
    {Storage.PARAMETER, Storage.BUFFER, Storage.MEMORY, Storage.DATA, Storage.DIRECTION, Storage.TABLE}
)


def aliases(program: Program) -> Mapping[str, str]:
    """Family of intermediate arrays -> family in whose arrays, by subscript, they can lie.

    Args:
        program: all of whose functions are looked at.
    """
    reads = Counter(
        absolute(load.ref, k)
        for function in program.functions
        for statement, k in unrolled(function.body)
        for load in loads_of(statement)
    )
    found: dict[str, set[Member | None]] = {}
    for function in program.functions:
        for block in _blocks(function.body):
            for position, statement in enumerate(block.statements):
                for target in targets_of(statement):
                    if program.family(target.ref.family).part_of:
                        place = _place(program, block, position, reads)
                        found.setdefault(target.ref.family, set()).add(place)
    chosen: dict[str, str] = {}
    taken: set[Member] = set()
    for family, places in found.items():
        members = {place for place in places if place is not None}
        owners = {owner for owner, _ in members}
        # One array has room for one product at a time.
        if len(owners) == 1 and members == places and not members & taken:
            chosen[family] = owners.pop()
            taken |= members
    return MappingProxyType(chosen)


@dataclass(frozen=True)
class _Block:
    """A straight-line part of a function.

    Args:
        statements: in order.
        k: value of the loop index; None outside of loops.
    """

    statements: Sequence[Statement]
    k: int | None

    @cached_property
    def read(self) -> Mapping[Ref, list[int]]:
        """Positions of the statements that read an array, in order."""
        found: dict[Ref, list[int]] = {}
        for position, statement in enumerate(self.statements):
            for ref in dict.fromkeys(load.ref for load in loads_of(statement)):
                found.setdefault(ref, []).append(position)
        return found

    @cached_property
    def touched(self) -> Mapping[Member, list[int]]:
        """Positions of the statements that read or write an array, in order."""
        found: dict[Member, list[int]] = {}
        for position, statement in enumerate(self.statements):
            loads = (*loads_of(statement), *targets_of(statement))
            for member in dict.fromkeys(absolute(load.ref, self.k) for load in loads):
                found.setdefault(member, []).append(position)
        return found


def _after(positions: Sequence[int], position: int) -> int | None:
    """The first of some positions that is not before one."""
    index = bisect_left(positions, position)
    return positions[index] if index < len(positions) else None


def _blocks(body: Sequence[Statement | Loop]) -> Iterator[_Block]:
    """Straight-line parts of a function, those of a loop once for each round."""
    block: list[Statement] = []
    for item in body:
        if isinstance(item, Loop):
            yield _Block(tuple(block), None)
            block = []
            yield from (_Block(item.body, k) for k in range(item.start, item.stop, item.step))
        else:
            block.append(item)
    yield _Block(tuple(block), None)


def _place(program: Program, block: _Block, position: int, reads: Counter[Member]) -> Member | None:
    """The array that a product at this position can be written to; None if it needs its own."""
    statement = block.statements[position]
    if not isinstance(statement, Contract | Sum):
        return None
    product = statement.target
    member = absolute(product.ref, block.k)
    reader = _after(block.read.get(product.ref, ()), position + 1)
    if reader is None or reads[member] != 1:
        return None
    target = destination(block.statements[reader], product)
    if target is None:
        return None
    place = absolute(target.ref, block.k)
    family = program.family(place[0])
    touched = _after(block.touched.get(place, ()), position)
    if family.storage in _KEPT or family.part_of or place[1] != member[1]:
        return None
    if touched is not None and touched < reader:
        return None
    shapes = dict(family.shapes), dict(program.family(member[0]).shapes)
    return place if shapes[0][place[1]] == shapes[1][member[1]] else None


def destination(kernel: Statement, product: Load) -> Load | None:
    """What the only assignment with the product writes, entry by entry; None if there is none."""
    if not isinstance(kernel, Kernel):
        return None
    entries = [(name, load) for name, load in kernel.loads if load.ref == product.ref]
    if len(entries) != 1 or entries[0][1].labels != kernel.labels or not entries[0][1].is_whole:
        return None
    users = kernel.readers.get(entries[0][0], ())
    if len(users) != 1:
        return None
    target = kernel.assigns[users[0]].target
    own = [name for name, load in kernel.loads if load.ref == target.ref]
    touched = any(number <= users[0] for name in own for number in kernel.readers.get(name, ()))
    written = any(assign.target.ref == target.ref for assign in kernel.assigns[: users[0]])
    return None if touched or written or target.window or target.labels != kernel.labels else target
