"""Which arrays of a function are variables of its own: one at a time, of one step, or without a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from sifrc.backends.torch_eager.access import Member, accesses
from sifrc.backends.torch_eager.inlining import Inlined
from sifrc.lower.access import absolute, flat, targets_of, unrolled
from sifrc.lower.arrays import Ref
from sifrc.lower.program import Function
from sifrc.lower.statements import Loop, Steps

__all__ = ["local_families", "single_use", "stepped_families"]


def local_families(function: Function, excluded: Collection[str]) -> Iterator[str]:
    """Families of which every read follows the last write in the same block and is of the same member."""
    current: dict[str, Ref | None] = {}
    shared = set(excluded)
    for item in function.body:
        if isinstance(item, Loop):
            current = dict.fromkeys(current)
        for part in item.body if isinstance(item, Loop) else (item,):
            for load, is_target in accesses(part):
                if is_target:
                    current[load.ref.family] = load.ref
                elif load.ref != current.get(load.ref.family):
                    shared.add(load.ref.family)
        if isinstance(item, Loop):
            current = dict.fromkeys(current)
    return (family for family in current if family not in shared)


def stepped_families(function: Function) -> Iterator[str]:
    """Families of arrays of one step."""
    for item in flat(function.body):
        if isinstance(item, Steps):
            whole = {load.ref.family for _, load in item.stored}
            yield from (target.ref.family for target in targets_of(item) if target.ref.family not in whole)


def single_use(function: Function, elsewhere: set[str]) -> frozenset[Ref]:
    """Products that are read once, by the function that computes them, and not ``elsewhere``."""
    reads = Counter(
        member
        for part, k in unrolled(function.body)
        for member in {absolute(load.ref, k) for load, is_target in accesses(part) if not is_target}
    )
    products: dict[Ref, set[Member]] = {}
    for part, k in unrolled(function.body):
        if isinstance(part, Inlined) and part.target.ref.family not in elsewhere:
            products.setdefault(part.target.ref, set()).add(absolute(part.target.ref, k))
    return frozenset(ref for ref, members in products.items() if all(reads[m] <= 1 for m in members))
