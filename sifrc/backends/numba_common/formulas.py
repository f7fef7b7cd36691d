"""Entrywise formulas and sums of the program as loop nests."""

from __future__ import annotations

from collections.abc import Sequence

from sympy import Expr, S, Symbol

from sifrc.backends.numba_common.access import Block, extent_of
from sifrc.backends.numba_common.nests import Names, Nest
from sifrc.backends.versions import versions
from sifrc.lower.arrays import Load, Ref
from sifrc.lower.statements import Kernel, Sum
from sifrc.scalar import share

__all__ = ["column_nest", "kernel_nest", "sum_nest"]


def kernel_nest(statement: Kernel, block: Block, names: Names, indent: int) -> Nest:
    """The assignments of a kernel at each entry, with what they share computed once.

    Args:
        statement: the kernel.
        block: how its arrays are called.
        names: of the function.
        indent: of the block in the module, for the length of lines.
    """
    assigns, later = versions(statement)
    original = dict(statement.loads)
    loads = original | {new: original[old] for new, old in later.items()}
    written = {assign.target.ref for assign in statement.assigns}
    targets = [assign.target for assign in statement.assigns]
    nest = _nest(statement.labels, targets, loads, written, block, names, indent)
    parts, values = share([assign.value for assign in assigns], "shared_part_")
    pending = dict(parts)

    def emit(value: Expr) -> None:
        for symbol in sorted(value.free_symbols & set(pending), key=lambda s: s.name):
            if symbol in pending:
                part = pending.pop(symbol)
                emit(part)
                nest.part(symbol, part, fixed=False)

    for assign, value in zip(assigns, values, strict=True):
        emit(value)
        nest.add(block.entry(assign.target), value)
    return nest


def sum_nest(statement: Sum, block: Block, names: Names, indent: int) -> Nest:
    """For each entry of the target a sum in a local; the arguments are those of ``kernel_nest``."""
    free, over = statement.target.labels, _in_memory_order(statement)
    nest = _nest((*free, *over), [statement.target], dict(statement.loads), set(), block, names, indent)
    inner = {symbol for symbol, (_, depth) in nest.entries.items() if depth > len(free)}
    factor, value = (
        statement.value.as_independent(*inner, as_Add=False) if inner else (S.One, statement.value)
    )
    total = names.local("total")
    nest.before.setdefault(len(free), []).append(f"{total} = {names.real}(0.0)")
    nest.add(total, _shared(nest, value), operator="+=")
    result = Symbol(f"local_{total}", real=True)
    nest.entries[result] = (total, len(free))
    nest.finish(block.entry(statement.target), factor * result, len(free))
    return nest


def column_nest(statement: Sum, block: Block, names: Names, indent: int) -> Nest:
    """The summed labels outside: terms are added to the target, which must begin with zeros."""
    free, over, target = statement.target.labels, _in_memory_order(statement), block.entry(statement.target)
    nest = _nest((*over, *free), [statement.target], dict(statement.loads), set(), block, names, indent)
    nest.add(target, _shared(nest, statement.value), operator="+=")
    return nest


def _shared(nest: Nest, value: Expr) -> Expr:
    """The value after its common subexpressions, which get names in the nest."""
    parts, (value,) = share([value], "shared_part_")
    for symbol, part in parts:
        nest.part(symbol, part, fixed=False)
    return value


def _nest(
    labels: tuple[str, ...],
    targets: Sequence[Load],
    loads: dict[str, Load],
    written: set[Ref],
    block: Block,
    names: Names,
    indent: int,
) -> Nest:
    entries: dict[Symbol, tuple[str, int]] = {}
    fixed: set[Symbol] = set()
    for name, load in loads.items():
        symbol = Symbol(name, real=True)
        depth = max((1 + labels.index(label) for label in load.labels), default=0)
        entries[symbol] = (block.entry(load), depth)
        if load.ref in written:
            fixed.add(symbol)
    ranges = {label: extent_of(block, label, [*targets, *loads.values()]) for label in labels}
    return Nest(labels, ranges, names, entries, frozenset(fixed), indent)


def _in_memory_order(statement: Sum) -> tuple[str, ...]:
    """The summed labels as the largest array has them, the innermost loop last."""
    widest = max((load.labels for _, load in statement.loads), key=len, default=())
    return tuple(sorted(statement.over, key=lambda label: widest.index(label) if label in widest else -1))
