"""The section of an equation sheet on summaries along a direction, by groups of the parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import permutations

from sifrc.catalogue.summaries import SUMMARY
from sifrc.derive.summaries import Summaries
from sifrc.derive.system import Equation, System
from sifrc.ir import Axis, Einsum, Expr, Input
from sifrc.ir.build import add, einsum
from sifrc.ir.normal import terms_of
from sifrc.methods.grouped_newton import GroupedNewton
from sifrc.report.book import Book, meanings_of, symbol_of
from sifrc.report.grouping import Line
from sifrc.report.indices import Naming
from sifrc.report.layout import Indexed, Layout, Named, Sum, sum_of
from sifrc.report.sheet import Section
from sifrc.report.text import text
from sifrc.spec.types import Spec

__all__ = ["SUMMARIES", "summary_section", "wants_summaries"]

SUMMARIES = "Summaries along a direction (grouped Newton, GN3)"
"""Title of the section."""

_SYMMETRIC = "sym"
_TENSOR = "T̄"

_MEANINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("1W", "1β"), "1W_k and 1β_k are the vectors that are 1 at the group of W_k and of β_k, else 0."),
    (
        ("N°", "η°"),
        "Every number is a group: N°_k and η°_k have for each group the direction with its entry alone.",
    ),
    (
        ("Nx", "Nᵀy"),
        "(Nx)_k is what N_k moves a_k by, (Nᵀy)_k what it pulls back to x_{k−1}, (Nᵀy2)_k to x_{k−2}, "
        "and so on.",
    ),
    (
        ("ẋ",),
        "Rows of ȧ_k and ẋ_k are the tangents of the groups, of ä_k and ẍ_k the second-order ones along "
        "each group, of ḃ_k and ẏ_k those of the adjoints.",
    ),
    (
        ("ċ",),
        "ċ_k and c̈_k are ẋ_k and ẍ_k about their mean by the softmax of x_k: what all entries have in "
        "common changes no softmax, and no derivative of log Σ exp from the second on.",
    ),
    (
        ("ḡ",),
        "ḡ_s, H̿_st and T̄_stv are the first, second and third differentials of ℓ_R along u_s, u_t and "
        "u_v, and D̄_s is T̄_sss; H̿ is the H̄ of GN3. They come from the Lagrangian with a_k and y_k in it: "
        "ḡ∑_k, H̿∑_k, D̄∑_k and T̄∑_k are sums over its terms up to the layer k.",
    ),
    (
        ("H̿",),
        "H̿ and D̄ are differentials at fixed multipliers, with tangents of the states alone; T̄ has "
        "first-order tangents of states and adjoints (2n + 1 rule).",
    ),
)
"""Families, any of which calls for the words."""


def wants_summaries(spec: Spec) -> bool:
    """Whether the spec asks for summaries: by its method, or as an operator."""
    named = spec.method is not None and spec.method.name == GroupedNewton.name
    return named or SUMMARY in spec.target.operators


def summary_section(book: Book) -> Section:
    """Moves and tangents of the groups, and the summaries of orders 1 to 3."""
    summaries = book.derived.summaries
    table = _labelled(summaries)
    lines = [line for label, system in table for line in _lines(book, label, system)]
    for line in book.uniform.definitions("ḃ", "tangents of adjoints"):
        last = max((n for n, other in enumerate(lines) if other.name == line.name), default=-1)
        lines.insert(last + 1, line)
    systems = [system for _, system in table]
    notes = (_groups(summaries), *meanings_of(_MEANINGS, systems), *_symmetric_note(lines))
    return Section(SUMMARIES, book.rows(lines), notes)


def _labelled(summaries: Summaries) -> list[tuple[str, System]]:
    """The systems in the order of the derivation, without those that are empty."""
    _, adjoints, _ = summaries.along_direction(None)
    table = [
        ("moves", summaries.moves),
        ("pulls", summaries.pulls),
        ("tangents", summaries.tangent),
        ("second tangents", summaries.second_tangent),
        ("about their mean", summaries.centred),
        ("about their mean", summaries.second_centred),
        ("tangents of adjoints", adjoints),
        ("order 1", summaries.gradient),
        ("order 2", summaries.hessian),
        ("order 3, diagonal", summaries.third),
        ("order 3", summaries.tensor),
    ]
    return [(label, system) for label, system in table if system.equations]


def _groups(summaries: Summaries) -> str:
    """How many groups there are, and their names where they are few."""
    partition = summaries.partition
    names = "" if partition.discrete or partition.size > 8 else ": " + ", ".join(partition.names)
    return (
        f"{partition.size} groups of the parameters{names}. u = (N, η) is the direction, u_s its part in the "
        "group s."
    )


def _lines(book: Book, label: str, system: System) -> Iterator[Line]:
    for e in system.equations:
        line = Line(symbol_of(e.symbol), (e.value,), e.layer, e.source, label)
        found = _symmetrised(book, line, e) if e.symbol.family.startswith(_TENSOR) else None
        yield line if found is None else found


def _symmetric_note(lines: Iterable[Line]) -> tuple[str, ...]:
    if not any(isinstance(part, Named) for line in lines for part in _parts(line)):
        return ()
    return (
        f"{_SYMMETRIC} is the sum of all different terms that its argument becomes by permuting i, j and l.",
    )


def _parts(line: Line) -> Iterator[Layout]:
    for layout in line.tail:
        yield layout
        yield from (term for _, term in getattr(layout, "terms", ()))


# -- symmetric sums


def _symmetrised(book: Book, line: Line, equation: Equation) -> Line | None:
    """The line with one of the terms that are permutations of each other; None where some are missing."""
    (value,) = book.uniform.line(line).values
    axes = equation.symbol.axes
    carried, orbits = _orbits(value, axes)
    if not orbits:
        return None
    context = book.names.notation(line.layer or 0)

    def written(expr: Expr) -> Layout:
        return context.sides(line.left, expr)[1]

    def place(expr: Expr) -> str:
        return text(written(expr), Naming("k", line.layer or 0))

    chosen = [(factor, min(members, key=place)) for factor, members in orbits]
    # What no permutation changes stands without the mark.
    alone = {written(members[0]) for _, members in orbits if len(members) == 1}
    left, body = context.sides(line.left, add(chosen, axes))
    if not isinstance(left, Indexed):
        return None
    before = [(factor, Indexed(symbol_of(symbol), left.labels)) for factor, symbol in carried]
    terms = body.terms if isinstance(body, Sum) else ((Fraction(1), body),)
    after = [(f, term if term in alone else Named(_SYMMETRIC, (term,))) for f, term in terms]
    return Line(left, (), line.layer, line.source, line.name, (sum_of((*before, *after)),))


def _orbits(
    value: Expr, axes: tuple[Axis, ...]
) -> tuple[list[tuple[Fraction, Input]], list[tuple[Fraction, list[Einsum]]]]:
    """The sum that is carried on, and the other terms by what they are permutations of.

    No terms where a permutation of one is missing or has another coefficient.
    """
    carried: list[tuple[Fraction, Input]] = []
    left: dict[Einsum, Fraction] = {}
    for factor, term in terms_of(value):
        if isinstance(term, Input):
            carried.append((factor, term))
            continue
        plain = _one_axis(term)
        if plain is None:
            return carried, []
        left[plain] = factor
    orbits: list[tuple[Fraction, list[Einsum]]] = []
    while left:
        first, factor = next(iter(left.items()))
        members = list(dict.fromkeys(_permuted(first, axes)))
        if any(left.pop(member, None) != factor for member in members):
            return carried, []
        orbits.append((factor, members))
    return carried, orbits


def _one_axis(term: Expr) -> Einsum | None:
    """The product with its tangents along one axis of the groups, read by the labels of the product."""
    if not isinstance(term, Einsum):
        return None
    operands = []
    for operand, labels in term.operands:
        if any(axis.is_group for axis in operand.axes):
            if not isinstance(operand, Input):
                return None
            slots = tuple(replace(a, primes=0) if a.is_group else a for a in operand.slots)
            operand = Input(operand.family, operand.index, slots, operand.role)
        operands.append((operand, labels))
    product = einsum(operands, term.out)
    return product if isinstance(product, Einsum) else None


def _permuted(product: Einsum, axes: tuple[Axis, ...]) -> Iterator[Einsum]:
    """The product with the axes of the groups in every order."""
    for order in permutations(axes):
        table = dict(zip(axes, order, strict=True))
        operands = [(expr, tuple(table.get(a, a) for a in labels)) for expr, labels in product.operands]
        permuted = einsum(operands, axes)
        assert isinstance(permuted, Einsum)
        yield permuted
