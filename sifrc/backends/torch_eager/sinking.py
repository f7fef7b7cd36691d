"""Formulas of an array come after what else reads it: they may then be computed in its place.

A tangent is made of the one before, entry by entry, while second derivatives still read that one. Where
nobody in between reads what is made, it is made last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from sifrc.backends.torch_eager.access import accesses
from sifrc.backends.torch_eager.handed_on import Member, entrywise, operands_of, own_memory
from sifrc.backends.torch_eager.releases import named
from sifrc.lower.access import absolute, flat
from sifrc.lower.arrays import Ref
from sifrc.lower.program import Function
from sifrc.lower.statements import Loop, Statement

__all__ = ["sunk"]

_Rounds = Sequence[int | None]


def sunk(function: Function, families: Collection[str], inlined: Collection[Ref] = ()) -> Function:
    """The function with formulas after the last other statement that reads what they are made of.

    Args:
        function: whose body is looked at.
        families: which nobody but the function needs.
        inlined: products that may be computed where they are read.
    """
    blocks = list(_blocks(function.body))
    late = operands_of(flat(function.body), inlined)
    named_in = {
        id(each): frozenset(ref for own in named(each) for ref in (own, *late.get(own, ())))
        for statements, _ in blocks
        for each in statements
    }
    last: dict[Member, tuple[int, int | None]] = {}
    for number, (statements, rounds) in enumerate(blocks):
        for k in rounds:
            for each in statements:
                last |= {absolute(ref, k): (number, k) for ref in named_in[id(each)]}
    own = set[Member]().union(*own_memory(function))
    body: list[Statement | Loop] = []
    loops = iter([item for item in function.body if isinstance(item, Loop)])
    for number, (statements, rounds) in enumerate(blocks):
        ordered = list(statements)
        for each in statements:
            sources = {source.ref for _, source in entrywise(each) if source.ref.family in families}
            ends = {
                ref
                for ref in sources
                if all(absolute(ref, k) in own and last[absolute(ref, k)] == (number, k) for k in rounds)
            }
            place = next(position for position, other in enumerate(ordered) if other is each)
            behind = [p for p in range(place + 1, len(ordered)) if named_in[id(ordered[p])] & ends]
            if behind and not _touched(each, ordered[place + 1 : behind[-1] + 1], named_in, rounds):
                ordered.insert(behind[-1], ordered.pop(place))
        body += ordered if rounds == (None,) else [replace(next(loops), body=tuple(ordered))]
    return replace(function, body=tuple(body))


def _blocks(body: Iterable[Statement | Loop]) -> Iterator[tuple[list[Statement], _Rounds]]:
    """Statements that follow each other, those of loops apart, with the values of the loop index."""
    plain: list[Statement] = []
    for item in body:
        if isinstance(item, Loop):
            if plain:
                yield plain, (None,)
            yield list(item.body), tuple(range(item.start, item.stop, item.step))
            plain = []
        else:
            plain.append(item)
    if plain:
        yield plain, (None,)


def _touched(
    statement: Statement,
    between: Sequence[Statement],
    named_in: Mapping[int, frozenset[Ref]],
    rounds: _Rounds,
) -> bool:
    """Whether something else reads what a statement writes, or writes what it reads or writes."""
    own = [(load.ref, is_target) for load, is_target in accesses(statement)]
    for k in rounds:
        touched = {absolute(ref, k) for ref, _ in own}
        writes = {absolute(ref, k) for ref, is_target in own if is_target}
        for other in between:
            if any(absolute(ref, k) in writes for ref in named_in[id(other)]):
                return True
            if any(is_target and absolute(load.ref, k) in touched for load, is_target in accesses(other)):
                return True
    return False
