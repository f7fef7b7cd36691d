"""Sums of products of two tangents with a weight, some entries at a time.

Second derivatives of an entrywise function are Σ w ∘ u_s ∘ u_t over all entries, for every pair of groups.
The product of the weight with one of the tangents would be an array as large as that; of a few thousand
entries at a time it stays in the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sympy import Mul, Symbol

from sifrc.backends.torch_eager.access import Member, Names, accesses
from sifrc.backends.torch_eager.products import Product
from sifrc.lower.access import absolute, unrolled
from sifrc.lower.arrays import Load, Ref
from sifrc.lower.program import Function
from sifrc.lower.statements import Contract, Kernel, Loop, Statement

__all__ = ["Weighted", "weighted_of", "weighted_product", "weighted_refs"]


@dataclass(frozen=True)
class Weighted:
    """An array that is a weight times another array, for each index of the first axis of that.

    Args:
        weight: over all axes but the first.
        rows: what it is multiplied with.
    """

    weight: Load
    rows: Load


def weighted_of(statement: Statement, wanted: Collection[Ref]) -> dict[Ref, Weighted] | None:
    """What a kernel computes, if it is one of the arrays that need not be there."""
    found = _weighted(statement)
    if found is None or not isinstance(statement, Kernel) or statement.assigns[0].target.ref not in wanted:
        return None
    return {statement.assigns[0].target.ref: found}


def _weighted(statement: Statement) -> Weighted | None:
    """A weight times an array, if a kernel computes that and nothing else."""
    if not isinstance(statement, Kernel) or len(statement.assigns) != 1:
        return None
    (assign,), loads = statement.assigns, dict(statement.loads)
    factors = Mul.make_args(assign.value)
    if len(factors) != 2 or not all(isinstance(factor, Symbol) for factor in factors) or assign.target.window:
        return None
    labels = assign.target.labels
    found = {loads[factor.name].labels: loads[factor.name] for factor in factors}
    if len(labels) < 3 or set(found) != {labels, labels[1:]} or not all(x.is_whole for x in found.values()):
        return None
    return Weighted(found[labels[1:]], found[labels])


def weighted_product(statement: Contract, known: Mapping[Ref, Weighted], names: Names) -> Product | None:
    """The sum, where an operand is a weight times an array that need not be there."""
    for own, other in ((statement.left, statement.right), (statement.right, statement.left)):
        found = known.get(own.ref)
        if found is not None and _fits(own, other, statement.target):
            parts = ", ".join(names.array(load) for load in (found.weight, found.rows, other))
            text = f"_weighted_product({parts})"
            labels = own.labels[0], other.labels[0]
            text = text if labels == statement.target.labels else f"{text}.T"
            return Product("other", text, "", "", statement.target.labels)
    return None


def _fits(own: Load, other: Load, target: Load) -> bool:
    """Whether both have one axis for themselves, the first, and all others are summed."""
    alone = {own.labels[0], other.labels[0]}
    rest = own.labels[1:]
    return own.is_whole and rest == other.labels[1:] and len(alone) == 2 and set(target.labels) == alone


def weighted_refs(function: Function, elsewhere: set[str]) -> frozenset[Ref]:
    """Such arrays that one statement reads, which can do without them, and nobody ``elsewhere``."""
    reads: Counter[Member] = Counter()
    for statement, k in unrolled(function.body):
        reads.update({absolute(load.ref, k) for load, is_target in accesses(statement) if not is_target})
    written: Counter[Ref] = Counter()
    found: set[Ref] = set()
    for statements, rounds in _blocks(function):
        for position, statement in enumerate(statements):
            written.update({load.ref for load, is_target in accesses(statement) if is_target})
            if _weighted(statement) is None or not isinstance(statement, Kernel):
                continue
            ref = statement.assigns[0].target.ref
            once = all(reads[absolute(ref, k)] == 1 for k in rounds) and ref.family not in elsewhere
            if once and _is_summed(ref, statements[position + 1 :]):
                found.add(ref)
    return frozenset(ref for ref in found if written[ref] == 1)


def _is_summed(ref: Ref, following: Sequence[Statement]) -> bool:
    """Whether what reads an array next is a sum of products with it."""
    for statement in following:
        if any(load.ref == ref for load, is_target in accesses(statement) if not is_target):
            if not isinstance(statement, Contract):
                return False
            pairs = (statement.left, statement.right), (statement.right, statement.left)
            return any(own.ref == ref and _fits(own, other, statement.target) for own, other in pairs)
    return False


def _blocks(function: Function) -> Iterator[tuple[Sequence[Statement], Sequence[int | None]]]:
    plain: list[Statement] = []
    for item in function.body:
        if isinstance(item, Loop):
            yield item.body, tuple(range(item.start, item.stop, item.step))
        else:
            plain.append(item)
    yield plain, (None,)
