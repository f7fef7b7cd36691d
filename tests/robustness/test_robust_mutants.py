"""A sample of harness 5: faults are what their operators say, listed places exist, and one is caught."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import AREAS, ROOT, equivalent, listed, raising
from mutation_killers import steps_for
from mutation_places import Place, mutants_of
from mutation_rows import SPECS, rows

from sifrc.verify import ladder, records
from sifrc.verify.subjects import program

SOURCE = '''
def solve(terms: list[int], k: int) -> int:
    """Terms + 1."""
    if not terms:
        raise ValueError("no terms - none")
    for j in range(1, k):
        terms.append(j - 1)
    value = negative(scale(Fraction(1, 2), total([a, b], (i, j))))
    return value + k * terms[0] if k < 3 else -value


@rule.register
def _(node: Map) -> str:
    return einsum([(f, (i, j))], (i, j))
'''
TEMPLATE = '''
def _row(a, b):
    """a + b."""
    {% if a + b %}
    if a < b and not b:
        return a.T @ b - 0.5 * max(a, b)
    {% endif %}
    raise ValueError(f"{a} + {b}")

'''


def edits(text: str, name: str, folder: Path) -> set[tuple[str, str, str, str]]:
    (folder / name).write_text(text)
    return {
        (place.function, place.operator, mutant.before, mutant.after)
        for place, mutant in mutants_of(name, folder).items()
    }


def test_faults_of_python_sources(tmp_path: Path) -> None:
    """Signs, factors, axes, terms, layers, bounds and comparisons; texts and errors are left alone."""
    found = edits(SOURCE, "source.py", tmp_path)
    assert found >= {
        ("solve", "bound", "range(1, k)", "range(1, (k) - 1)"),
        ("solve", "index", "j - 1", "(j)"),
        ("solve", "drop", "terms.append(j - 1)", "pass"),
        ("solve", "factor", "Fraction(1, 2)", "Fraction(2 * (1), 2)"),
        ("solve", "drop", "[a, b]", "[a]"),
        ("solve", "transpose", "(i, j)", "(j, i)"),
        ("solve", "sign", "value + k * terms[0]", "(value - k * terms[0])"),
        ("solve", "factor", "k * terms[0]", "(k / terms[0])"),
        ("solve", "index", "0", "1"),
        ("solve", "compare", "k < 3", "(k <= 3)"),
        ("solve", "sign", "-value", "(value)"),
        ("_[Map]", "transpose", "(i, j)", "(j, i)"),
    }
    assert not any("none" in before or "Terms" in before for _, _, before, _ in found)


def test_faults_of_templates(tmp_path: Path) -> None:
    """The same of code in templates, not of their own statements, docstrings and messages."""
    found = edits(TEMPLATE, "source.jinja", tmp_path)
    assert found == {
        ("_row", "compare", " < ", " >= "),
        ("_row", "and", " and ", " or "),
        ("_row", "not", "not ", ""),
        ("_row", "transpose", ".T", ""),
        ("_row", "sign", " - ", " + "),
        ("_row", "factor", " * ", " / "),
        ("_row", "factor", "0.5", "1.0"),
        ("_row", "swap", "max(", "min("),
    }


def test_the_lists_are_of_places_that_exist() -> None:
    """At least 200 of all areas, each one an other fault that Python can read, none of them on two lists."""
    places, same, thrown = listed(), equivalent(), raising()
    assert not set(places) & set(same) and not set(places) & set(thrown) and not set(same) & set(thrown)
    assert all(same.values())
    files = {place.file for place in (*places, *same, *thrown)}
    known = {
        place: m for file in files if (ROOT / file).exists() for place, m in mutants_of(file, ROOT).items()
    }
    found = [place for place in places if place in known]
    assert len(found) >= 200
    for folders in AREAS.values():
        assert sum(place.file.startswith(folders) for place in found) >= 10
    for place in found:
        mutant = known[place]
        assert mutant.source != (ROOT / place.file).read_text(encoding="utf-8")
        if place.file.endswith(".py"):
            ast.parse(mutant.source)


def test_the_killers_exist() -> None:
    """Files of tests and networks, in the table and behind the places of the list."""
    steps = {step for place in listed() for step in steps_for(place.file)} | set(listed().values()) - {""}
    for step in steps:
        kind, _, name = step.partition(":")
        if kind == "tests":
            assert (ROOT / name.partition("::")[0]).exists(), step
        else:
            assert kind in ("verify", "torch", "numba") and name in SPECS, step


def test_an_exception_in_a_row_is_told_from_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no comparison, whatever the report says of it."""

    def broken(*given: object) -> None:
        raise KeyError("x")

    for module in (ladder, records):
        monkeypatch.setattr(module, "reason", module.reason)
    monkeypatch.setattr(program.ProgramSubject, "call", broken)
    found = list(rows("chain"))
    assert found and {verdict.kind for verdict in found} == {"raised"}


def test_places_are_read_as_they_are_written() -> None:
    place = Place("sifrc/ir/build.py", "", "index", 3)
    assert str(place) == "sifrc/ir/build.py - index 3" and Place.parse(str(place)) == place


def test_a_fault_is_caught(tmp_path: Path) -> None:
    """The command, with a list of one fault: in a copy, in a process of its own."""
    (tmp_path / "list.txt").write_text("sifrc/calculus/forward.py _[Einsum] factor 0\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        str(ROOT / "tests/robustness/mutants.py"),
        "--list",
        str(tmp_path / "list.txt"),
    ]
    command += ["--results", str(tmp_path / "results.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100.0% caught" in done.stdout and "verify chain: gradient" in done.stdout
