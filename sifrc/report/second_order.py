"""Sections of an equation sheet: the Sifrian, its equations, and products with H and C."""

from __future__ import annotations

from fractions import Fraction

from sifrc.derive.shaped import GRADIENT
from sifrc.derive.system import abbreviate
from sifrc.ir import Expr, Input
from sifrc.report.book import Book, derivative_line, lines_of, symbol_of
from sifrc.report.grouping import Line
from sifrc.report.layout import ZERO, Layout, Symbol, sum_of
from sifrc.report.sheet import Section

__all__ = ["gauss_newton_section", "second_order_sections"]

_SIGN = (
    "Along a direction (N, η): ζ_k = −ẋ_k and γ_k = −ḃ_k. It is a Newton direction where (1) and (2) hold."
)


def second_order_sections(book: Book) -> list[Section]:
    """From the Sifrian to the Hessian–vector product."""
    second = book.derived.second
    sifrian = abbreviate([second.sifrian], book.derived.first.names)[0]
    forward = lines_of(second.tangent, "Sifrian (4)")
    backward = lines_of(second.adjoint_tangent, "Sifrian (3)")
    product = lines_of(second.product, "H·(N, η)")
    solved = (*book.rows(forward), *book.rows([*backward, *book.uniform.definitions("γ", "Sifrian (3)")]))
    where = "u_k = ∂S/∂y_k and z_k = ∂S/∂a_k."
    return [
        Section("Sifrian", (book.scalar("Sifrian", Symbol("S"), sifrian, "ESN(11)", sifrian=True),)),
        Section("The four equations of the Sifrian", book.rows(_tetrad(book)), (_SIGN, where)),
        Section("Equations (4) and (3) solved: forward, then backward in k", solved),
        Section("Hessian–vector product H(N, η)", book.rows(product)),
    ]


def _tetrad(book: Book) -> list[Line]:
    """Derivatives of the Sifrian as they are, before anything is solved."""
    second, model = book.derived.second, book.model

    lines: list[Line] = []

    def put(number: int, by: Input, value: Expr, layer: int, right: Layout = ZERO) -> None:
        short = abbreviate([value], second.names)[0]
        source, name = f"ESN(16.{number})", f"Sifrian ({number})"
        lines.append(derivative_line("S", by, short, layer, source, name, right))

    for number, place in ((1, 0), (2, 1)):
        for owned in model.parameters:
            pairs = GRADIENT.pairs(owned)
            if place < len(pairs):
                symbol, gradient = pairs[place]
                minus = sum_of(((Fraction(-1), symbol_of(gradient)),))
                put(number, symbol, second.by_parameter[symbol], owned.index, minus)
    for number, nodes in ((3, second.by_state), (4, second.by_adjoint)):
        for c in model.constraints:
            by = c.state if number == 3 else book.derived.first.adjoints[c.index]
            put(number, by, nodes[c.index], c.index)
    return lines


def gauss_newton_section(book: Book) -> Section:
    """The product with the Gauss–Newton matrix, from the Lagrangian of the linearised model."""
    gauss = book.derived.gauss_newton
    nodes: dict[Expr, Expr] = dict(book.derived.first.names)
    nodes.update({e.value: e.symbol for e in gauss.tangent.equations if e.symbol.family == "da"})
    lagrangian = abbreviate([gauss.lagrangian], nodes)[0]
    adjoint = [*lines_of(gauss.adjoint, "its adjoint"), *book.uniform.definitions("c", "its adjoint")]
    return Section(
        "Gauss–Newton–vector product C(N, η) of the data loss",
        (
            book.scalar("Lagrangian", Symbol("L_G"), lagrangian),
            *book.rows(lines_of(gauss.tangent, "linearised")),
            *book.rows(adjoint),
            *book.rows(lines_of(gauss.product, "C·(N, η)")),
        ),
        ("r is ∂²ℓ/∂x_n² ẋ_n, held constant in L_C.",),
    )
