"""Passes over lowered equations: fuse kernels, roll equal layers into loops.

Both can be switched off and neither changes a value: fusing puts assignments that run over the same
entries into one loop nest in the same order; rolling replaces consecutive blocks that are equal up to
a shift of all subscripts by a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import sympy

from sifrc.lower.access import targets_of
from sifrc.lower.arrays import SAMPLE_LABEL, Load, Ref, Subscript
from sifrc.lower.statements import Kernel, Loop, Statement, Sum

__all__ = ["Block", "fuse_kernels", "roll_loops"]


@dataclass(frozen=True)
class Block:
    """The statements of the equations of one layer."""

    layer: int | None
    statements: tuple[Statement, ...]


Shape: TypeAlias = tuple[int | None, ...]
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
    if any(load.window for load in (*arrays, *(load for _, load in (*first.loads, *second.loads)))):
        return False
    same = shape_of(first.assigns[0].target.ref) == shape_of(second.assigns[0].target.ref)
    written = {assign.target.ref: assign.target.labels for assign in first.assigns}
    entrywise = all(written.get(load.ref, load.labels) == load.labels for _, load in second.loads)
    return same and entrywise


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
    """Blocks in order, maximal runs of equal ones as loops over k."""
    body: list[Statement | Loop] = []
    position = 0
    while position < len(blocks):
        run = _run_length(blocks, position)
        first = blocks[position]
        if run > 1 and first.layer is not None:
            step = _step(blocks, position)
            relative = tuple(_relative(statement, first.layer) for statement in first.statements)
            body.append(Loop(first.layer, first.layer + step * run, step, relative))
        else:
            body.extend(first.statements)
            run = 1
        position += run
    return tuple(body)


def _step(blocks: Sequence[Block], position: int) -> int:
    before, after = blocks[position].layer, blocks[position + 1].layer
    assert before is not None and after is not None
    return after - before


def _run_length(blocks: Sequence[Block], position: int) -> int:
    first = blocks[position]
    if first.layer is None or position + 1 >= len(blocks) or blocks[position + 1].layer is None:
        return 1
    if not all(_knows_extents(statement) for statement in first.statements):
        return 1
    step = _step(blocks, position)
    if abs(step) != 1:
        return 1
    if not _may_be_equal(first, blocks[position + 1]):
        return 1
    wanted = tuple(_relative(statement, first.layer) for statement in first.statements)
    length = 1
    while position + length < len(blocks):
        block = blocks[position + length]
        if block.layer != first.layer + step * length or not _may_be_equal(first, block):
            break
        if tuple(_relative(statement, block.layer) for statement in block.statements) != wanted:
            break
        length += 1
    return length


def _may_be_equal(first: Block, other: Block) -> bool:
    """Whether two blocks define the same families in the same way; a quick test before the real one."""
    return len(first.statements) == len(other.statements) and all(
        type(one) is type(two) and _families(one) == _families(two)
        for one, two in zip(first.statements, other.statements, strict=True)
    )


def _families(statement: Statement) -> list[str]:
    return [target.ref.family for target in targets_of(statement)]


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


def _relative(statement: Any, layer: int) -> Any:
    """The statement with every subscript relative to the layer."""
    if isinstance(statement, Subscript):
        return Subscript(statement.offset - layer, relative=True)
    if isinstance(statement, tuple):
        return tuple(_relative(item, layer) for item in statement)
    if isinstance(statement, Ref | Load) or hasattr(statement, "__dataclass_fields__"):
        changes = {f.name: _relative(getattr(statement, f.name), layer) for f in fields(statement)}
        return type(statement)(**changes)
    return statement


def shapes_lookup(shapes: Mapping[str, Mapping[int | None, Shape]]) -> ShapeOf:
    """Shape of a member of a family."""

    def shape_of(ref: Ref) -> Shape:
        index = None if ref.subscript is None else ref.subscript.offset
        return shapes[ref.family][index]

    return shape_of
