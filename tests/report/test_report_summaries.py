"""Sections on summaries and the step of grouped Newton: they mean what is computed, and LaTeX parses."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CASES
from layouts import Entries, Reader, as_matrix
from mathtext_formulas import parsed
from networks import SKIP, chain, derived, known_sheet
from test_report_sheet import UPDATE, balanced

from sifrc.derive.derived import Derived
from sifrc.derive.system import Equation
from sifrc.ir import Add
from sifrc.ir.build import add
from sifrc.ir.evaluate import evaluate
from sifrc.ir.traverse import inputs_of
from sifrc.report.book import Book, names_of, symbol_of
from sifrc.report.layout import Indexed, Named, children_of
from sifrc.report.notation import Notation
from sifrc.report.prose import prose_latex
from sifrc.report.sheet import EquationSheet
from sifrc.report.summaries import SUMMARIES, _lines
from sifrc.report.symbols import symbol_latex, symbol_text
from sifrc.report.uniform import Uniform

GOLDEN = Path(__file__).parent / "golden"
CHAIN = chain("tanh", 4, loss="cross_entropy")
ADAM = {"name": "grouped_newton", "direction": "adam", "regularization": "ridge", "interactions": "diagonal"}
ASKED = {"backend": "torch", "operators": ["summary"]}
NETWORKS: dict[str, Any] = {
    "grouped": {**CHAIN, "method": "grouped_newton"},
    "grouped_skip": {**SKIP, "partition": "weights-biases", "method": ADAM},
    "grouped_discrete": {**chain("tanh", 3, last=True), "partition": "discrete", "target": ASKED},
}


def sheet_of(case: Any, summaries: bool | None = None) -> EquationSheet:
    return known_sheet(case, newton=False, summaries=summaries)


def titles(case: Any, summaries: bool | None = None) -> list[str]:
    found = [section.title for section in sheet_of(case, summaries).sections]
    return found[found.index("Gauss–Newton–vector product C(N, η) of the data loss") + 1 :]


@pytest.mark.parametrize("suffix", ["txt", "tex"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_sections_are_the_golden_file(name: str, suffix: str) -> None:
    """Rewrite the files with SIFRC_UPDATE_GOLDEN=1 after a change that is meant."""
    sheet = sheet_of(NETWORKS[name])
    start = [section.title for section in sheet.sections].index(SUMMARIES)
    sheet = EquationSheet(sheet.title, sheet.sections[start:])
    written = sheet.text(120) if suffix == "txt" else sheet.latex()
    file = GOLDEN / f"{name}.{suffix}"
    if os.environ.get(UPDATE):
        file.write_text(written, encoding="utf-8")
    assert written == file.read_text(encoding="utf-8")


# ── the notation means what is computed ───────────────────────────────────────────────────────────────


def values_of(equation: Equation) -> dict[Any, Any]:
    """Random values; tangents have the same along every axis of the groups."""
    rng = np.random.default_rng(7)
    known: dict[Any, Any] = {}
    values: dict[Any, Any] = {}
    for symbol in sorted(inputs_of(equation.value), key=lambda s: (s.family, s.index or 0, s.key)):
        place = (symbol.family, symbol.index)
        if place not in known:
            known[place] = rng.uniform(0.2, 0.9, tuple(axis.size for axis in symbol.axes))
        values[symbol] = known[place]
    return values


def agree(work: Derived, equation: Equation) -> bool:
    """The printed line against the equation; whether it is written entry by entry."""
    book = Book(work, names_of(work.model), Uniform(work.model))
    system = work.summaries.tensor
    (line,) = _lines(book, "", replace(system, equations=(equation,)))
    plain = next(iter(book.uniform.line(replace(line, values=(equation.value,))).values))
    values = values_of(replace(equation, value=plain))
    expected = evaluate({"value": plain}, values)["value"]
    left, right = line.left, line.tail[0] if line.tail else None
    if right is None:
        left, right = Notation(equation.layer or 0, book.names.activations).sides(
            symbol_of(equation.symbol), plain
        )
    named = {(s.family, s.index): v for s, v in values.items()}
    reader = Reader(named, book.names.activations, work.summaries.groups.size or 0)
    if isinstance(left, Indexed):
        found = Entries(reader).array(right, left.labels)
        assert np.allclose(found, expected, rtol=1e-9, atol=1e-12), equation.symbol.name
        return True
    assert left == symbol_of(equation.symbol)
    if expected.ndim < 3:
        found = np.broadcast_to(reader.value(right), np.shape(as_matrix(expected)))
        assert np.allclose(found, as_matrix(expected), rtol=1e-9, atol=1e-12), equation.symbol.name
    else:
        assert right == symbol_of(next(iter(inputs_of(equation.value))))
    return False


@pytest.mark.parametrize(
    ("name", "partition"),
    [
        ("tanh_cross_entropy_3", "canonical"),
        ("skip", "weights-biases"),
        ("shared_skip", "canonical"),
        ("custom_curved", "weights-biases"),
        ("output_tanh", "blocks-1"),
        ("spectral", "canonical"),
    ],
)
def test_summaries_have_the_value_of_their_expressions(name: str, partition: str) -> None:
    """Every equation, in matrix or in index notation; ``sym`` is written out by the reader."""
    work = derived({**CASES[name], "partition": partition})
    summaries = work.summaries
    systems = [*summaries.along_direction(None), *summaries.along_direction(3)]
    entries = [agree(work, equation) for system in systems for equation in system.equations]
    assert any(entries) and not all(entries)


def test_terms_that_are_no_permutations_of_each_other_are_all_written() -> None:
    """With one of the terms missing or doubled nothing is abbreviated, and it is still right."""
    work = derived(CASES["tanh_cross_entropy_3"])
    book = Book(work, names_of(work.model), Uniform(work.model))
    system = work.summaries.tensor
    equation = system.equations[0]
    assert isinstance(equation.value, Add)
    whole = equation.value.terms
    first = next(n for n, (_, term) in enumerate(whole) if "ḃ" in {s.family for s in inputs_of(term)})
    rest = (*whole[:first], *whole[first + 1 :])
    for terms in (rest, ((2 * whole[first][0], whole[first][1]), *rest)):
        changed = replace(equation, value=add(terms, equation.value.axes))
        (line,) = _lines(book, "", replace(system, equations=(changed,)))
        assert line.values and not line.tail
        agree(work, changed)
    (line,) = _lines(book, "", replace(system, equations=(equation,)))
    assert any(isinstance(part, Named) for layout in line.tail for part in children_of(layout))


# ── which sections there are ──────────────────────────────────────────────────────────────────────────


def test_only_what_asks_for_summaries_has_a_section_on_them() -> None:
    assert titles(CHAIN) == []
    assert titles({**CHAIN, "method": "mk"}) == []
    assert titles({**CHAIN, "target": ASKED}) == [SUMMARIES]
    assert titles({**CHAIN, "method": "grouped_newton"}) == [SUMMARIES, "Step of grouped_newton"]


def test_the_section_can_be_asked_for_and_left_out() -> None:
    assert titles(CHAIN, summaries=True) == [SUMMARIES]
    assert titles({**CHAIN, "method": "grouped_newton"}, summaries=False) == ["Step of grouped_newton"]


def test_the_papers_equations_are_named() -> None:
    rows = {
        row.left.text.partition("_")[0].partition("[")[0]: row.sources
        for section in sheet_of(NETWORKS["grouped"]).sections[-2:]
        for row in section.equations
    }
    expected = {"ḡ": "GN3(9)", "H\u033f": "GN3(9)", "D\u0304": "GN3(6)", "T\u0304": "GN3(6)", "W": "GN3(8)"}
    assert {name: rows[name] for name in expected} == expected
    assert rows["η\u0302¹"] == "GN3(10)" and rows["N"] == "GN3 Alg. 4"


def test_a_method_that_cannot_step_says_why() -> None:
    """The discrete partition has summaries and no step."""
    sheet = sheet_of({**CHAIN, "partition": "discrete", "method": "grouped_newton"})
    assert sheet.section(SUMMARIES).equations
    assert "discrete partition" in sheet.section("Step of grouped_newton").notes[0]


def test_summaries_of_twelve_layers_print_in_as_many_lines_as_six() -> None:
    deep, short = (
        sheet_of({**chain("tanh", depth), "partition": "blocks-2", "method": "grouped_newton"})
        for depth in (12, 6)
    )
    for ours, theirs in zip(deep.sections[-2:], short.sections[-2:], strict=True):
        assert [row.left.text for row in ours.equations] == [row.left.text for row in theirs.equations]


# ── LaTeX ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", NETWORKS)
def test_formulas_parse_as_tex_mathematics(name: str) -> None:
    least = (r"\operatorname*{arg\,min}", r"\operatorname{argmin}")
    assert parsed(sheet_of(NETWORKS[name]), least, (r"\_", "")) > 20


@pytest.mark.parametrize("name", NETWORKS)
def test_latex_is_ascii_and_closes_what_it_opens(name: str) -> None:
    code = sheet_of(NETWORKS[name]).latex()
    assert code.isascii()
    assert balanced(code)
    assert not re.search(r"\^\{[^{}]*\}(_\{[^{}]*\})?\^", code.replace(r"\left", "")), "two exponents"


SYMBOLS = {
    "Nx": ("(Nx)", "(Nx)"),
    "Nᵀy": ("(Nᵀy)", r"(N^{\top}y)"),
    "Nᵀy2": ("(Nᵀy2)", r"(N^{\top}y2)"),
    "1W": ("1W", r"\mathbf{1}^{W}"),
    "H\u033f": ("H\u033f", r"\bar{\bar{H}}"),
    "H\u033f∑": ("H\u033f∑", r"\bar{\bar{H}}^{\Sigma}"),
    "ḡ": ("ḡ", r"\bar{g}"),
    "ẍ": ("ẍ", r"\ddot{x}"),
    "ä": ("ä", r"\ddot{a}"),
    "η\u0302": ("η\u0302", r"\hat{\eta}"),
    "w₁+": ("w₁⁺", "w_{1}^{+}"),
    "rate_momentum": ("rate_momentum", r"\mathrm{rate\_momentum}"),
    "beta1": ("beta1", r"\mathrm{beta1}"),
}


@pytest.mark.parametrize("family", SYMBOLS)
def test_marks_and_greek_of_symbols(family: str) -> None:
    assert (symbol_text(family), symbol_latex(family)) == SYMBOLS[family]


def test_symbols_of_summaries_in_sentences() -> None:
    assert prose_latex("1W_k, (Nx)_k and H\u033f∑_k") == (
        r"\ensuremath{\mathbf{1}^{W}_{k}}, \ensuremath{(Nx)_{k}} and \ensuremath{\bar{\bar{H}}^{\Sigma}_{k}}"
    )
