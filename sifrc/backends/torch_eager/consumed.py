"""Arrays that one function makes for another one in the same call, and nobody reads after that one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from sifrc.backends.torch_eager.access import Member
from sifrc.ir.quantity import Storage
from sifrc.lower.chains import Key, operator_chains
from sifrc.lower.program import Program

__all__ = ["carried_on", "consumed", "prepared_functions"]


def consumed(
    program: Program,
    key: Key,
    chains: Iterable[Sequence[Key]],
    members: Mapping[Key, tuple[tuple[Member, ...], tuple[Member, ...]]],
    prepared: Mapping[tuple[Key, ...], Collection[Key]],
) -> frozenset[Member]:
    """Members that a function may let go of although they are its caller's.

    What is prepared once for many calls is none of them, and neither is what a step of an optimizer has.

    Args:
        program: of the function.
        key: the function.
        chains: functions that run one after the other.
        members: what each function reads that it has not written, and what it writes.
        prepared: see :func:`prepared_functions`.
    """
    if key[0] in {*program.of_steps, *program.step_single, *program.curvature_batch}:
        return frozenset()
    found = {
        (family, index)
        for family, index in members[key][0]
        if index is not None and program.family(family).storage is Storage.WORK
    }
    for chain in chains:
        if key not in chain:
            continue
        first = chain.index(key)
        kept = prepared.get(tuple(chain), ())
        before = [members[other][1] for other in chain[:first] if other not in kept]
        after = [members[other][0] for other in chain[first + 1 :]]
        found &= {member for written in before for member in written}
        found -= {member for needed in after for member in needed}
    return frozenset(found)


def prepared_functions(program: Program) -> dict[tuple[Key, ...], set[Key]]:
    """Of each chain of an operator, the functions whose arrays may be there for more than one call."""
    found: dict[tuple[Key, ...], set[Key]] = {}
    for operator in program.operators:
        if operator.plain and operator.vector is None:
            continue
        starts = {(name, operator.batched) for _, start in operator.starts() for name in start}
        for chain in operator_chains(operator):
            found.setdefault(chain.functions, set()).update(starts)
    return found


def carried_on(
    chains: Iterable[Sequence[Key]],
    members: Mapping[Key, tuple[tuple[Member, ...], tuple[Member, ...]]],
    read: Mapping[Key, Collection[str]],
) -> dict[Key, set[str]]:
    """Families whose dict a function takes, fills and gives on, since others put members in before.

    Args:
        chains: functions that run one after the other.
        members: what each function needs, and what it writes.
        read: families that somebody reads after each function.
    """
    carried: dict[Key, set[str]] = {key: set() for key in members}
    for chain in chains:
        written: set[str] = set()
        for key in chain:
            own = {family for family, index in members[key][1] if index is not None}
            carried[key] |= own & written & set(read[key])
            written |= own
    return carried
