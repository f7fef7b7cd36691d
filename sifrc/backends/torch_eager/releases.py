"""Which tensors of a function are not needed any more after a statement of it.

A dict keeps a tensor for every layer. In a network of many layers those of the layers before would fill the
memory until the function returns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import prod

from sifrc.backends.torch_eager.access import accesses
from sifrc.lower.access import absolute
from sifrc.lower.arrays import Ref, Subscript, Upto
from sifrc.lower.program import Function, Program
from sifrc.lower.statements import Loop, Statement

__all__ = ["is_large", "named", "parts_of_body", "releases"]

_AT_THE_END = 8
"""Statements before the end of a function from which on nothing is let go of."""
_LARGE = 1024
"""Numbers of a sample from which on an array is worth a line of its own."""
_LAST = 2
"""Statements at the end of a function before which it has to go to be worth that."""


def parts_of_body(function: Function) -> tuple[Sequence[Statement] | Loop, ...]:
    """The loops, and the statements between them."""
    parts: list[Sequence[Statement] | Loop] = []
    block: list[Statement] = []
    for item in function.body:
        if isinstance(item, Loop):
            parts += [tuple(block)] if block else []
            parts.append(item)
            block = []
        else:
            block.append(item)
    return (*parts, tuple(block)) if block else tuple(parts)


def is_large(sizes: Iterable[int | None]) -> bool:
    """Whether an array of these sizes is worth a line that lets go of it: it grows with the batch, None."""
    known = list(sizes)
    return None in known and prod(n for n in known if n is not None) >= _LARGE


def releases(
    program: Program,
    function: Function,
    families: Collection[str],
    shared: Collection[str] = (),
    later: Collection[tuple[str, int | None]] = (),
) -> tuple[Mapping[int, tuple[Ref, ...]], ...]:
    """Tensors to let go of, for each part of the body, by the position of the statement after which it is.

    Those of a loop go in each round. What is needed to within a few statements of the end goes with the
    function.

    Args:
        program: of the function.
        function: whose body is looked at.
        families: indexed families that nobody else needs; those with a sample axis are let go of.
        shared: further ones, of which others need some members, or that are one local variable: of the rest,
            what is large goes as soon as it can.
        later: these members.
    """
    large = [
        name
        for name in (*families, *shared)
        if any(None in shape for _, shape in program.family(name).shapes)
        and (program.family(name).indexed or name in shared)
    ]
    small = {
        (name, index)
        for name in shared
        for index, shape in program.family(name).shapes
        if not is_large(shape)
    }
    staying = small.union(later)
    parts = parts_of_body(function)
    last: dict[tuple[str, int | None], tuple[int, int | None]] = {}
    within: dict[tuple[str, int | None], int] = {}
    for number, part in enumerate(parts):
        looped = isinstance(part, Loop)
        for k in range(part.start, part.stop, part.step) if isinstance(part, Loop) else (None,):
            for position, statement in enumerate(part.body if isinstance(part, Loop) else part):
                for ref in named(statement):
                    if ref.family in large and absolute(ref, k) not in staying:
                        last[absolute(ref, k)] = number, k if looped else position
                        within[absolute(ref, k)] = position
    found: list[Mapping[int, tuple[Ref, ...]]] = []
    for number, part in enumerate(parts):
        ends = [member for member, (where, _) in last.items() if where == number]
        if not isinstance(part, Loop):
            stop = len(part) - (_AT_THE_END if number == len(parts) - 1 else 0)
            stops = {family: max(stop, len(part) - _LAST) for family in shared}
            done: dict[int, list[Ref]] = {}
            for family, index in sorted(ends, key=_order):
                after = last[family, index][1]
                if index is not None and after is not None and after < stops.get(family, stop):
                    done.setdefault(after, []).append(Ref(family, Subscript(index, False)))
            found.append({position: tuple(refs) for position, refs in done.items()})
            continue
        rounds = range(part.start, part.stop, part.step)
        refs: dict[int, list[Ref]] = {}
        for family, offset in sorted({(f, i - (last[f, i][1] or 0)) for f, i in ends if i is not None}):
            # In every round, or the name may not be there.
            if all(last.get((family, k + offset)) == (number, k) for k in rounds):
                after = max(within[family, k + offset] for k in rounds)
                refs.setdefault(after, []).append(Ref(family, Subscript(offset, True)))
        found.append({position: tuple(refs[position]) for position in sorted(refs)})
    return tuple(found)


def named(statement: Statement) -> Iterator[Ref]:
    """What is read or written, and what says how many groups of it."""
    for load, _ in accesses(statement):
        yield load.ref
        yield from (part.ref for part in load.window if isinstance(part, Upto))


def _order(member: tuple[str, int | None]) -> tuple[str, int]:
    return member[0], member[1] or 0
