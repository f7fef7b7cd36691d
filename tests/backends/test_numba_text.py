"""The text of generated Numba modules, and loading one."""

from __future__ import annotations

import ast

import pytest
from numba_cases import CASES, chain, source


@pytest.mark.parametrize("name", CASES)
def test_modules_stand_alone(name: str) -> None:
    tree = ast.parse(source(CASES[name].spec))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert imported <= {
        "__future__",
        "collections",
        "typing",
        "math",
        "numbers",
        "warnings",
        "numpy",
        "numba",
    }


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
