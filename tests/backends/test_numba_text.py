"""The text of generated Numba modules, and loading one."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba_cases import CASES, chain, source

from sifrc.backends.loading import load_module, module_name
from sifrc.errors import BackendError

_PRINT = (
    "import sys; from numba_cases import chain, source; sys.stdout.write(source(chain(method=sys.argv[1])))"
)
METHOD = "{name: esn, variant: randomised, precision: direct}"


def test_the_text_does_not_depend_on_hash_order() -> None:
    texts = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", _PRINT, METHOD], env=environment, capture_output=True, check=True
        )
        texts.append(done.stdout.decode())
    assert texts[0] == texts[1] == source(chain(method=METHOD))


@pytest.mark.parametrize("name", CASES)
def test_modules_stand_alone(name: str) -> None:
    tree = ast.parse(source(CASES[name].spec))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert imported <= {"__future__", "collections", "typing", "math", "numpy", "numba"}


def test_lines_are_short_and_layers_stay_loops() -> None:
    text = source(chain())
    body = text[text.index("from __future__") :]
    assert max(map(len, body.splitlines())) <= 110
    assert "for k in range(1, 3):\n        np.dot(weights[k], x[k - 1], " in text
    assert text.endswith("\n") and not text.endswith("\n\n")


def test_invariant_factors_are_outside_of_the_inner_loop() -> None:
    """A rank-one update multiplies one number per row, then runs along the row."""
    text = source(chain())
    update = text[text.index("def _update_one(") :]
    inner = update[update.index("for j in range") :].splitlines()[1]
    assert inner.count("*") == 1


def test_the_same_text_is_the_same_module_and_another_text_another(tmp_path: Path) -> None:
    first = load_module("value = 1\n", tmp_path, "numbers")
    assert load_module("value = 1\n", tmp_path, "numbers") is first
    second = load_module("value = 2\n", tmp_path, "numbers")
    assert (first.value, second.value) == (1, 2)
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".py"}
    assert first.__name__ == module_name("numbers", "value = 1\n")


def test_a_file_with_other_content_under_the_name_is_replaced(tmp_path: Path) -> None:
    text = "value = 3\n"
    (tmp_path / f"{module_name('damaged', text)}.py").write_text("value = ")
    assert load_module(text, tmp_path, "damaged").value == 3


def test_a_module_that_fails_is_not_kept(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            load_module("1 / 0\n", tmp_path, "failing")


@pytest.mark.parametrize("name", ["a b", "../a", "", "1a"])
def test_names_that_are_no_identifiers_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError):
        load_module("x = 1\n", tmp_path, name)
