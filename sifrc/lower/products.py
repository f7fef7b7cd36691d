"""Products of several tensors: which are sums, and in which order pairs are multiplied."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from math import prod

import opt_einsum

from sifrc.ir import Axis, Einsum, Expr, Operand
from sifrc.ir.build import einsum
from sifrc.ir.ordering import contracted_names
from sifrc.ir.relative import ordered_operands

__all__ = [
    "as_one_sum",
    "contracted",
    "first_kept",
    "is_matrix_product",
    "kept_labels",
    "multiplications",
    "narrowed",
    "ordered",
    "place_count",
    "split_scalars",
    "without_outer",
]

_NOMINAL_BATCH = 128
"""Batch size that contraction orders are chosen for; the layer sizes are the real ones."""
_NOMINAL_GROUPS = 16
"""Groups that they are chosen for: with every layer there are more, and equal layers are equal code."""
_MOST_OPTIMAL = 6
"""Factors of a product for which the best order is searched exhaustively."""


def contracted(expr: Einsum) -> tuple[Axis, ...]:
    """Labels that are summed over, in order of first appearance."""
    labels = dict.fromkeys(label for _, slots in expr.operands for label in slots)
    return tuple(label for label in labels if label not in expr.out)


def as_one_sum(expr: Einsum, held: Callable[[Expr], object | None]) -> Einsum:
    """A sum of a product that is a sum itself, as of the mean over samples of a contraction.

    Args:
        expr: the sum.
        held: the array that an expression is in already, if it is.
    """
    tensors = [(operand, labels) for operand, labels in expr.operands if labels]
    if len(tensors) != 1 or not contracted(expr) or held(tensors[0][0]) is not None:
        return expr
    ((inner, labels),) = tensors
    if not isinstance(inner, Einsum) or not contracted(inner) or len(inner.operands) < 2:
        return expr
    if not set(inner.out) <= {label for _, own in inner.operands for label in own}:
        return expr  # the number of terms along an axis that no factor has
    table = dict(zip(inner.out, labels, strict=True))
    table |= {a: replace(a, name=f"inner {n}", primes=0) for n, a in enumerate(contracted(inner))}
    scalars = [operand for operand in expr.operands if not operand[1]]
    factors = [(operand, tuple(table[axis] for axis in own)) for operand, own in inner.operands]
    return Einsum((*scalars, *factors), expr.out)


def split_scalars(expr: Einsum, layer: int | None) -> tuple[list[Expr], Expr]:
    """Factors without axes, and the product of the others."""
    scalars = [operand for operand, labels in ordered_operands(expr, layer) if not labels]
    tensors: list[Operand] = [(operand, labels) for operand, labels in expr.operands if labels]
    return scalars, einsum(tensors, expr.out) if scalars else expr


def kept_labels(operands: Iterable[Operand], needed: Collection[Axis]) -> tuple[Axis, ...]:
    """Labels of some factors that are needed outside of them, in the order of an array of their product."""
    found = dict.fromkeys(label for _, labels in operands for label in labels if label in needed)
    return tuple(sorted(found, key=lambda axis: (not axis.is_group, not axis.is_sample, axis.place)))


def first_kept(labels: tuple[Axis, ...], out: tuple[Axis, ...]) -> int:
    """Position in the target of the first label that is kept: the left operand comes first."""
    return min((out.index(label) for label in labels if label in out), default=len(out))


def is_matrix_product(expr: Einsum) -> bool:
    """Whether two factors are multiplied as matrices or vectors, once or for every value of some labels.

    Their labels are in three groups: those of one factor alone, of the other one alone, both of which are
    kept, and those of both, which are summed, at least one. With a factor of three dimensions or more, the
    label of the samples is left aside, and may be kept or summed; and so are others that both factors and the
    result have, where rows and columns are left. Every label of the result is of a factor.
    """
    if len(expr.operands) != 2 or not expr.out:
        return False
    slots = [labels for _, labels in expr.operands]
    if not set(expr.out) <= {label for labels in slots for label in labels}:
        return False
    if any(len(set(labels)) < len(labels) for labels in slots):
        return False
    if max(len(labels) for labels in slots) > 2:
        slots = [tuple(label for label in labels if not label.is_sample) for labels in slots]
    left, right = (set(labels) for labels in slots)
    summed = (left | right) - set(expr.out)
    each = left & right & set(expr.out)
    if left - right and right - left:
        left, right = left - each, right - each
    return bool(summed) and left & right == summed


def ordered(expr: Expr, layer: int | None) -> Expr:
    """The product as nested products of two; sums over a label of one factor alone come first."""
    if not isinstance(expr, Einsum):
        return expr
    expr = without_outer(expr)
    if len(expr.operands) < 2:
        return expr
    reduced = _summed_alone(expr)
    if len(reduced.operands) > 2 and contracted(reduced):
        return _pairwise(reduced, layer)
    return reduced


def _summed_alone(expr: Einsum) -> Einsum:
    """Sums over a label of one factor alone are taken of that factor."""
    operands: list[Operand] = []
    for position, (operand, labels) in enumerate(expr.operands):
        others = {a for p, (_, ls) in enumerate(expr.operands) if p != position for a in ls} | set(expr.out)
        kept = tuple(label for label in labels if label in others)
        alone = (operand, labels) if kept == labels else (einsum([(operand, labels)], kept), kept)
        operands.append(alone)
    return Einsum(tuple(operands), expr.out)  # not normalised: that would merge the factors again


def without_outer(expr: Einsum) -> Einsum:
    """Take apart factors that are outer products: their array would be larger than what they are made of."""
    operands: list[Operand] = []
    for operand, labels in expr.operands:
        nested = _summed_alone(operand) if isinstance(operand, Einsum) else None
        if (
            nested is not None
            and not contracted(nested)
            and all(set(inner) < set(nested.out) for _, inner in nested.operands)
        ):
            table = dict(zip(nested.out, labels, strict=True))
            operands += [(e, tuple(table[label] for label in inner)) for e, inner in nested.operands]
        else:
            operands.append((operand, labels))
    return expr if len(operands) == len(expr.operands) else Einsum(tuple(operands), expr.out)


def place_count(axes: Iterable[Axis]) -> int:
    """Entries of some axes together, of a batch of a usual size."""
    return prod(map(_nominal, axes))


def _nominal(axis: Axis) -> int:
    """Entries that an axis is taken to have."""
    if axis.is_group:
        return _NOMINAL_GROUPS
    return _NOMINAL_BATCH if axis.is_sample else axis.entries


def narrowed(expr: Einsum) -> Expr:
    """The product without axes along which all its entries are the same."""
    carried = {label for _, labels in expr.operands for label in labels}
    kept = tuple(axis for axis in expr.out if axis in carried)
    return expr if kept == expr.out else Einsum(expr.operands, kept)


def multiplications(expr: Expr) -> int:
    """Multiply-adds of a product in the order that is chosen for it; 0 for what is none."""
    if not isinstance(expr, Einsum) or not contracted(expr):
        return 0
    subscripts, shapes = _subscripts([op for op in expr.operands if op[1]], expr.out)
    return _path(subscripts, shapes)[1]


@lru_cache(maxsize=4096)
def _path(subscripts: str, shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[tuple[int, ...], ...], int]:
    """The order of pairs for the sizes, and its multiply-adds."""
    path, found = opt_einsum.contract_path(
        subscripts,
        *shapes,
        shapes=True,
        # The best order takes time that grows as a factorial.
        optimize="optimal" if len(shapes) <= _MOST_OPTIMAL else "auto",
    )
    return tuple(tuple(step) for step in path), int(found.opt_cost)


def _subscripts(operands: Sequence[Operand], out: Sequence[Axis]) -> tuple[str, tuple[tuple[int, ...], ...]]:
    """A product as opt_einsum has it: letters, and sizes."""
    letters: dict[Axis, str] = {}
    for _, labels in operands:
        for label in labels:
            letters.setdefault(label, opt_einsum.get_symbol(len(letters)))
    inputs = ["".join(letters[label] for label in labels) for _, labels in operands]
    output = "".join(letters[label] for label in out if label in letters)
    shapes = tuple(tuple(map(_nominal, labels)) for _, labels in operands)
    return ",".join(inputs) + "->" + output, shapes


def _pairwise(expr: Einsum, layer: int | None) -> Expr:
    """The product as nested products of two, in the order opt_einsum finds for the sizes.

    Labels that are summed are named in the order of the factors: arrays of parts are known by these names,
    which differ between layers that are alike in the product as it is.
    """
    operands = ordered_operands(expr, layer)
    summed = dict.fromkeys(label for _, labels in operands for label in labels if label not in expr.out)
    names = contracted_names({number: axis.name for number, axis in enumerate(expr.out)})
    table = {label: label.summed(name) for label, name in zip(summed, names, strict=False)}
    operands = [(e, tuple(table.get(label, label) for label in labels)) for e, labels in operands]
    for step in _path(*_subscripts(operands, expr.out))[0]:
        chosen = [operands[position] for position in step]
        operands = [op for position, op in enumerate(operands) if position not in step]
        if not operands:
            return einsum(chosen, expr.out) if len(chosen) < len(expr.operands) else expr
        kept = set(expr.out) | {label for _, labels in operands for label in labels}
        out = tuple(dict.fromkeys(label for _, labels in chosen for label in labels if label in kept))
        out = tuple(sorted(out, key=lambda axis: (not axis.is_group, not axis.is_sample, out.index(axis))))
        operands.append((einsum(chosen, out), out))
    return expr
