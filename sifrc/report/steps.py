"""The section of an equation sheet on the step of a method: on curvature blocks, or grouped Newton."""

from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType

from sifrc.derive.curvature.kinds import KINDS, Kind
from sifrc.derive.curvature.systems import FACTORED
from sifrc.derive.system import Equation
from sifrc.errors import DerivationError, MethodError
from sifrc.ir import Expr, Input, Map, Role
from sifrc.ir.build import apply
from sifrc.ir.traverse import inputs_of
from sifrc.methods.base import StepPlan, read_options
from sifrc.methods.ea_cg import CurvatureBlocks
from sifrc.methods.grouped_newton import GroupedNewton
from sifrc.methods.rates import step_of
from sifrc.methods.registry import METHODS
from sifrc.report.book import Book, lines_of, not_derived, symbol_of
from sifrc.report.curvature import Legend, block_section
from sifrc.report.grouping import Line
from sifrc.report.sheet import Section
from sifrc.spec.types import OptionValue, Spec

__all__ = ["step_sections"]

_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "mean_blocks": "mean",
        **{f"mean_blocks_of_{form}": "mean" for form in FACTORED},
        "second_moments": "moments",
        "mean_moments": "moments",
        "averages": "averages",
        "direction": "direction",
        "rates": "rates",
        "update": "step",
    }
)
"""System of a step -> label of its rows; the others are written elsewhere in the sheet."""

_STEP = (
    "D_k and Dβ_k are the directions, V_k and Vβ_k their momentum. In the step the left side is the new "
    "value, the same symbol on the right the old one."
)
_AVERAGES = (
    "A tilde is a moving average, the mark ⁺ its new value; w̃ is the sum of the weights in it, so that the "
    "first ones are not too small."
)
_ITERATED = (
    "Conjugate gradients start from zero and end after cg_iterations, or at the relative residual "
    "cg_tolerance; D#_k and D≈_k (Dβ#_k and Dβ≈_k) are the iterations made and the relative residual left."
)
_EIGENVALUES = (
    "h̄_k and ā_k are the mean eigenvalues (trace over size) of the block of a_k and of the moment of the "
    "inputs; π² = ā_k/h̄_k, and 1 where one of them is zero. D½_k is halfway between G_k and D_k."
)
_GROUPED = (
    "(N, η) is the direction u, η̂ the minimiser of the regularised model of the objective, ρ_s the rates of "
    "the groups and η̃ those of the step before. begun is 0 in the first step and 1 after it. In the step the "
    "left side is the new value, the same symbol on the right the old one."
)
_MOMENTA = "V_k and Vβ_k are the moving averages of the gradients G_k and g_k."
_ADAM = (
    "MW_k, Mβ_k, SW_k and Sβ_k are the moving averages of the gradients and of their squares, w₁ and w₂ the "
    "sums of the weights in them; the mark ⁺ is for the new value."
)
_ROWS, _COLUMNS = "h\u0304", "a\u0304"


_UNIT = (
    "The mark ¹ is for directions u_s / ς_s, ς_s the power of two below the size of u_s, which is the sum of "
    "the largest magnitudes of its tensors: ḡ¹_s = ḡ_s/ς_s, H̿¹_st = H̿_st/(ς_s ς_t) and D̄¹_s = D̄_s/ς_s³ do "
    "not vanish where u does."
)


def step_sections(book: Book, shown: tuple[Kind, ...], legend: Legend) -> list[Section]:
    """The step of the spec's method where it uses summaries, or blocks: after their kind if that is new.

    Args:
        book: of the model.
        shown: kinds that have a section.
        legend: of the sheet.
    """
    spec = book.model.spec
    method = METHODS.get(spec.method.name) if spec.method is not None else None
    if spec.method is None or not isinstance(method, CurvatureBlocks | GroupedNewton):
        return []
    options: Mapping[str, OptionValue] = MappingProxyType({})
    try:
        options = read_options(method, spec.method)
        plan = step_of(method, book.derived, options)
    except (DerivationError, MethodError) as error:
        return [Section(_title(spec, options), (), (not_derived(error),))]
    if isinstance(method, GroupedNewton):
        return [_grouped(book, plan, options)]
    kind = KINDS.get(str(options["kind"]))
    sections = [] if kind is None or kind in shown else [block_section(book, kind, legend)]
    written = {"moments"} if shown else set()
    written |= {"mean" for known in shown if known.form != "batch"}
    return [*sections, _step(book, plan, options, written, legend)]


def _title(spec: Spec, options: Mapping[str, OptionValue]) -> str:
    name = spec.method.name if spec.method is not None else ""
    return f"Step of {name}" + (f", solver {options['solver']}" if "solver" in options else "")


def _grouped(book: Book, plan: StepPlan, options: Mapping[str, OptionValue]) -> Section:
    """Direction, rates and step of grouped Newton; the summaries have a section of their own."""
    systems = [system for system, _ in plan.systems if system.name in ("direction", "rates", "update")]
    lines = [line for system in systems for line in lines_of(system, _LABELS[system.name])]
    averages = {"momentum": (_MOMENTA,), "adam": (_ADAM,)}
    notes = (
        *plan.notes,
        *averages.get(str(options["direction"]), ()),
        *_periodic(options, "Summaries and rates"),
        _GROUPED,
        *(() if options["regularization"] == "ridge" else (_UNIT,)),
    )
    return Section(_title(book.model.spec, options), book.rows(lines), notes)


def _periodic(options: Mapping[str, OptionValue], what: str) -> tuple[str, ...]:
    period = options["period"]
    return (f"{what} are computed every {period} steps.",) if period != 1 else ()


def _step(
    book: Book, plan: StepPlan, options: Mapping[str, OptionValue], written: Set[str], legend: Legend
) -> Section:
    """The equations of the step, without those under labels that are written before."""
    labels = {name: label for name, label in _LABELS.items() if label not in written}
    systems = [system for system, _ in plan.systems if system.name in labels]
    lines = [
        Line(symbol_of(e.symbol), (_with_mean_eigenvalues(e),), e.layer, e.source, labels[system.name])
        for system in systems
        for e in system.equations
    ]
    averaged = any(system.name == "averages" for system in systems)
    notes = (
        *plan.notes,
        *legend.notes(systems),
        *((_AVERAGES,) if averaged else ()),
        *((_ITERATED,) if options["solver"] in ("ea_cg", "cg") else ()),
        *((_EIGENVALUES,) if options["solver"] == "kfi" else ()),
        *_periodic(options, "Blocks and moments"),
        _STEP,
    )
    return Section(_title(book.model.spec, options), book.rows(lines), notes)


def _with_mean_eigenvalues(equation: Equation) -> Expr:
    """The value, with symbols for the mean eigenvalues that π of EA-CG(12) is made of.

    They have the sizes of the layers in them; with symbols in their place layers of all sizes share
    one equation.
    """
    value = equation.value
    if not isinstance(value, Map) or value.function.name != "ratio":
        return value
    parts = [
        expr if isinstance(expr, Input) else Input(_mean_of(expr), equation.layer, (), Role.DIRECTION)
        for expr, _ in value.operands
    ]
    return apply(value.function, *parts)


def _mean_of(expr: Expr) -> str:
    """The family of the mean eigenvalue of a factor: of the block, or of the moment."""
    (factor,) = inputs_of(expr)
    return _ROWS if factor.family.startswith("H") else _COLUMNS
