"""Sections of an equation sheet on curvature: blocks of every kind, blocks of weights, products."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from sifrc.catalogue.registry import BLOCK_OPERATORS
from sifrc.derive.curvature.kinds import EXACT_WHEN, KINDS, Kind, kind_of
from sifrc.derive.system import System
from sifrc.errors import DerivationError
from sifrc.report.book import Book, meanings_of, not_derived, symbol_of
from sifrc.report.elimination import STATUS
from sifrc.report.grouping import Line
from sifrc.report.layout import Symbol
from sifrc.report.sheet import Section
from sifrc.spec.types import Spec

__all__ = ["Legend", "block_section", "curvature_sections", "listed_kinds"]

_DEFAULTS = ("hessian", "pch1")
"""Presets that stand for all of them where operators on blocks are asked for without a list."""

_BAR = "\u0304"
_MIXED = re.compile(f"E\\d+{_BAR}?")
_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "x\u0303": "target",
        "t\u0303": "target",
        "J": "slopes",
        "Jˣ": "slopes",
        "M": "output",
        "S": "scores",
        "Sᶜ": "scores",
        "T": "scores",
        "Tᶜ": "scores",
        "H": "blocks",
        f"H{_BAR}": "blocks",
        "H°": "output",
        f"H°{_BAR}": "output",
        "ρ": "residual",
        f"ρ{_BAR}": "residual",
        "A": "moments",
        f"m{_BAR}": "moments",
        "∇²W": "weights",
        "BN": "product",
        "Bη": "product",
    }
)
"""Family -> label of its rows, in the order in which they stand."""
_ORDER = tuple(_LABELS)

_MEANINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("H", f"H{_BAR}"), "H_k is the block of the pre-activation a_k for one sample, H̄_k that of the batch."),
    (
        (f"H{_BAR}", "A", f"m{_BAR}"),
        "H̄_k, A_k and symbols with a bar are means over the batch: what depends on the sample on the "
        "right of their equations is averaged. The mean of diag(f) M diag(f) is M ∘ E[f fᵀ], as in "
        "EA-CG(6).",
    ),
    (("ρ", f"ρ{_BAR}"), "ρ_k is the diagonal of the residual term, that with the second derivative of F_k."),
    (
        ("H°", f"H°{_BAR}"),
        "The mark ° is for the block of the output with its negative eigenvalues; abs and positive part "
        "act on eigenvalues.",
    ),
    (
        ("E1",),
        "E1_k is the second derivative by a_k and x_{k−1}, a state that later layers read too; E2_k "
        "that by a_k and x_{k−2}, and so on.",
    ),
    (
        ("J", "Jˣ", "M"),
        "J_k = ∂a_n/∂a_k and Jˣ_k = ∂a_n/∂x_k; M is the block of a_n, and J_kᵀ M J_k that of a_k.",
    ),
    (("S", "T"), "S_k is ∂ℓ/∂x_k at the target of the kind, T_k that by a_k."),
    (
        ("Sᶜ", "Tᶜ"),
        "The rows of Sᶜ_k are the derivatives of ℓ by x_k for every class (entry of a Gaussian), "
        "times the root of its probability; those of Tᶜ_k by a_k.",
    ),
    (("x\u0303",), "t̃ is the class of the largest entry of x̃; ω is uniform between 0 and 1."),
    (("ε",), "ε is standard normal."),
    (("A", f"m{_BAR}"), "A_k and m̄_k are the second moment and the mean of the input of the layer k."),
    (("∇²W",), "The blocks of the weights are over (i, j) and (l, m): rows and columns of W_k."),
    (("BN",), "B is block-diagonal: the blocks of all weights and biases."),
    (("h",), "h_k is the diagonal of H_k."),
)
"""Families, any of which calls for the words."""

_SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "objective": "Second derivatives of the objective.",
        "loss": "Second derivatives of the loss alone, without state regularisation.",
        "fisher": "Outer products of the derivatives of the loss, averaged over the model's own targets.",
        "sampled": "Outer products of the derivatives of the loss at a target drawn from the model.",
        "empirical": "Outer products of the derivatives of the loss at the given target.",
    }
)
_RESIDUALS: Mapping[str, str] = MappingProxyType(
    {
        "dropped": "The residual term is dropped",
        "absolute": "The residual term is replaced by its absolute value, EA-CG(8b)",
        "clipped": "The residual term is replaced by its positive part, EA-CG(8b)",
    }
)
_OUTPUTS: Mapping[str, str] = MappingProxyType(
    {
        "absolute": "The block of the output is replaced by its absolute value, EA-CG(8a)",
        "positive": "The block of the output is replaced by its positive part, EA-CG(8a)",
    }
)
_LEFT = "So the block of the output is left as it is."


class Legend:
    """What symbols of curvature mean, each said once in a sheet."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def notes(self, systems: Iterable[System]) -> tuple[str, ...]:
        """Sentences on the symbols of the systems that were not explained before."""
        found = meanings_of(_MEANINGS, systems, lambda name: "E1" if _MIXED.fullmatch(name) else name)
        new = tuple(words for words in found if words not in self._said)
        self._said.update(new)
        return new


def listed_kinds(spec: Spec) -> tuple[Kind, ...]:
    """The kinds that a sheet shows: those of the spec, or two presets where only operators are asked for."""
    if spec.curvature:
        return tuple(kind_of(entry) for entry in spec.curvature)
    if any(name in BLOCK_OPERATORS for name in spec.target.operators):
        return tuple(KINDS[name] for name in _DEFAULTS)
    return ()


def curvature_sections(book: Book, kinds: tuple[Kind, ...], legend: Legend) -> list[Section]:
    """Blocks of each kind, then what is made of them; no kinds, no sections.

    Args:
        book: of the model.
        kinds: in order.
        legend: of the sheet.
    """
    if not kinds:
        return []
    curvature = book.derived.curvature
    forms = tuple(dict.fromkeys(kind.form for kind in kinds))
    exact = [form for form in forms if form != "batch"]

    def weights() -> list[System]:
        means = [curvature.mean_blocks(form) for form in exact]
        moments = [curvature.moments("second"), curvature.moments("mean")]
        return [*means, *moments, *(curvature.dense(form) for form in forms)]

    def products() -> list[System]:
        means = [curvature.product("batch", "second"), curvature.product("batch", "mean")]
        return [*(curvature.product(form, None) for form in exact), *means]

    sections = [block_section(book, kind, legend) for kind in kinds]
    sections.append(_section(book, "Moments, and blocks of the weights", weights, legend))
    sections.append(_section(book, "Products with the curvature blocks B(N, η)", products, legend))
    return sections


def block_section(book: Book, kind: Kind, legend: Legend) -> Section:
    """The blocks of the pre-activations, and when each rewrite of the kind changes nothing."""
    title = f"Curvature blocks of the pre-activations, kind {kind.name}"
    try:
        system = book.derived.curvature.blocks(kind)
    except DerivationError as error:
        return Section(title, (), (not_derived(error),))
    lines = list(_lines([system]))
    conditions = (
        f"Condition: {condition.text}: {STATUS.get(condition.status, condition.status)}. {_LEFT}"
        for condition in system.conditions
    )
    notes = (_SOURCES[kind.source], *_rewrites(kind), *conditions, *legend.notes([system]))
    return Section(title, book.rows(_sorted(lines)), notes)


def _section(book: Book, title: str, systems: Callable[[], Sequence[System]], legend: Legend) -> Section:
    try:
        found = systems()
    except DerivationError as error:
        return Section(title, (), (not_derived(error),))
    # Products of several kinds of moments have the same equations for the biases.
    lines = list(dict.fromkeys(_lines(found)))
    return Section(title, book.rows(_sorted(lines)), legend.notes(found))


def _rewrites(kind: Kind) -> Iterator[str]:
    """What a kind replaces, each with when that changes nothing."""
    if kind.source == "fisher":
        yield f"It is exact for {EXACT_WHEN['fisher']}."
    if kind.factored:
        return
    if kind.expectation:
        yield f"E[A ∘ C] is replaced by E[A] ∘ E[C], EA-CG(5, 6): exact for {EXACT_WHEN['expectation']}."
    if kind.residual == "dropped":
        yield f"{_RESIDUALS['dropped']}: exact for {EXACT_WHEN['dropped']}."
    elif kind.residual != "kept":
        yield f"{_RESIDUALS[kind.residual]}: exact for {EXACT_WHEN['residual']}."
    if kind.output != "kept":
        yield f"{_OUTPUTS[kind.output]}: exact for {EXACT_WHEN['output']}."


def _lines(systems: Iterable[System]) -> Iterator[Line]:
    for system in systems:
        for e in system.equations:
            label = _LABELS.get(e.symbol.family, "mixed")
            yield Line(symbol_of(e.symbol), (e.value,), e.layer, e.source, label)


def _sorted(lines: list[Line]) -> list[Line]:
    """The lines by family."""

    def place(line: Line) -> int:
        assert isinstance(line.left, Symbol)
        return _ORDER.index(line.left.family) if line.left.family in _LABELS else len(_ORDER)

    return sorted(lines, key=place)
