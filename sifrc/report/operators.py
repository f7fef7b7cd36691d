"""Equations of the operators that a spec asks for, where no other part of the sheet has them."""

from __future__ import annotations

from collections.abc import Sequence

from sifrc.catalogue.context import Context, Declaration, OperatorSet, available_kinds
from sifrc.catalogue.derivatives import DERIVATIVES
from sifrc.catalogue.registry import declared_by, operator_sets
from sifrc.catalogue.summaries import SUMMARIES
from sifrc.derive.curvature.kinds import Kind
from sifrc.errors import SifrcError
from sifrc.report.book import Book, not_derived, symbol_of
from sifrc.report.grouping import Line
from sifrc.report.sheet import Section

__all__ = ["operator_sections"]

_ELSEWHERE = frozenset(one.name for each in (DERIVATIVES, SUMMARIES) for one in each.operators) | {
    "block_hessian",
    "curvature_factors",
    "gradient_and_factors",
    "block_vector_product",
}
"""Operators whose equations are those of other sections."""


def operator_sections(book: Book, kinds: Sequence[Kind]) -> list[Section]:
    """A section for each operator that brings systems of its own.

    Args:
        book: of the model.
        kinds: of curvature that the sheet shows.
    """
    names = book.model.spec.target.operators
    sets = operator_sets(names)
    wanted = [one for one in declared_by(names, sets, book.model.spec) if one.name not in _ELSEWHERE]
    return [_section(book, one, kinds, sets) for one in wanted]


def _section(book: Book, one: Declaration, kinds: Sequence[Kind], sets: Sequence[OperatorSet]) -> Section:
    title = one.doc.rstrip(".")
    try:
        context = Context(book.derived, available_kinds(book.derived, kinds) if one.uses_kinds else ())
        record = one.build(one, context)
        cases = [case for kind, _ in record.starts() for case in record.fitting(kind)]
        names = dict.fromkeys(name for case in cases for name in case.functions)
        rows = {row.name: row for each in sets for row in each.systems(context, names) if row.name in names}
        systems = [rows[name].derive() for name in names if name != "gradient"]
    except SifrcError as error:
        return Section(title, (), (not_derived(error),))
    lines = [
        Line(symbol_of(e.symbol), (e.value,), e.layer, e.source, system.name.replace("_", " "))
        for system in systems
        for e in system.equations
        if e.layer is not None or e.symbol.index is None  # sums of these, by number
    ]
    return Section(title, book.rows(lines), ())
