"""Arrays that another one may take over as they are, since nobody reads them afterwards.

An array that is added to later begins with a copy of what it is first; a new array costs more than what is
added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from sympy import Symbol

from sifrc.backends.torch_eager.access import accesses
from sifrc.lower.access import absolute, unrolled
from sifrc.lower.arrays import Load, Ref
from sifrc.lower.program import Function
from sifrc.lower.statements import Contract, Convolve, Fresh, Kernel, Statement

__all__ = ["handed_on"]


def handed_on(function: Function, families: Collection[str]) -> frozenset[tuple[Ref, Ref]]:
    """Pairs of an array and the one that it takes over.

    The other one has memory of its own: a product or an array that is filled by windows, and not what a third
    one is too.

    Args:
        function: whose body is looked at.
        families: which nobody but the function needs.
    """
    last: dict[tuple[str, int | None], int] = {}
    shared: Counter[tuple[str, int | None]] = Counter()
    made: dict[tuple[str, int | None], bool] = {}
    for time, (statement, k) in enumerate(unrolled(function.body)):
        for load, is_target in accesses(statement):
            member = absolute(load.ref, k)
            last[member] = time
            if is_target and not load.window:
                new = isinstance(statement, Contract | Convolve | Fresh)
                made[member] = made.get(member, True) and new
        for pair in _copies(statement):
            shared.update({absolute(load.ref, k) for load in pair})
    found: dict[tuple[Ref, Ref], bool] = {}
    for time, (statement, k) in enumerate(unrolled(function.body)):
        for target, source in _copies(statement):
            member, key = absolute(source.ref, k), (target.ref, source.ref)
            free = source.ref.family in families and made.get(member, False)
            free = free and last[member] == time and shared[member] == 1
            found[key] = found.get(key, True) and free
    return frozenset(pair for pair, free in found.items() if free)


def _copies(statement: Statement) -> Iterator[tuple[Load, Load]]:
    """Arrays that are another one, whole, maybe in another shape."""
    if isinstance(statement, Kernel):
        loads = dict(statement.loads)
        for assign in statement.assigns:
            source = loads.get(assign.value.name) if isinstance(assign.value, Symbol) else None
            if source is not None and not assign.target.window and not source.window:
                yield assign.target, source
