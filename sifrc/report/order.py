"""In which order factors and terms are written; it depends on layers only by their distance."""

from __future__ import annotations

from fractions import Fraction

from sifrc.derive.quantities import QUANTITIES
from sifrc.report.indices import Naming
from sifrc.report.layout import (
    Function,
    Hadamard,
    Inner,
    Layout,
    Norm,
    Product,
    Sum,
    Symbol,
    Terms,
    Transpose,
    coefficient_of,
    symbols_of,
)
from sifrc.report.text import text

__all__ = ["family_rank", "ordered_factors", "ordered_inner", "ordered_scalars", "ordered_terms"]

_LAST = 1 + max(quantity.rank for quantity in QUANTITIES.values() if quantity.rank is not None)


def family_rank(family: str) -> int:
    """Place of a symbol family in products and sums; unknown ones come last."""
    known = QUANTITIES.get(family)
    return _LAST if known is None or known.rank is None else known.rank


def _relative(layout: Layout, layer: int) -> str:
    return text(layout, Naming("k", layer))


def _is_matrix(layout: Layout) -> bool:
    core = layout.operand if isinstance(layout, Transpose) else layout
    return isinstance(core, Symbol) and core.family in QUANTITIES and QUANTITIES[core.family].matrix


def _first_rank(layout: Layout) -> int:
    return min((family_rank(symbol.family) for symbol in symbols_of(layout)), default=_LAST)


def ordered_factors(factors: list[Layout], layer: int) -> list[Layout]:
    """Entrywise factors: functions first, sums and products last."""

    def key(factor: Layout) -> tuple[int, int, str]:
        if isinstance(factor, Function):
            return 0, factor.order, _relative(factor, layer)
        kind = 2 if isinstance(factor, Symbol) else 3 if isinstance(factor, Sum | Product | Hadamard) else 1
        return kind, 0, _relative(factor, layer)

    return sorted(factors, key=key)


def ordered_scalars(factors: list[Layout], layer: int) -> list[Layout]:
    """Scalar factors: symbols first, then norms and inner products."""

    def key(factor: Layout) -> tuple[int, int, str]:
        kind = 0 if isinstance(factor, Symbol) else 1 if isinstance(factor, Norm | Inner) else 2
        return kind, _first_rank(factor), _relative(factor, layer)

    return sorted(factors, key=key)


def ordered_inner(factors: list[Layout], layer: int) -> list[Layout]:
    """Arguments of an inner product: the target first, multipliers last."""

    def key(factor: Layout) -> tuple[bool, bool, int, str]:
        symbol = isinstance(factor, Symbol)
        return (
            not (symbol and _first_rank(factor) <= family_rank("t")),
            symbol,
            _first_rank(factor),
            _relative(factor, layer),
        )

    return sorted(factors, key=key)


def ordered_terms(terms: Terms, layer: int) -> Terms:
    """Terms of a sum: positive ones first, matrix products before vectors."""

    def key(term: tuple[Fraction, Layout]) -> tuple[bool, int, int, str]:
        factor, body = term
        body = coefficient_of(body)[1]
        known = QUANTITIES.get(body.family) if isinstance(body, Symbol) else None
        if known is not None and known.leading is not None:
            return factor < 0, 0, known.leading, _relative(body, layer)
        kind = 1 if isinstance(body, Product) and any(map(_is_matrix, body.factors)) else 2
        return factor < 0, kind, _first_rank(body), _relative(body, layer)

    return tuple(sorted(terms, key=key))
