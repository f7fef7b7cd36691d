"""The committed files in generated/ are what the compiler writes today, byte for byte."""

from __future__ import annotations

import ast
import difflib
import hashlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from sifrc.compiler import Compiled, Request, compile_spec
from sifrc.spec import load_spec

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "digits_mk_numba": ("digits.yaml", Request(backend="numba")),
    "digits_mk_torch": ("digits.yaml", Request(backend="torch")),
    "mnist_esn_esn_numba": ("mnist_esn.yaml", Request(backend="numba")),
    "mnist_esn_esn_torch": ("mnist_esn.yaml", Request(backend="torch")),
    "custom_operators_torch": ("custom.yaml", Request(backend="torch")),
    "custom_operators_numba": ("custom.yaml", Request(backend="numba")),
    "digits_blocks_ea_cg_torch": ("digits_blocks.yaml", Request(backend="torch")),
    "digits_blocks_ea_cg_numba": ("digits_blocks.yaml", Request(backend="numba")),
    "digits_grouped_grouped_newton_torch": ("digits_grouped.yaml", Request(backend="torch")),
    "digits_grouped_grouped_newton_numba": ("digits_grouped.yaml", Request(backend="numba")),
}
CASES |= {
    name.replace("_numba", "_cuda"): (file, Request(backend="cuda"))
    for name, (file, request) in CASES.items()
    if request.backend == "numba"
}
RANDOMISED = Request(backend="numba", method="esn", options={"variant": "randomised", "precision": "direct"})


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_golden_file_is_reproduced(name: str) -> None:
    """Run with SIFRC_UPDATE=1 to write the files anew, and review the difference as code."""
    compiled = written(name)
    assert compiled.name == name
    path = ROOT / "generated" / f"{name}.py"
    if os.environ.get("SIFRC_UPDATE"):
        path.write_text(compiled.text, encoding="utf-8")
    known = path.read_text(encoding="utf-8")
    difference = difflib.unified_diff(known.splitlines(), compiled.text.splitlines(), "committed", "now", n=1)
    assert known == compiled.text, "\n".join(difference)


def test_every_golden_file_has_a_case() -> None:
    """Nothing stale stays behind."""
    assert {path.stem for path in (ROOT / "generated").glob("*.py")} == set(CASES)


def test_the_same_bytes_under_any_hash_seed() -> None:
    """A fresh process with another PYTHONHASHSEED writes the same modules, for both backends."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from test_generated import digests; print(digests())"
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == digests()


@cache
def written(name: str) -> Compiled:
    """What this process writes."""
    file, request = {**CASES, "randomised": ("digits.yaml", RANDOMISED)}[name]
    return compile_spec(load_spec(ROOT / "examples" / file), request)


def digests() -> dict[str, str]:
    """Name -> digest of the text."""
    return {n: hashlib.sha256(written(n).text.encode()).hexdigest() for n in (*CASES, "randomised")}
