"""The derived equations of a model, in the order of the derivation."""

from __future__ import annotations

from sifrc.derive.derived import Derived
from sifrc.model import Model, build_model
from sifrc.report.book import Book, names_of
from sifrc.report.curvature import Legend, curvature_sections, listed_kinds
from sifrc.report.first_order import first_order_sections
from sifrc.report.newton import newton_section
from sifrc.report.operators import operator_sections
from sifrc.report.second_order import gauss_newton_section, second_order_sections
from sifrc.report.sheet import EquationSheet
from sifrc.report.steps import step_sections
from sifrc.report.summaries import summary_section, wants_summaries
from sifrc.report.uniform import Uniform
from sifrc.spec.types import Spec

__all__ = ["EquationSheet", "equations"]


def equations(
    source: Spec | Model | Derived,
    newton: bool | None = None,
    white_layer: bool = True,
    summaries: bool | None = None,
) -> EquationSheet:
    """Everything derived from one model, as equations.

    Curvature blocks are there where the spec asks for them: the kinds of ``curvature:``, the presets hessian
    and pch1 where an operator on blocks is requested without a list, and the kind of a method that uses
    blocks, with the equations of its step.

    Args:
        source: a spec, a model, or derivations already made (these have their own ``white_layer``).
        newton: whether to derive the closed-form Newton direction; None derives it where its
            preconditions hold and otherwise says why not.
        white_layer: whether an identity layer before the input fixes N_1.
        summaries: whether to show the summaries along a direction; None shows them where the spec asks
            for them, by its method or as an operator.

    Raises:
        ModelError: the spec has no meaning as a model.
        DerivationError: ``newton`` is true and a precondition fails.

    Example:
        >>> from sifrc.spec import parse_spec, starter_spec
        >>> sheet = equations(parse_spec(starter_spec("digits")), newton=False)
        >>> row = sheet.section("Gradient").equations[0]
        >>> print(row.left.text, "=", row.right.text, "  ", row.range.text, "  ", row.sources)
        G_k = −y_k x_{k−1}ᵀ    k = 1..n    ESN(10), MK(20)
    """
    if isinstance(source, Derived):
        derived = source
    else:
        derived = Derived(build_model(source) if isinstance(source, Spec) else source, white_layer)
    model = derived.model
    book = Book(derived, names_of(model), Uniform(model))
    sections = [*first_order_sections(book), *second_order_sections(book), gauss_newton_section(book)]
    if newton is not False:
        sections.append(newton_section(book, required=newton is True))
    kinds, legend = listed_kinds(model.spec), Legend()
    sections += curvature_sections(book, kinds, legend)
    if summaries or (summaries is None and wants_summaries(model.spec)):
        sections.append(summary_section(book))
    sections += operator_sections(book, kinds)
    sections += step_sections(book, kinds, legend)
    return EquationSheet(f"Equations of {model.spec.name}", tuple(sections))
