"""Passes over lowered equations: fuse kernels, roll equal layers into loops.

Both can be switched off and neither changes a value: fusing puts assignments that run over the same
entries into one loop nest in the same order; rolling replaces consecutive blocks that are equal up to
a shift of their subscripts by a loop, and so groups of blocks, as those of a residual network. What all
rounds read alike, as the weights of layers that share them, keeps its subscript.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import sympy

from sifrc.lower.access import loads_of, targets_of
from sifrc.lower.arrays import SAMPLE_LABEL, Counted, Load, OneHot, Ref, Subscript
from sifrc.lower.statements import Kernel, Loop, Statement, Sum

__all__ = ["Block", "fuse_kernels", "roll_loops"]


@dataclass(frozen=True)
class Block:
    """The statements of the equations of one layer."""

    layer: int | None
    statements: tuple[Statement, ...]


Shape: TypeAlias = tuple[int | None, ...]
Form: TypeAlias = tuple[Statement, ...]
ShapeOf: TypeAlias = Callable[[Ref], Shape]


def fuse_kernels(statements: Sequence[Statement], shape_of: ShapeOf) -> tuple[Statement, ...]:
    """Merge neighbouring kernels that run over the same entries."""
    fused: list[Statement] = []
    for statement in statements:
        last = fused[-1] if fused else None
        if isinstance(statement, Kernel) and isinstance(last, Kernel) and _fits(last, statement, shape_of):
            fused[-1] = _merge(last, statement)
        else:
            fused.append(statement)
    return tuple(fused)


def _fits(first: Kernel, second: Kernel, shape_of: ShapeOf) -> bool:
    if first.labels != second.labels:
        return False
    arrays = [assign.target for kernel in (first, second) for assign in kernel.assigns]
    if any(not _is_entry(load) for load in (*arrays, *(load for _, load in (*first.loads, *second.loads)))):
        return False
    same = shape_of(first.assigns[0].target.ref) == shape_of(second.assigns[0].target.ref)
    written = {assign.target.ref: assign.target.labels for assign in first.assigns}
    entrywise = all(written.get(load.ref, load.labels) == load.labels for _, load in second.loads)
    return same and entrywise


def _is_entry(load: Load) -> bool:
    """Whether it is an entry of an array as it lies in memory, or of the vector of a class."""
    return not load.window and all(isinstance(change, OneHot | Counted) for change in load.changes)


def _merge(first: Kernel, second: Kernel) -> Kernel:
    loads = dict(first.loads)
    renaming: dict[Any, Any] = {}
    for name, load in second.loads:
        known = next((other for other, same in loads.items() if same == load), None)
        if known is None:
            known, number = name, 1
            while known in loads:
                number += 1
                known = f"{name}_{number}"
            loads[known] = load
        renaming[_symbol(name)] = _symbol(known)
    moved = tuple(replace(assign, value=assign.value.xreplace(renaming)) for assign in second.assigns)
    ordered = tuple((name, loads[name]) for name in sorted(loads))
    return Kernel(first.labels, first.assigns + moved, ordered)


def _symbol(name: str) -> sympy.Symbol:
    return sympy.Symbol(name, real=True)


def roll_loops(blocks: Sequence[Block]) -> tuple[Statement | Loop, ...]:
    """Blocks in order, repeated ones as loops over k: equal layers, or equal groups of layers."""
    kinds: dict[Form, int] = {}
    marked = [_marked(block, kinds) for block in blocks]
    body: list[Statement | Loop] = []
    position = 0
    for period, rounds in _repetitions(marked):
        if rounds > 1:
            body.append(_loop(blocks[position : position + period], marked, position, rounds))
        else:
            body.extend(blocks[position].statements)
        position += period * rounds
    return tuple(body)


_LONGEST = 24
"""Blocks of one round of a loop at most."""


@dataclass(frozen=True)
class _Marked:
    """A block and what tells whether another one is the same but for its subscripts.

    Args:
        layer: of the block; None where it is in no loop.
        statements: how many it has.
        form: the number of its statements without their subscripts.
        subscripts: these, in order.
        written: which of them are of targets that each round has its own of.
    """

    layer: int | None
    statements: int
    form: int = -1
    subscripts: tuple[int, ...] = ()
    written: tuple[bool, ...] = ()


def _marked(block: Block, kinds: dict[Form, int]) -> _Marked:
    """What is compared of a block; ``kinds`` numbers the forms, which are large and compared often."""
    if block.layer is None or not _extents_are_known(block.statements):
        return _Marked(None, len(block.statements))
    found: list[int] = []
    targets = {target.ref for statement in block.statements for target in targets_of(statement)}
    # What all rounds add to may be one array.
    added = targets & {load.ref for statement in block.statements for load in loads_of(statement)}
    fixed = {ref.family for ref in targets} - {ref.family for ref in added if ref.subscript != _own(block)}
    written: list[bool] = []

    def mark(subscript: Subscript, family: str) -> Subscript:
        found.append(subscript.offset)
        written.append(family in fixed)
        return Subscript(0)

    form = tuple(_with_subscripts(statement, mark) for statement in block.statements)
    number = kinds.setdefault(form, len(kinds))
    return _Marked(block.layer, len(form), number, tuple(found), tuple(written))


def _own(block: Block) -> Subscript:
    """The subscript of the block's layer."""
    return Subscript(block.layer or 0)


def _repetitions(marked: Sequence[_Marked]) -> Iterator[tuple[int, int]]:
    """How many blocks repeat, and how often, run after run: what leaves the fewest statements and loops.

    A run that begins early may be in the way of a longer one: the first two convolutions of a residual
    network are alike, and part of what its blocks are.
    """
    count = len(marked)
    left, chosen = [(0, 0)] * (count + 1), [(1, 1)] * count
    for position in reversed(range(count)):
        statements, loops = left[position + 1]
        left[position] = statements + marked[position].statements, loops
        once = 0
        for period in range(1, min(_LONGEST, (count - position) // 2) + 1):
            once += marked[position + period - 1].statements
            rounds = 1
            while _repeats(marked, position, period, rounds):
                rounds += 1
                statements, loops = left[position + period * rounds]
                found = statements + once, loops + 1
                if found < left[position]:
                    left[position], chosen[position] = found, (period, rounds)
    position = 0
    while position < count:
        period, rounds = chosen[position]
        yield period, rounds
        position += period * rounds


def _repeats(marked: Sequence[_Marked], position: int, period: int, number: int) -> bool:
    """Whether a round is the first one with all subscripts moved on, or the same."""
    start = position + number * period
    if start + period > len(marked):
        return False
    step = _step(marked, position, period)
    if not step:
        return False
    for k in range(period):
        first, second, this = marked[position + k], marked[position + period + k], marked[start + k]
        if first.layer is None or this.layer != first.layer + number * step or this.form != first.form:
            return False
        moves = [b - a for a, b in zip(first.subscripts, second.subscripts, strict=True)]
        for move, written, a, b in zip(moves, first.written, first.subscripts, this.subscripts, strict=True):
            if move not in ((step,) if written else (0, step)) or b != a + number * move:
                return False
    return True


def _step(marked: Sequence[_Marked], position: int, period: int) -> int:
    """By how much the layers of a round and the next one differ; 0 where one has no layer."""
    first, second = marked[position].layer, marked[position + period].layer
    return 0 if first is None or second is None else second - first


def _loop(blocks: Sequence[Block], marked: Sequence[_Marked], position: int, rounds: int) -> Loop:
    """The loop over the rounds; k is the layer of its first block."""
    layer, step = marked[position].layer, _step(marked, position, len(blocks))
    assert layer is not None
    body: list[Statement] = []
    for number, block in enumerate(blocks, start=position):
        after = iter(marked[number + len(blocks)].subscripts)

        def relative(subscript: Subscript, _: str, after: Iterator[int] = after) -> Subscript:
            if next(after) == subscript.offset:
                return subscript
            return Subscript(subscript.offset - layer, relative=True)

        body += [_with_subscripts(statement, relative) for statement in block.statements]
    return Loop(layer, layer + step * rounds, step, tuple(body))


def _extents_are_known(statements: Sequence[Statement]) -> bool:
    """Whether each assignment knows the sizes of its target, or adds to what one before it has made.

    So does a bias at several places, whose tangent has them, beside the tangents of what comes in.
    """
    made: set[Ref] = set()
    for statement in statements:
        targets = {target.ref for target in targets_of(statement)}
        if not targets <= made and not _knows_extents(statement):
            return False
        made |= targets
    return True


def _knows_extents(statement: Statement) -> bool:
    """Whether the operands of every assignment give the sizes of its target, which differ between layers.

    A constant fills an array of a size that only its own layer tells. The batch is the same in all of them.
    """
    if isinstance(statement, Sum):
        known = {SAMPLE_LABEL, *(label for _, load in statement.loads for label in load.labels)}
        return set(statement.target.labels) <= known
    if not isinstance(statement, Kernel):
        return True
    labels = {name: set(load.labels) for name, load in statement.loads}
    for assign in statement.assigns:
        used = [labels.get(symbol.name, set()) for symbol in assign.value.free_symbols]
        if not set(assign.target.labels) <= {SAMPLE_LABEL}.union(*used):
            return False
    return True


def _with_subscripts(item: Any, new: Callable[[Subscript, str], Subscript], family: str = "") -> Any:
    """A statement, or a part of one, with other subscripts in it, in their order; each with its family."""
    if isinstance(item, Subscript):
        return new(item, family)
    if isinstance(item, tuple):
        return tuple([_with_subscripts(each, new) for each in item])
    if names := _names_of(item.__class__):
        own = getattr(item, "family", "")
        return type(item)(*[_with_subscripts(getattr(item, name), new, own) for name in names])
    return item


@cache
def _names_of(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass in their order; none of any other type."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()


def shapes_lookup(shapes: Mapping[str, Mapping[int | None, Shape]]) -> ShapeOf:
    """Shape of a member of a family."""

    def shape_of(ref: Ref) -> Shape:
        index = None if ref.subscript is None else ref.subscript.offset
        return shapes[ref.family][index]

    return shape_of
