"""Equations for generic k: lines that are equal up to a shift become one line with a range.

The boundary cases stay lines of their own, with n in place of the number where they are about the output.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from sifrc.ir import Expr
from sifrc.ir.normal import terms_of
from sifrc.ir.traverse import inputs_of
from sifrc.report.generic import generic_key
from sifrc.report.indices import NUMBERS, Naming, range_text
from sifrc.report.latex import latex, range_latex, term_codes
from sifrc.report.layout import (
    Equal,
    Layout,
    Mean,
    Sum,
    Symbol,
    Total,
    indices_of,
    sum_of,
    symbols_of,
)
from sifrc.report.notation import Notation
from sifrc.report.sheet import Formula, Row
from sifrc.report.text import text
from sifrc.scalar import ScalarFunction

__all__ = ["Group", "Line", "Names", "grouped", "is_long", "naming_of", "rows_of", "total_over_layers"]

_MOST_TERMS, _MOST_SYMBOLS = 48, 400
_ANCHORS = ("ζ", "γ", "N", "η", "c", "b", "λ")


@dataclass(frozen=True)
class Names:
    """What indices are called in one model.

    Args:
        depth: the number of constraints.
        chain: whether constraints and layers with parameters are numbered alike; only then the last
            index is written n.
        activations: k -> F_k.
        shared: numbers of parameters that several layers use.
    """

    depth: int
    chain: bool
    activations: Mapping[int, ScalarFunction]
    shared: frozenset[int] = frozenset()

    def notation(self, layer: int) -> Notation:
        """What expressions of a layer are written with."""
        return Notation(layer, self.activations, self.shared)

    @property
    def last(self) -> int | None:
        """The index called n."""
        return self.depth if self.chain else None

    def naming(self, *layouts: Layout) -> Naming:
        """How the indices of a line print that stands alone: counted from n where it is about the output."""
        indices: frozenset[int] = frozenset().union(*(indices_of(layout) for layout in layouts))
        near = not indices or (
            max(indices) == self.depth and all(i >= self.depth - 2 or i == 0 for i in indices)
        )
        return self.whole if near else NUMBERS

    @property
    def whole(self) -> Naming:
        """How indices print in sums over all layers."""
        return Naming("n", self.depth, 2) if self.chain else NUMBERS


@dataclass(frozen=True)
class Line:
    """One equation of one layer, before grouping: left = values = tail.

    Args:
        left: what stands on the left.
        values: expressions that it equals.
        layer: k, or None for the whole network.
        source: equation of a paper, or ''.
        name: short label.
        tail: what follows the values, e.g. zero.
        averaged: whether the values are those of one sample, and the left is their mean.
    """

    left: Layout
    values: tuple[Expr, ...]
    layer: int | None
    source: str = ""
    name: str = ""
    tail: tuple[Layout, ...] = ()
    averaged: bool = False


@dataclass(frozen=True)
class Group:
    """Lines with one form.

    Args:
        lines: its members, in the order of the system.
        left: left side, of the first member.
        right: right side, of the first member.
    """

    lines: tuple[Line, ...]
    left: Layout
    right: Layout

    @property
    def members(self) -> tuple[int, ...]:
        """The layers."""
        return tuple(line.layer for line in self.lines if line.layer is not None)


def grouped(lines: Sequence[Line], names: Names) -> tuple[Group, ...]:
    """Lines that are equal up to a shift of all indices, together; families in order of appearance."""
    buckets: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        buckets.setdefault(_key(line, names), []).append(line)
    merged: dict[tuple[str, str, str], Group] = {}
    for key, members in buckets.items():
        left, right = sides(members[0], names)
        naming = Naming("k", members[0].layer or 0)
        # Sums that nobody reads to their end are not written to be compared.
        shown = repr(key) if is_long(right) else text(right, naming)
        written = (text(left, naming), shown, members[0].source)
        if members[0].layer is None:
            written = (*written[:2], f"{members[0].source} alone")
        known = merged.get(written) or Group((), left, right)
        merged[written] = replace(known, lines=(*known.lines, *members))
    position = {id(line): number for number, line in enumerate(lines)}
    families = list(dict.fromkeys(_family(line.left) for line in lines))

    def place(group: Group) -> tuple[int, bool, int]:
        first = group.lines[0]
        return families.index(_family(first.left)), len(group.lines) == 1, position[id(first)]

    return tuple(sorted(merged.values(), key=place))


def _key(line: Line, names: Names) -> tuple[str, ...]:
    layer = line.layer or 0
    left = text(line.left, Naming("k", layer))
    tail = tuple(text(part, Naming("k", layer)) for part in line.tail)
    scope = "all" if line.layer is None else "mean" if line.averaged else "layer"
    values = (generic_key(value, layer, names.shared) for value in line.values)
    return (scope, left, line.source, *values, *tail)


def _family(left: Layout) -> str:
    """The left side without its index."""
    if isinstance(left, Symbol):
        return left.family
    return text(left, Naming("k", min(indices_of(left), default=0)))


def sides(line: Line, names: Names) -> tuple[Layout, Layout]:
    """Notation of both sides of one line, with the indices of its layer."""
    context = names.notation(line.layer or 0)
    left = line.left
    parts: list[Layout] = []
    for value in line.values:
        left, right = context.sides(line.left, value)
        parts.append(Mean(right) if line.averaged else right)
    parts += line.tail
    return left, parts[0] if len(parts) == 1 else Equal(tuple(parts))


def rows_of(lines: Sequence[Line], names: Names) -> tuple[Row, ...]:
    """The lines as they are printed."""
    return tuple(row_of(group, names) for group in grouped(lines, names))


def is_long(layout: Layout) -> bool:
    """Whether a right side has more terms or symbols than anyone reads."""
    if isinstance(layout, Sum) and len(layout.terms) > _MOST_TERMS:
        return True
    return any(True for _ in itertools.islice(symbols_of(layout), _MOST_SYMBOLS, None))


def naming_of(group: Group, names: Names) -> tuple[Naming, str]:
    """How its indices print, generic or of a boundary case, and the range of the generic one."""
    first = group.lines[0]
    if len(group.lines) > 1 and first.layer is not None:
        return Naming("k", first.layer), range_text(group.members, names.last)
    return names.naming(group.left, group.right), ""


def row_of(group: Group, names: Names) -> Row:
    """One printed line: generic with a range, or a boundary case."""
    first = group.lines[0]
    naming, members = naming_of(group, names)
    return printed(first.name, (group.left, group.right), naming, members, first.source)


def printed(name: str, sides: tuple[Layout, Layout], naming: Naming, members: str, source: str) -> Row:
    """An equation as text and as LaTeX; ``members`` is the range of the layers that it holds for."""
    left, right = (Formula(text(side, naming), latex(side, naming)) for side in sides)
    right = replace(right, pieces=tuple(term_codes(sides[1], naming)))
    return Row(name, left, right, Formula(members, range_latex(members)), source)


def total_over_layers(
    expr: Expr, names: Names, rewrite: Callable[[Expr, str, int], Expr] = lambda term, family, index: term
) -> Layout:
    """A scalar sum over layers: terms that are equal up to a shift become one Σ over k.

    Args:
        expr: the sum.
        names: of the model.
        rewrite: may abbreviate a term, given the family and the index of its multiplier.
    """
    buckets: dict[tuple[str, Fraction, str], list[tuple[int, Expr]]] = {}
    for factor, own in terms_of(expr):
        family, anchor = _anchor(own)
        term = rewrite(own, family, anchor)
        buckets.setdefault((family, factor, generic_key(term, anchor, names.shared)), []).append(
            (anchor, term)
        )
    merged: dict[tuple[str, Fraction, str], tuple[list[int], Layout]] = {}
    for (family, factor, _), members in buckets.items():
        anchor, term = min(members, key=lambda member: member[0])
        body = names.notation(anchor).sides(Symbol("S"), term)[1]
        key = (family, factor, text(body, Naming("k", anchor)))
        indices, written_for = merged.get(key, ([], body))
        first = not indices or anchor < min(indices)
        merged[key] = ([*indices, *(index for index, _ in members)], body if first else written_for)
    written: list[tuple[tuple[int, bool, int, str], tuple[Fraction, Layout]]] = []
    for (family, factor, printed), (indices, body) in merged.items():
        alone = len(indices) == 1 or not family
        anchor = min(indices)
        layout = body if alone else Total(anchor, tuple(sorted(indices)), body)
        rank = len(_ANCHORS) if not family else _ANCHORS.index(family)
        written.append(((-rank, alone, anchor, printed), (factor, layout)))
    return sum_of(tuple(term for _, term in sorted(written, key=lambda item: item[0])))


def _anchor(term: Expr) -> tuple[str, int]:
    """The family of multipliers in a term, and the index of its member."""
    found: Iterable[tuple[str, int]] = [(s.family, s.index) for s in inputs_of(term) if s.index is not None]
    for family in _ANCHORS:
        indices = [index for name, index in found if name == family]
        if indices:
            return family, min(indices)
    return "", 0
