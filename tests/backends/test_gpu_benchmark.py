"""The benchmark of GPUs in its dry mode: Numba's simulator, torch on the CPU, tiny networks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_dry(tmp_path: Path) -> None:
    """Results of two modules are right; other rows have times and nothing that failed."""
    rows = "correctness digits,correctness mnist_esn,online,kernels,products,summaries 0,ea_cg"
    command = [sys.executable, "benchmarks/gpu.py", "--dry", "--rows", rows, "--limit", "500"]
    command += ["--row-limit", "300", "--folder", str(tmp_path), "--json", str(tmp_path / "found.json")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["rows"]
    assert set(rows.split(",")) < set(found)
    for row, records in found.items():
        lines = [record for record in records if record["what"] != "row" and row != "versions"]
        assert not [record for record in records if "error" in record], row
        assert lines or row == "versions"
        for record in lines:
            assert record["right"] if row.startswith("correctness") else record["seconds"] > 0, (row, record)
