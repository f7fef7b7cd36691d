"""The section of an equation sheet on the Newton direction of one sample."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from sifrc.derive.acceptance import accept
from sifrc.derive.newton import Newton
from sifrc.derive.system import abbreviate
from sifrc.errors import DerivationError
from sifrc.ir import Input, Role
from sifrc.ir.build import negative, scale, subtract, total
from sifrc.ir.normal import expand
from sifrc.ir.traverse import inputs_of
from sifrc.report.book import Book, not_derived, symbol_of
from sifrc.report.elimination import condition_notes, step_notes
from sifrc.report.grouping import Line
from sifrc.report.layout import Symbol
from sifrc.report.sheet import Section

__all__ = ["newton_section"]

_TITLE = "Newton direction of one sample"
_WHITE = "White layer: an identity layer before the input, k = 0, regularised with λ_0, fixes N_1."
_NO_WHITE = "Without a white layer no equation fixes N_1; zero has the least norm."


def newton_section(book: Book, required: bool) -> Section:
    """The closed form with its elimination and conditions, or why there is none.

    Args:
        book: of the model.
        required: raise instead of saying why there is none.

    Raises:
        DerivationError: ``required``, and a precondition fails.
    """
    try:
        newton = book.derived.exact_newton
    except DerivationError as error:
        if required:
            raise
        return Section(_TITLE, (), (not_derived(error),))
    rows = book.rows(list(_lines(newton)))
    diagonal = len(newton.output_equation[0].axes) == 1 and any(row.left.text.startswith("M") for row in rows)
    outcome = f"zero ({accept(newton)})"
    notes = (
        _WHITE if newton.white_layer else _NO_WHITE,
        *(("M_n is a diagonal matrix, given by its diagonal.",) if diagonal else ()),
        *step_notes(newton, book.names),
        *condition_notes(newton, book.names),
        f"Substituted into the tetrad: {outcome}.",
    )
    return Section(_TITLE, rows, notes)


def _lines(newton: Newton) -> Iterator[Line]:
    """N_k and η_k, the granular part v_n, and the matrix of its linear system."""
    first = newton.second.first
    model, short = first.model, first.short
    directions = newton.second.directions
    last = model.parameters[-1]
    for owned in model.parameters:
        value = expand(short(newton.weights[owned.index]))
        yield Line(symbol_of(directions[owned.weight]), (value,), owned.index, "ESN(17)", "Newton")
    for owned in model.parameters:
        assert owned.bias is not None
        symbol = directions[owned.bias]
        # bias_conditions holds N_k x_{k−1} + η_k, without the granular part.
        applied = expand(subtract(symbol, newton.bias_conditions[owned.index]))
        value = expand(short(newton.biases[owned.index]))
        if owned is last:
            granular = Input("v", owned.index, value.axes, Role.TANGENT)
            rest = expand(subtract(value, short(newton.granular)))
            applied, value = (total([granular, part], value.axes) for part in (applied, rest))
        values = (value,) if value is applied else (applied, value)
        yield Line(symbol_of(symbol), values, owned.index, "ESN(17)", "Newton")
    matrix = short(newton.output_equation[0])
    name = Input("M", last.index, matrix.axes, Role.TANGENT)
    value = abbreviate([short(newton.granular)], {matrix: negative(name)})[0]
    yield Line(Symbol("v", last.index), (value,), last.index, "ESN(17)", "granular")
    if name in inputs_of(value):
        yield Line(symbol_of(name), (scale(Fraction(-1), matrix),), last.index, "", "granular")
