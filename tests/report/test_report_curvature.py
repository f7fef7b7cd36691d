"""Sections on curvature: the notation means what is computed, kinds say when they are exact, LaTeX parses."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CASES
from layouts import Reader, as_matrix
from mathtext_formulas import parsed
from networks import SKIP, chain, derived, known_sheet, named, values_of
from test_report_sheet import UPDATE, balanced

from sifrc.derive.curvature.kinds import EXACT_WHEN, KINDS
from sifrc.derive.curvature.systems import FACTORED
from sifrc.derive.derived import Derived
from sifrc.derive.system import Equation, System
from sifrc.errors import DerivationError
from sifrc.ir import LinearSolve
from sifrc.ir.evaluate import evaluate
from sifrc.ir.traverse import inputs_of, postorder
from sifrc.methods.base import read_options
from sifrc.methods.registry import METHODS
from sifrc.report.book import names_of, symbol_of
from sifrc.report.document import equations
from sifrc.report.layout import Solved
from sifrc.report.lines import describe_system
from sifrc.report.notation import Notation
from sifrc.report.prose import prose_latex
from sifrc.report.sheet import EquationSheet
from sifrc.report.symbols import symbol_latex, symbol_text
from sifrc.spec import build_spec
from sifrc.spec.types import MethodSpec

GOLDEN = Path(__file__).parent / "golden"
CHAIN = chain("tanh", 4, loss="cross_entropy")
NETWORKS: dict[str, Any] = {
    "curvature": {**CHAIN, "curvature": list(KINDS)},
    "curvature_output": {**chain("tanh", 3, last=True), "curvature": ["hessian", "pch2", "sampled_fisher"]},
    "curvature_skip": {**SKIP, "curvature": ["hessian", "pch1", "fisher"]},
    "ea_cg": {**CHAIN, "method": "ea_cg"},
    "kfi": {**CHAIN, "method": {"name": "ea_cg", "solver": "kfi", "decay": 0.9, "kind": "ggn", "period": 5}},
}
SOLVERS = [("ea_cg", "auto"), ("cg", "auto"), ("exact", "mean"), ("kfi", "second"), ("kfi", "mean")]


def sheet_of(case: Any) -> EquationSheet:
    return known_sheet(case, newton=False)


def titles(case: Any) -> list[str]:
    found = [section.title for section in sheet_of(case).sections]
    return found[found.index("Gauss–Newton–vector product C(N, η) of the data loss") + 1 :]


@pytest.mark.parametrize("suffix", ["txt", "tex"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_sections_are_the_golden_file(name: str, suffix: str) -> None:
    """Rewrite the files with SIFRC_UPDATE_GOLDEN=1 after a change that is meant."""
    whole = sheet_of(NETWORKS[name])
    first = len(whole.sections) - len(titles(NETWORKS[name]))
    sheet = EquationSheet(whole.title, whole.sections[first:])
    written = sheet.text(120) if suffix == "txt" else sheet.latex()
    file = GOLDEN / f"{name}.{suffix}"
    if os.environ.get(UPDATE):
        file.write_text(written, encoding="utf-8")
    assert written == file.read_text(encoding="utf-8")


# ── what is printed means what is computed ────────────────────────────────────────────────────────────


def curvature_systems(work: Derived) -> list[System]:
    """All that is printed in matrix notation."""
    found = []
    for kind in KINDS.values():
        try:
            found.append(work.curvature.blocks(kind))
        except DerivationError:
            assert kind.source in ("fisher", "sampled")
    curvature = work.curvature
    found += [
        *(curvature.mean_blocks(form) for form in ("samples", *FACTORED)),
        curvature.moments("second"),
        curvature.moments("mean"),
    ]
    products = (curvature.product("samples", None), curvature.product("batch", "second"))
    return [*found, *products, curvature.product("batch", "mean")]


def symmetric(values: dict[Any, Any]) -> dict[Any, Any]:
    """Blocks and second moments are symmetric, and are written without transposition."""
    for symbol, value in values.items():
        if symbol.family in ("H", "H°", "H\u0304", "H°\u0304", "A"):
            values[symbol] = value + value.T
    return values


def agree(work: Derived, equation: Equation) -> None:
    names = names_of(work.model)
    inputs = symmetric(values_of([equation.value]))
    expected = as_matrix(evaluate({"value": equation.value}, inputs)["value"])
    left, right = Notation(equation.layer or 0, names.activations).sides(
        symbol_of(equation.symbol), equation.value
    )
    values = {(s.family, s.index): v for s, v in inputs.items()}
    found = Reader(values, names.activations, len(np.atleast_1d(expected))).value(right)
    assert left == symbol_of(equation.symbol)
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-9), equation.symbol.name


@pytest.mark.parametrize(
    "name", ["tanh_cross_entropy_3", "skip", "output_tanh", "custom_loss", "bounded", "spectral", "no_bias"]
)
def test_blocks_and_products_have_the_value_of_their_expressions(name: str) -> None:
    work = named(name)
    for system in curvature_systems(work):
        for equation in system.equations:
            agree(work, equation)


@pytest.mark.parametrize(("solver", "moment"), SOLVERS)
def test_an_equation_that_is_solved_is_printed_with_its_unknown_in_it(solver: str, moment: str) -> None:
    """Left side: the operator applied to any D. Right side: what the solver gets."""
    work = derived(CHAIN)
    method = METHODS["ea_cg"]
    options = read_options(method, MethodSpec("ea_cg", {"solver": solver, "moment": moment}))
    (direction,) = (s for s, _ in method.step(work, options).systems if s.name == "direction")
    solved = 0
    for equation in direction.equations:
        nodes = [node for node in postorder(equation.value) if isinstance(node, LinearSolve)]
        symbol = symbol_of(equation.symbol)
        left, right = Notation(equation.layer or 0, {}).sides(symbol, equation.value)
        assert bool(nodes) == isinstance(right, Solved)
        for node in nodes:
            inputs = symmetric(values_of([*node.products, *node.rhs]))
            values = {(s.family, s.index): v for s, v in inputs.items()}
            values[symbol.family, symbol.index] = inputs[node.probes[0]]
            reader = Reader(values, {})
            assert isinstance(right, Solved)
            for written, expr in ((left, node.products[0]), (right.rhs, node.rhs[0])):
                expected = as_matrix(evaluate({"value": expr}, inputs)["value"])
                assert np.allclose(reader.value(written), expected, rtol=1e-9)
            solved += 1
    assert solved == {"kfi": 4 if moment == "mean" else 0}.get(solver, 8)


# ── which sections there are ──────────────────────────────────────────────────────────────────────────


def test_only_what_asks_for_curvature_has_sections_on_it() -> None:
    assert titles(CHAIN) == []
    assert titles({**CHAIN, "method": "mk"}) == []
    assert titles({**CHAIN, "target": {"backend": "torch", "operators": ["gradient"]}}) == []


def test_an_operator_on_blocks_without_a_list_shows_two_presets() -> None:
    found = titles({**CHAIN, "target": {"backend": "torch", "operators": ["hessian_diagonal"]}})
    kinds = [title.rpartition("kind ")[2] for title in found if ", kind " in title]
    assert kinds == ["hessian", "pch1"]
    assert found[-1] == "Diagonal of the Hessian of the objective"


def test_operators_with_systems_of_their_own_have_a_section() -> None:
    """Each moment of the samples' gradients, and diagonals and traces of every form of the kinds shown."""
    operators = ["per_sample_gradients", "diagonal", "trace"]
    network = {**CHAIN, "curvature": ["ggn", "kfra"], "target": {"operators": operators}}
    written = equations(build_spec(network)).text()
    for line in (
        "gradient norms       ‖G‖²_k = ‖x_{k−1}‖² ‖y_k‖²",
        "gradient squares     G²_k = (y_k ∘ y_k) (x_{k−1} ∘ x_{k−1})ᵀ",
        "diagonal of outputs  h_k[i] = Σ_{j,l} J_k[j,i] J_k[l,i] M[",
        "diagonal of batch    dW_k = h̄_k m̄²_kᵀ",
        "traces of outputs    τ_k = Σ_{i,j,l} J_k[i,j] J_k[l,j] M[",
    ):
        assert line in written, line


def test_the_kind_of_a_method_comes_before_its_step() -> None:
    assert titles({**CHAIN, "method": {"name": "ea_cg", "kind": "kfra"}}) == [
        "Curvature blocks of the pre-activations, kind kfra",
        "Step of ea_cg, solver ea_cg",
    ]
    listed = {**CHAIN, "curvature": ["pch1"], "method": "ea_cg"}
    assert [title for title in titles(listed) if "kind" in title] == [
        "Curvature blocks of the pre-activations, kind pch1"
    ]
    step = sheet_of(listed).sections[-1]
    assert "moments" not in {row.name for row in step.equations}


def test_what_cannot_be_derived_says_why() -> None:
    case = {**CASES["custom_loss"], "curvature": ["fisher", "hessian"]}
    section = sheet_of(case).section("Curvature blocks of the pre-activations, kind fisher")
    assert not section.equations
    assert section.notes[0].startswith("Not derived: kind 'fisher': no distribution of targets")
    refused = {**chain("tanh", 3, loss="bounded"), "method": {"name": "ea_cg", "kind": "ggn"}}
    assert "not convex" in sheet_of(refused).sections[-1].notes[0]
    shared = {**CASES["shared_skip"], "curvature": ["hessian"]}
    section = sheet_of(shared).section("Moments, and blocks of the weights")
    assert "are shared" in section.notes[0]


# ── what is said about kinds ──────────────────────────────────────────────────────────────────────────


def notes_of(kind: Any, case: Any = CHAIN) -> str:
    name = kind if isinstance(kind, str) else kind["name"]
    sheet = sheet_of({**case, "curvature": [kind]})
    return " ".join(sheet.section(f"Curvature blocks of the pre-activations, kind {name}").notes)


@pytest.mark.parametrize("kind", KINDS)
def test_every_rewrite_of_a_kind_says_when_it_is_exact(kind: str) -> None:
    preset, notes = KINDS[kind], notes_of(kind)
    assert (EXACT_WHEN["expectation"] in notes) == preset.expectation
    assert (EXACT_WHEN["output"] in notes) == (preset.output != "kept")
    assert (EXACT_WHEN["residual"] in notes) == (preset.residual in ("absolute", "clipped"))
    dropped = "dropped: exact for piecewise affine" in notes
    assert dropped == (preset.residual == "dropped" and not preset.factored)


def test_a_proof_of_convexity_leaves_the_output_as_it_is_and_is_stated() -> None:
    proved = "Condition: the loss is convex in the output: proved from the spec."
    assert proved in notes_of("pch1")
    assert proved not in notes_of("pch1", chain("tanh", 3, loss="bounded"))
    assert proved not in notes_of("hessian")
    row = sheet_of({**chain("tanh", 3, last=True), "curvature": ["pch1"]}).text()
    assert "H\u0304_n = abs(H\u0304°_n)" in row


def test_each_symbol_is_explained_once() -> None:
    notes = [note for section in sheet_of(NETWORKS["curvature"]).sections for note in section.notes]
    explained = [
        note for note in notes if note.startswith(("H\u0304", "H_k", "ρ_k", "A_k", "S_k", "The rows"))
    ]
    assert len(explained) == len(set(explained)) == 6


def test_blocks_of_forty_layers_print_in_as_many_lines_as_six() -> None:
    deep, short = (
        sheet_of({**chain("tanh", depth), "curvature": ["hessian", "pch1", "fisher"], "method": "ea_cg"})
        for depth in (40, 6)
    )
    for ours, theirs in zip(deep.sections[-7:], short.sections[-7:], strict=True):
        assert [row.left.text for row in ours.equations] == [row.left.text for row in theirs.equations]


# ── LaTeX ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", NETWORKS)
def test_formulas_parse_as_tex_mathematics(name: str) -> None:
    assert parsed(sheet_of(NETWORKS[name])) > 20


@pytest.mark.parametrize("name", NETWORKS)
def test_latex_is_ascii_and_closes_what_it_opens(name: str) -> None:
    code = sheet_of(NETWORKS[name]).latex()
    assert code.isascii()
    assert balanced(code)
    assert not re.search(r"\^\{[^{}]*\}(_\{[^{}]*\})?\^", code.replace(r"\left", "")), "two exponents"


SYMBOLS = {
    "H\u0304": ("H\u0304", r"\bar{H}"),
    "H°\u0304": ("H\u0304°", r"\bar{H}^{\circ}"),
    "E1\u0304": ("E\u03041", r"\bar{E}1"),
    "ρ\u0304": ("ρ\u0304", r"\bar{\rho}"),
    "Ã+": ("Ã⁺", r"\tilde{A}^{+}"),
    "Sᶜ": ("Sᶜ", "S^{c}"),
    "∇²W": ("∇²W", r"\nabla ^{2}W"),
    "√α/π": ("(√α/π)", r"(\sqrt{\alpha}/\pi)"),
    "D½": ("D½", "D^{(1/2)}"),
    "D#": ("D#", r"D^{\#}"),
    "D≈": ("D≈", r"D^{\approx}"),
    "BN": ("(BN)", "(BN)"),
    "alpha": ("α", r"\alpha"),
    "momentum": ("momentum", r"\mathrm{momentum}"),
}


@pytest.mark.parametrize("family", SYMBOLS)
def test_marks_and_greek_of_symbols(family: str) -> None:
    assert (symbol_text(family), symbol_latex(family)) == SYMBOLS[family]


def test_marked_symbols_in_sentences() -> None:
    assert prose_latex("H\u0304_k, Ã⁺_{k−1} and D#_k") == (
        r"\ensuremath{\bar{H}_{k}}, \ensuremath{\tilde{A}^{+}_{k-1}} and \ensuremath{D^{\#}_{k}}"
    )


def test_columns_stay_aligned_under_combining_marks() -> None:
    """A bar takes no column, so that ranges start below each other."""
    text = sheet_of(NETWORKS["curvature"]).text(120)
    lines = [line.replace("\u0304", "").replace("\u0303", "") for line in text.splitlines()]
    starts = {line.index("  k = 1..n") for line in lines if "  k = 1..n" in line and " = " in line[:60]}
    assert len(starts) == 1


def test_docstrings_name_the_equation_that_is_solved() -> None:
    work = derived(CHAIN)
    method = METHODS["ea_cg"]
    plan = method.step(work, read_options(method, MethodSpec("ea_cg")))
    (direction,) = (system for system, _ in plan.systems if system.name == "direction")
    assert describe_system(direction, work.model)[0] == (
        "(1 − α) H\u0304_k D_k m\u0304_k m\u0304_kᵀ + α D_k = G_k, for D_k by conjugate gradients,  "
        "k = 1..n  [EA-CG(10b)]"
    )
    assert not any(symbol.family == "p" for e in direction.equations for symbol in inputs_of(e.symbol))
