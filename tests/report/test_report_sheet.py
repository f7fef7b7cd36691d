"""The equation sheet as a whole: golden files, determinism, size, LaTeX, what follows the spec."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from cases import CASES
from mathtext_formulas import parsed
from networks import LEAKY, SKIP, chain, derived, known_sheet, named

from sifrc.derive.system import Equation, System
from sifrc.errors import DerivationError
from sifrc.ir import Axis, Input, Role
from sifrc.ir.build import hadamard, total
from sifrc.model import build_model
from sifrc.report.document import equations
from sifrc.report.lines import describe_system
from sifrc.report.sheet import EquationSheet
from sifrc.spec import build_spec

GOLDEN = Path(__file__).parent / "golden"
UPDATE = "SIFRC_UPDATE_GOLDEN"
NETWORKS: dict[str, Any] = {
    "leaky_relu": chain(LEAKY),
    "tanh": chain("tanh", last=True, loss="cross_entropy"),
    "skip": SKIP,
}


def sheet_of(case: Any, **options: Any) -> EquationSheet:
    return known_sheet(case, **options)


@pytest.mark.parametrize("suffix", ["txt", "tex"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_sheet_is_the_golden_file(name: str, suffix: str) -> None:
    """Rewrite the files with SIFRC_UPDATE_GOLDEN=1 after a change that is meant."""
    sheet = sheet_of(NETWORKS[name])
    written = sheet.text(120) if suffix == "txt" else sheet.latex()
    file = GOLDEN / f"{name}.{suffix}"
    if os.environ.get(UPDATE):
        file.write_text(written, encoding="utf-8")
    assert written == file.read_text(encoding="utf-8")


def test_the_sheet_does_not_depend_on_the_hash_seed() -> None:
    """A fresh process with a seed of its own writes what this one does."""
    program = (
        "from networks import SKIP, chain, known_sheet\n"
        "for case in (SKIP, chain('tanh', last=True, loss='cross_entropy')):\n"
        "    sheet = known_sheet(case)\n"
        "    print(sheet.text(), sheet.latex(), sheet._repr_html_())\n"
    )
    root = Path(__file__).resolve().parents[2]
    paths = os.pathsep.join([str(root), str(root / "tests"), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    sheets = [sheet_of(NETWORKS[name]) for name in ("skip", "tanh")]
    here = [f"{sheet.text()} {sheet.latex()} {sheet._repr_html_()}\n" for sheet in sheets]
    assert done.stdout == "".join(here)


def test_forty_layers_print_in_as_many_lines_as_six() -> None:
    sheet = equations(derived(chain("tanh", 40, loss="cross_entropy")))
    printed = sheet.text(), sheet.latex()
    short = sheet_of(chain("tanh", 6, loss="cross_entropy"))
    assert len(printed[0].splitlines()) <= len(short.text().splitlines()) + 2
    assert "k = 1..n−1" in printed[0]


def test_other_activations_give_other_equations() -> None:
    tanh, leaky, softplus = (sheet_of(chain(name)).text() for name in ("tanh", LEAKY, "softplus"))
    assert "F_k(x) = tanh(x)" in tanh
    assert "F_k''(a_k) ∘ b_k ∘ u_k" in tanh
    assert "F_k''" not in leaky
    assert "x/10 otherwise" in leaky
    assert len({tanh, leaky, softplus}) == 3


def test_mixed_activations_say_which_layer_has_which() -> None:
    case = chain("tanh", 5)
    case["network"]["layers"][1]["activation"] = "softplus"
    rows = sheet_of(case).section("Forward model").equations
    functions = {
        row.right.text: row.range.text or row.left.text for row in rows if row.left.text.endswith("(x)")
    }
    assert functions["tanh(x)"] == "k = 1, 3..n−1"
    assert functions["softplus(x)"] == "F_2(x)"
    (state,) = (row for row in rows if row.right.text == "F_k(a_k)")
    assert state.range.text == "k = 1..n−1"


def test_both_papers_are_cited() -> None:
    text = sheet_of(chain("tanh")).text()
    pairs = ["ESN(2), MK(1)", "ESN(5), MK(13)", "ESN(9), MK(17)", "ESN(10), MK(20)", "ESN(11), MK(21)"]
    for pair in [*pairs, "ESN(16.1), MK(30)", "ESN(16.4), MK(30)", "ESN(17), MK(35)"]:
        assert pair in text


def test_a_network_without_a_closed_form_says_why() -> None:
    section = sheet_of(SKIP).section("Newton direction of one sample")
    assert not section.equations
    assert "skip connection" in section.notes[0]
    with pytest.raises(DerivationError, match="skip connection"):
        sheet_of(SKIP, newton=True)
    titles = [section.title for section in sheet_of(SKIP, newton=False).sections]
    assert not any("Newton direction" in title for title in titles)


def test_without_the_white_layer_the_first_direction_is_zero() -> None:
    rows = sheet_of(chain("tanh"), white_layer=False).section("Newton direction of one sample").equations
    assert [row.right.text for row in rows if row.left.text == "N_1"] == ["0"]


def test_the_outcome_of_substitution_and_the_conditions_are_stated() -> None:
    notes = sheet_of(chain("tanh")).section("Newton direction of one sample").notes
    assert notes[-1] == "Substituted into the tetrad: zero (normal form)."
    assert "Condition: y_k ≠ 0: checked at run time, k = 1..n." in notes
    assert any("proved from the spec" in note for note in notes)
    assert any(note.startswith("Step 1, k = 1..n: subtract (1) − (2)") for note in notes)


@pytest.mark.parametrize("name", sorted(CASES))
def test_latex_is_ascii_and_closes_what_it_opens(name: str) -> None:
    code = equations(named(name)).latex()
    assert code.isascii()
    assert balanced(code)
    assert len(re.findall(r"\\left(?![a-z])", code)) == len(re.findall(r"\\right(?![a-z])", code))
    opened: list[str] = []
    for kind, environment in re.findall(r"\\(begin|end)\{([a-z*]+)\}", code):
        if kind == "begin":
            opened.append(environment)
        else:
            assert opened.pop() == environment
    assert not opened
    for line in code.splitlines():
        assert line.count("$") == 0
        assert line.count(r"\tag*") <= 1


def balanced(code: str) -> bool:
    depth = 0
    for letter in re.sub(r"\\\\|\\[{}|]", "", code):
        depth += (letter == "{") - (letter == "}")
        if depth < 0:
            return False
    return depth == 0


@pytest.mark.parametrize("name", ["tanh_cross_entropy_3", "skip", "spectral", "mixed_loss", "output_tanh"])
def test_formulas_parse_as_tex_mathematics(name: str) -> None:
    assert parsed(equations(named(name))) > 20


def test_notebooks_get_latex_and_html() -> None:
    sheet = sheet_of(chain("tanh"))
    assert sheet._repr_latex_().startswith("$\\displaystyle")
    page = sheet._repr_html_()
    assert "tanh" in page
    assert "<script" not in page


def test_long_lines_are_broken_at_the_width() -> None:
    text = sheet_of(SKIP).text(100)
    assert max(map(len, text.splitlines())) <= 110
    assert sheet_of(SKIP).text(100) != sheet_of(SKIP).text(160)


def test_a_system_is_described_in_a_few_lines_for_generated_code() -> None:
    model = build_model(build_spec(chain("tanh", 30, last=True)))
    lines = describe_system(derived(chain("tanh", 30, last=True)).first.adjoint, model)
    assert lines == (
        "b_k = W_{k+1}ᵀ y_{k+1} − λ_k x_k,  k = 1..n−1  [ESN(9)]",
        "b_n = t − x_n  [ESN(9)]",
        "y_k = F_k'(a_k) ∘ b_k,  k = 1..n",
    )


def test_right_sides_that_nobody_reads_to_their_end_are_cut() -> None:
    """By terms, by symbols of the first terms, and where already the first term has too many."""
    axis = Axis("fc1", 3)
    model = build_model(build_spec(chain("tanh", 30, last=True)))

    def described(terms: int, factors: int) -> str:
        products = [
            hadamard(*(Input("x", n + m + 1, (axis,), Role.STATE) for m in range(factors)))
            for n in range(terms)
        ]
        equation = Equation(Input("b", 1, (axis,), Role.ADJOINT), total(products, (axis,)), 1, "definition")
        return describe_system(System("long", "Long", (equation,)), model)[0]

    whole, cut, short, none = (described(*sizes) for sizes in ((40, 2), (60, 2), (20, 30), (2, 300)))
    assert whole.count("∘") == 40 and "…" not in whole
    assert cut.count("∘") == 12 and cut.endswith(" + … (48 more terms)")
    assert short.count("∘") == 3 * 29 and short.endswith(" + … (17 more terms)")
    assert none == "b_1 = … (600 symbols)"


def test_a_section_is_a_part_of_the_page() -> None:
    """As HTML and as LaTeX; one without equations has no formula, without the converter there is text."""
    sheet = sheet_of(chain("tanh"))
    section = sheet.section("Gradient")
    assert section._repr_html_() in sheet._repr_html_()
    assert section._repr_latex_() is not None and "G_{k}" in str(section._repr_latex_())
    ElementTree.fromstring(f"<div>{sheet._repr_html_()}</div>")
    assert replace(section, equations=())._repr_latex_() is None
