"""Which products a sum over entries is: an inner product, a matrix times a vector, or neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import sympy
from sympy import Expr, Symbol

from sifrc.backends.torch_eager.access import Names
from sifrc.backends.torch_eager.expressions import Entry
from sifrc.lower.arrays import Load

__all__ = ["are_few", "covered_labels", "inner_product", "part_entry", "sum_text"]

_FEW = 9
"""Entries along a dimension that are compared, or added, one after the other."""


def are_few(labels: Sequence[str], loads: Sequence[tuple[str, Load]], names: Names) -> bool:
    """Whether each of the labels has a few values."""
    sizes = {label: size for _, load in loads for label, size in names.common_sizes(load).items()}
    return all(sizes.get(label, _FEW + 1) <= _FEW for label in labels)


def covered_labels(value: Expr, entries: Mapping[str, Entry]) -> tuple[str, ...]:
    """Labels of the operands of an expression."""
    names = sorted(symbol.name for symbol in value.free_symbols if symbol.name in entries)
    return tuple(dict.fromkeys(label for name in names for label in entries[name].labels))


def inner_product(value: Expr, entries: Mapping[str, Entry]) -> tuple[Entry, Entry] | None:
    """The two factors of a product of two tensors, or of a square."""
    if isinstance(value, sympy.Pow) and value.exp == 2 and isinstance(value.base, Symbol):
        return entries[value.base.name], entries[value.base.name]
    if isinstance(value, sympy.Mul) and len(value.args) == 2:
        first, second = sorted(value.args, key=str)
        if isinstance(first, Symbol) and isinstance(second, Symbol):
            return entries[first.name], entries[second.name]
    return None


def _matrix_and_vector(
    value: Expr, labels: tuple[str, ...], over: Sequence[str], entries: Mapping[str, Entry]
) -> tuple[tuple[Expr, tuple[str, ...]], tuple[Expr, tuple[str, ...]]] | None:
    """The factors with the first label, and those without it, of a sum over all other labels."""
    inner = labels[1:]
    if len(inner) < 2 or set(inner) != set(over):
        return None
    without = {s for s in value.free_symbols if labels[0] not in covered_labels(s, entries)}
    vector = sympy.Mul(*(f for f in sympy.Mul.make_args(value) if f.free_symbols <= without))
    matrix = value / vector
    if not (matrix.free_symbols.isdisjoint(without) and vector.free_symbols):
        return None
    if covered_labels(vector, entries) != inner or set(covered_labels(matrix, entries)) != set(labels):
        return None
    return (matrix, labels), (vector, inner)


def _factors_along(value: Expr, label: str, entries: Mapping[str, Entry]) -> tuple[Expr, ...]:
    """A product as two factors that have a label both, or as it is."""
    if isinstance(value, sympy.Pow) and value.exp == 2:
        return value.base, value.base
    factors = sorted(sympy.Mul.make_args(value), key=str)
    having = [factor for factor in factors if label in covered_labels(factor, entries)]
    if len(having) < 2:
        return (value,)
    return value / having[-1], having[-1]


def _sum_of_few(factors: Sequence[str], dims: Sequence[int]) -> str:
    """A sum of entries, or of products of two, along dimensions of a few, counted from the last one."""
    *outer, last = dims
    text = f"_sum_of_few{'_products' if len(factors) > 1 else ''}({', '.join(factors)}, {last})"
    for gone, dim in enumerate(reversed(outer), 1):
        # Dimensions are gone that were counted.
        text = f"_sum_of_few({text}, {dim + gone})"
    return text


def sum_text(
    value: Expr,
    labels: tuple[str, ...],
    over: Sequence[str],
    entries: Mapping[str, Entry],
    printed: Callable[[Expr, tuple[str, ...]], str],
    *,
    few: bool,
) -> str:
    """Source text of a sum.

    Args:
        value: what is added up, over ``labels``.
        labels: of its dimensions.
        over: those that are summed.
        entries: what the symbols are.
        printed: source text of an expression over labels.
        few: whether each summed label has a few values.
    """
    dims = tuple(position for position, label in enumerate(labels) if label in over)
    split = _matrix_and_vector(value, labels, over, entries)
    if split is not None:
        matrix, vector = (printed(part, own) for part, own in split)
        return f"(({matrix}).flatten(1) @ ({vector}).flatten())"
    if few and len(dims) < min(3, len(labels)):
        factors = _factors_along(value, labels[dims[-1]], entries)
        texts = tuple(printed(factor, labels) for factor in factors)
        return _sum_of_few(texts, tuple(dim - len(labels) for dim in dims))
    argument = str(dims[0]) if len(dims) == 1 else str(dims)
    return f"({printed(value, labels)}).sum({'' if len(dims) == len(labels) else argument})"


def part_entry(symbol: Symbol, value: Expr, entries: Mapping[str, Entry]) -> Entry:
    """What a part of a formula is that has a name: a number where all in it are."""
    is_float = all(entries[s.name].is_float for s in value.free_symbols)
    return Entry(symbol.name, covered_labels(value, entries), is_float=is_float, ready=True)
