"""The section of an equation sheet on the step of a method that uses curvature blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from sifrc.derive.curvature.kinds import KINDS, Kind
from sifrc.derive.system import Equation, System
from sifrc.errors import DerivationError, MethodError
from sifrc.ir import Expr, Input, LinearSolve, Map
from sifrc.ir.traverse import postorder, substitute
from sifrc.methods.base import StepPlan, read_options
from sifrc.methods.ea_cg import CurvatureBlocks
from sifrc.methods.registry import METHODS
from sifrc.report.book import Book, not_derived, symbol_of
from sifrc.report.curvature import Legend, block_section
from sifrc.report.grouping import Line
from sifrc.report.sheet import Section
from sifrc.spec.types import OptionValue, Spec

__all__ = ["step_sections"]

_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "mean_blocks": "mean",
        "second_moments": "moments",
        "mean_moments": "moments",
        "averages": "averages",
        "direction": "direction",
        "update": "step",
    }
)
"""System of a step -> label of its rows; the others are written elsewhere in the sheet."""

_NEW = "On the left stand new values; the same symbols on the right have their old ones."
_CHECKED = "The block of the output is checked at run time: it must be positive semi-definite."
_ITERATED = (
    "Conjugate gradients start from zero and end after cg_iterations, or at the relative residual "
    "cg_tolerance; D#_k and D≈_k (Dβ#_k and Dβ≈_k) are the iterations made and the relative residual left."
)
_EIGENVALUES = (
    "h̄_k and ā_k are the mean eigenvalues of the factors of the block of W_k, so that π² = ā/h̄; "
    "(√α/π)_k and (√α π)_k damp them."
)
_ROWS, _COLUMNS = "h\u0304", "a\u0304"


def step_sections(book: Book, shown: tuple[Kind, ...], legend: Legend) -> list[Section]:
    """The step of the spec's method where it is one on curvature blocks, with its kind if it is not shown yet.

    Args:
        book: of the model.
        shown: kinds that have a section.
        legend: of the sheet.
    """
    spec = book.model.spec
    method = METHODS.get(spec.method.name) if spec.method is not None else None
    if spec.method is None or not isinstance(method, CurvatureBlocks):
        return []
    options: Mapping[str, OptionValue] = MappingProxyType({})
    try:
        options = read_options(method, spec.method)
        plan = method.step(book.derived, options)
    except (DerivationError, MethodError) as error:
        return [Section(_title(spec, options), (), (not_derived(error),))]
    kind = KINDS.get(str(options["kind"]))
    sections = [] if kind is None or kind in shown else [block_section(book, kind, legend)]
    return [*sections, _step(book, plan, options, legend)]


def _title(spec: Spec, options: Mapping[str, OptionValue]) -> str:
    name = spec.method.name if spec.method is not None else ""
    return f"Step of {name}" + (f", solver {options['solver']}" if options else "")


def _step(book: Book, plan: StepPlan, options: Mapping[str, OptionValue], legend: Legend) -> Section:
    systems = [system for system, _ in plan.systems if system.name in _LABELS]
    lines = [line for system in systems for line in _lines(system)]
    return Section(_title(book.model.spec, options), book.rows(lines), (*_notes(plan, systems, legend),))


def _lines(system: System) -> Iterator[Line]:
    for e in system.equations:
        value = substitute(e.value, _mean_eigenvalues(e))
        yield Line(symbol_of(e.symbol), (value,), e.layer, e.source, _LABELS[system.name])


def _mean_eigenvalues(equation: Equation) -> dict[Input, Expr]:
    return {}


def _notes(plan: StepPlan, systems: Iterable[System], legend: Legend) -> Iterator[str]:
    yield from plan.notes
    yield from legend.notes(systems)
