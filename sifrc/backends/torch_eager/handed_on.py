"""Arrays that another one may take over, since nobody reads them afterwards.

An array that is added to later begins with a copy of what it is first, and what is made entry by entry of
another array may stand in its place: a new array costs more than what is computed in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from sympy import Add, Expr, Mul, Symbol

from sifrc.backends.torch_eager.access import accesses
from sifrc.backends.torch_eager.expressions import Entry
from sifrc.lower.access import absolute, flat, loads_of, targets_of, unrolled
from sifrc.lower.arrays import Load, Ref
from sifrc.lower.program import Function
from sifrc.lower.statements import Assign, Contract, Convolve, Fresh, Kernel, Statement

__all__ = ["Member", "entrywise", "handed_on", "is_factor", "operands_of", "own_memory", "taking_over"]

Member = tuple[str, int | None]


def handed_on(
    function: Function, families: Collection[str], inlined: Collection[Ref] = ()
) -> frozenset[tuple[Ref, Ref]]:
    """Pairs of an array and the one that it takes over.

    The other one has memory of its own, and is not what a third one is too.

    Args:
        function: whose body is looked at.
        families: which nobody but the function needs.
        inlined: products that may be computed where they are read.
    """
    last: dict[Member, int] = {}
    late = operands_of(flat(function.body), inlined)
    for time, (statement, k) in enumerate(unrolled(function.body)):
        for load, _ in accesses(statement):
            last |= {absolute(ref, k): time for ref in (load.ref, *late.get(load.ref, ()))}
    filled, computed = own_memory(function)
    shared = _shared(function)
    found: dict[tuple[Ref, Ref], bool] = {}
    for time, (statement, k) in enumerate(unrolled(function.body)):
        copies = list(_copies(statement))
        for target, source in [*copies, *entrywise(statement)]:
            member, key = absolute(source.ref, k), (target.ref, source.ref)
            others = shared[member] - ((target, source) in copies)
            own = filled if (target, source) in copies else filled | computed
            free = source.ref.family in families and member in own
            found[key] = found.get(key, True) and free and last[member] == time and others == 0
    return frozenset(pair for pair, free in found.items() if free)


def operands_of(statements: Iterable[Statement], inlined: Collection[Ref]) -> Mapping[Ref, frozenset[Ref]]:
    """What is read where products are read that are computed there."""
    found: dict[Ref, frozenset[Ref]] = {}
    for statement in statements:
        for target in targets_of(statement):
            if target.ref in inlined:
                read = {load.ref for load in loads_of(statement)}
                inner = (found.get(ref, frozenset()) for ref in read)
                found[target.ref] = found.get(target.ref, frozenset()).union(read, *inner)
    return found


def own_memory(function: Function) -> tuple[set[Member], set[Member]]:
    """Arrays that have memory of their own: products and those filled by windows; those of formulas."""
    filled: dict[Member, bool] = {}
    computed: dict[Member, bool] = {}
    for statement, k in unrolled(function.body):
        formulas = dict(_formulas(statement))
        for load, is_target in accesses(statement):
            if is_target and not load.window:
                member = absolute(load.ref, k)
                new = isinstance(statement, Contract | Convolve | Fresh)
                filled[member] = filled.get(member, True) and new
                computed[member] = computed.get(member, True) and formulas.get(load, False)
    return {m for m, new in filled.items() if new}, {m for m, new in computed.items() if new}


def entrywise(statement: Statement) -> Iterator[tuple[Load, Load]]:
    """A whole array that a formula is written to, and whole arrays that it may be computed in.

    These are factors of one of its terms, at the same entries, and are read at no others.
    """
    for target, new in _formulas(statement):
        assert isinstance(statement, Kernel)
        if new and target.labels and len(statement.assigns) == 1:
            for name, load in statement.loads:
                once = sum(other.ref == load.ref for _, other in statement.loads) == 1
                whole = once and load.labels == target.labels and not load.window and not load.changes
                if whole and is_factor(Symbol(name, real=True), statement.assigns[0].value):
                    yield target, load


def is_factor(symbol: Symbol, value: Expr) -> bool:
    """Whether a symbol is a factor of one term of a sum of products, and stands nowhere else in it."""
    return value.count(symbol) == 1 and any(symbol in Mul.make_args(term) for term in Add.make_args(value))


def taking_over(
    assign: Assign,
    value: Expr,
    entries: Mapping[str, Entry],
    pairs: Collection[tuple[Ref, Ref]],
    expanded: Collection[Ref],
) -> Mapping[str, Entry]:
    """The entries of a formula, one of them as an array that it may be computed in.

    Args:
        assign: what is written.
        value: the formula.
        entries: what its symbols stand for.
        pairs: of arrays, and those that they may take over.
        expanded: arrays with one entry in memory for all of an axis.
    """
    read = {name: entries[name] for name in sorted(s.name for s in value.free_symbols) if name in entries}
    for name, entry in read.items():
        free = entry.ref is not None and (assign.target.ref, entry.ref) in pairs and entry.ref not in expanded
        apart = not any(e.product and entry.text in e.product.text() for e in read.values())
        plain = entry.product is None and not isinstance(value, Symbol)
        if free and apart and plain and is_factor(Symbol(name, real=True), value):
            return {**entries, name: replace(entry, taken=True)}
    return entries


def _formulas(statement: Statement) -> Iterator[tuple[Load, bool]]:
    """What a kernel writes, and whether the formula has every entry of it, in no order but its own."""
    for assign in statement.assigns if isinstance(statement, Kernel) else ():
        yield assign.target, not assign.target.window and _has_all(statement, assign)


def _has_all(statement: Statement, assign: Assign) -> bool:
    assert isinstance(statement, Kernel)
    names = {symbol.name for symbol in assign.value.free_symbols}
    read = {label for name, load in statement.loads if name in names for label in load.labels}
    plain = len(set(assign.target.labels)) == len(assign.target.labels)
    return plain and not isinstance(assign.value, Symbol) and read >= set(assign.target.labels)


def _shared(function: Function) -> Counter[Member]:
    """How often an array is what another one is too."""
    found: Counter[Member] = Counter()
    for statement, k in unrolled(function.body):
        loads = dict(statement.loads) if isinstance(statement, Kernel) else {}
        for assign in statement.assigns if isinstance(statement, Kernel) else ():
            source = loads.get(assign.value.name) if isinstance(assign.value, Symbol) else None
            if source is not None and not assign.target.window:
                found.update({absolute(load.ref, k) for load in (assign.target, source)})
    return found


def _copies(statement: Statement) -> Iterator[tuple[Load, Load]]:
    """Arrays that are another one, whole, maybe in another shape."""
    if isinstance(statement, Kernel):
        loads = dict(statement.loads)
        for assign in statement.assigns:
            source = loads.get(assign.value.name) if isinstance(assign.value, Symbol) else None
            if source is not None and not assign.target.window and not source.window:
                yield assign.target, source
