"""Mathematical notation as a tree, before it becomes text or LaTeX.

Indices of symbols are numbers here; a style prints them as they are, relative to a generic k, or
relative to the output n. Shifting a layout by one layer is therefore a change of numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import sympy

__all__ = [
    "ONE",
    "ONES",
    "ZERO",
    "Constant",
    "Contraction",
    "CubeRoot",
    "Derivative",
    "Diagonal",
    "Equal",
    "Function",
    "Hadamard",
    "Indexed",
    "Inner",
    "Inverse",
    "Layout",
    "Mean",
    "Minimiser",
    "Named",
    "Norm",
    "Product",
    "Quotient",
    "Scalar",
    "Solved",
    "Sum",
    "Symbol",
    "Terms",
    "Total",
    "Transpose",
    "children_of",
    "coefficient_of",
    "indices_of",
    "map_indices",
    "replaced",
    "sum_of",
    "symbols_of",
]


class Layout:
    """Base of all pieces of notation."""


Terms: TypeAlias = tuple[tuple[Fraction, Layout], ...]


@dataclass(frozen=True)
class Symbol(Layout):
    """A named quantity, with an index or without: W_k, t; that of a ``fixed`` one is the same for all k."""

    family: str
    index: int | None = None
    fixed: bool = False


@dataclass(frozen=True)
class Constant(Layout):
    """0, 1, the vector of ones or the identity matrix."""

    name: str


ZERO, ONE, ONES = Constant("0"), Constant("1"), Constant("ones")


@dataclass(frozen=True)
class Function(Layout):
    """An activation or its derivative: F_k(a), F_k'(a)."""

    index: int
    order: int
    argument: Layout


@dataclass(frozen=True)
class Named(Layout):
    """A function with a name: softmax(x), logsumexp(x), max(x)."""

    name: str
    arguments: tuple[Layout, ...]


@dataclass(frozen=True)
class Scalar(Layout):
    """A scalar expression, entry by entry, with pieces of notation for its symbols."""

    expression: sympy.Expr
    arguments: tuple[tuple[str, Layout], ...] = ()


@dataclass(frozen=True)
class Sum(Layout):
    """A linear combination; one term with a coefficient is a multiple."""

    terms: Terms


@dataclass(frozen=True)
class Product(Layout):
    """Factors side by side: scalars, matrix products."""

    factors: tuple[Layout, ...]


@dataclass(frozen=True)
class Hadamard(Layout):
    """Entrywise product."""

    factors: tuple[Layout, ...]


@dataclass(frozen=True)
class Quotient(Layout):
    """A quotient of scalars, or of a tensor by a scalar; ``entrywise`` of two vectors."""

    numerator: Layout
    denominator: Layout
    entrywise: bool = False


@dataclass(frozen=True)
class Transpose(Layout):
    """Wᵀ."""

    operand: Layout


@dataclass(frozen=True)
class Inverse(Layout):
    """M⁻¹, the pseudo-inverse where M is singular."""

    operand: Layout


@dataclass(frozen=True)
class Diagonal(Layout):
    """diag(v): the diagonal matrix of a vector."""

    operand: Layout


@dataclass(frozen=True)
class Inner(Layout):
    """⟨u, v⟩, of vectors or of matrices."""

    left: Layout
    right: Layout


@dataclass(frozen=True)
class Norm(Layout):
    """‖v‖; ``kind`` is ``2``, ``squared``, ``cubed`` or ``max``."""

    operand: Layout
    kind: str = "2"


@dataclass(frozen=True)
class CubeRoot(Layout):
    """|v|^⅓, entry by entry."""

    operand: Layout


@dataclass(frozen=True)
class Mean(Layout):
    """mean_p over the samples of a batch."""

    operand: Layout


@dataclass(frozen=True)
class Total(Layout):
    """Σ_k of a body that is written for k = ``anchor``, over the members."""

    anchor: int
    members: tuple[int, ...]
    body: Layout


@dataclass(frozen=True)
class Contraction(Layout):
    """Σ_{i,j} in index notation."""

    labels: tuple[str, ...]
    body: Layout


@dataclass(frozen=True)
class Indexed(Layout):
    """An entry: (W_k)_{ij}."""

    operand: Layout
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Derivative(Layout):
    """∂L/∂x_k."""

    of: Layout
    by: Layout


@dataclass(frozen=True)
class Equal(Layout):
    """A chain of equal things."""

    parts: tuple[Layout, ...]


@dataclass(frozen=True)
class Solved(Layout):
    """The right side of an equation that is solved for a symbol on its left, and by what."""

    rhs: Layout
    unknown: Symbol
    by: str


@dataclass(frozen=True)
class Minimiser(Layout):
    """argmin_u of a function of the unknown u."""

    unknown: Symbol
    body: Layout


def sum_of(terms: Terms) -> Layout:
    """A linear combination in its simplest form.

    Example:
        >>> sum_of(((Fraction(1), Symbol("x", 1)),))
        Symbol(family='x', index=1, fixed=False)
        >>> sum_of(())
        Constant(name='0')
    """
    flat: list[tuple[Fraction, Layout]] = []
    for factor, term in terms:
        parts = term.terms if isinstance(term, Sum) else ((Fraction(1), term),)
        flat += [(factor * inner, part) for inner, part in parts]
    if not flat:
        return ZERO
    if len(flat) == 1 and flat[0][0] == 1:
        return flat[0][1]
    return Sum(tuple(flat))


def coefficient_of(layout: Layout) -> tuple[Fraction, Layout]:
    """Split ``c·rest`` into its number and the rest."""
    if isinstance(layout, Sum) and len(layout.terms) == 1:
        return layout.terms[0]
    return Fraction(1), layout


def map_indices(layout: Layout, change: Callable[[int], int]) -> Layout:
    """The same notation with every layer index changed.

    Example:
        >>> map_indices(Symbol("x", 1), lambda index: index + 2)
        Symbol(family='x', index=3, fixed=False)
    """
    if isinstance(layout, Total):
        return layout  # its index is bound
    values = _with_parts(layout, lambda part: map_indices(part, change))
    index = values.get("index")
    if index is not None and not values.get("fixed"):
        values["index"] = change(index)
    return type(layout)(**values)


def replaced(layout: Layout, old: Symbol, new: Layout) -> Layout:
    """The same notation with something else for a symbol.

    Example:
        >>> replaced(Transpose(Symbol("p", 1)), Symbol("p", 1), Symbol("D", 1))
        Transpose(operand=Symbol(family='D', index=1, fixed=False))
    """
    if layout == old:
        return new
    return type(layout)(**_with_parts(layout, lambda part: replaced(part, old, new)))


def _with_parts(layout: Layout, change: Callable[[Layout], Layout]) -> dict[str, Any]:
    """The fields of a piece of notation, its direct parts changed."""

    def mapped(value: Any) -> Any:
        if isinstance(value, Layout):
            return change(value)
        if isinstance(value, tuple):
            return tuple(mapped(item) for item in value)
        return value

    return {name: mapped(value) for name, value in vars(layout).items()}


def indices_of(layout: Layout) -> frozenset[int]:
    """The free layer indices."""
    return frozenset(_indices(layout))


def symbols_of(layout: Layout) -> Iterator[Symbol]:
    """The symbols, each as often as it occurs, those under a bound index left out."""
    if isinstance(layout, Symbol):
        yield layout
    for child in children_of(layout):
        yield from symbols_of(child)


def children_of(layout: Layout) -> Iterator[Layout]:
    """The direct parts; none of a sum with a bound index."""
    if isinstance(layout, Total):
        return
    stack: list[Any] = [*reversed(vars(layout).values())]
    while stack:
        value = stack.pop()
        if isinstance(value, Layout):
            yield value
        elif isinstance(value, tuple):
            stack.extend(reversed(value))


def _indices(layout: Layout) -> Iterator[int]:
    index = getattr(layout, "index", None)
    if index is not None and not getattr(layout, "fixed", False):
        yield index
    for child in children_of(layout):
        yield from _indices(child)
