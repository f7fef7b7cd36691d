"""Which intermediate arrays can lie in the array of what is made of them.

A product that one kernel reads once, entry by entry, on the way to an array of the same shape needs no
array of its own: it can be written there, and the kernel updates it in place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import sympy

from sifrc.lower.access import absolute, loads_of, targets_of, unrolled
from sifrc.lower.program import Contract, Kernel, Load, Loop, Program, Statement, Storage, Sum

__all__ = ["aliases", "destination"]

Member: TypeAlias = tuple[str, int | None]
_KEPT = frozenset({Storage.PARAMETER, Storage.MEMORY, Storage.DATA, Storage.DIRECTION})


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
        for statements, k in _blocks(function.body):
            for position, statement in enumerate(statements):
                for target in targets_of(statement):
                    if "~" in target.ref.family:
                        place = _place(program, statements, position, k, reads)
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


def _blocks(body: Sequence[Statement | Loop]) -> Iterator[tuple[Sequence[Statement], int | None]]:
    """Straight-line parts of a function, those of a loop once for each round."""
    block: list[Statement] = []
    for item in body:
        if isinstance(item, Loop):
            yield tuple(block), None
            block = []
            yield from ((item.body, k) for k in range(item.start, item.stop, item.step))
        else:
            block.append(item)
    yield tuple(block), None


def _place(
    program: Program, statements: Sequence[Statement], position: int, k: int | None, reads: Counter[Member]
) -> Member | None:
    """The array that a product at this position can be written to; None if it needs its own."""
    statement = statements[position]
    if not isinstance(statement, Contract | Sum):
        return None
    product = statement.target
    member = absolute(product.ref, k)
    following = statements[position + 1 :]
    offset = next(
        (n for n, s in enumerate(following) if any(u.ref == product.ref for u in loads_of(s))), None
    )
    if offset is None or reads[member] != 1:
        return None
    target = destination(following[offset], product)
    if target is None:
        return None
    place = absolute(target.ref, k)
    family = program.family(place[0])
    touched = (
        absolute(load.ref, k)
        for s in (statement, *following[:offset])
        for load in (*loads_of(s), *(t for t in targets_of(s) if t is not product))
    )
    if family.storage in _KEPT or "~" in family.name or place[1] != member[1] or place in touched:
        return None
    shapes = dict(family.shapes), dict(program.family(member[0]).shapes)
    return place if shapes[0][place[1]] == shapes[1][member[1]] else None


def destination(kernel: Statement, product: Load) -> Load | None:
    """What the only assignment with the product writes, entry by entry; None if there is none."""
    if not isinstance(kernel, Kernel):
        return None
    entries = [(name, load) for name, load in kernel.loads if load.ref == product.ref]
    if len(entries) != 1 or entries[0][1].labels != kernel.labels or entries[0][1].window:
        return None
    symbol = sympy.Symbol(entries[0][0], real=True)
    users = [n for n, assign in enumerate(kernel.assigns) if symbol in assign.value.free_symbols]
    if len(users) != 1:
        return None
    target = kernel.assigns[users[0]].target
    own = {sympy.Symbol(name, real=True) for name, load in kernel.loads if load.ref == target.ref}
    before = kernel.assigns[: users[0] + 1]
    touched = any(own & assign.value.free_symbols for assign in before)
    written = any(assign.target.ref == target.ref for assign in before[:-1])
    return None if touched or written or target.window or target.labels != kernel.labels else target
