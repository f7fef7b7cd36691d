"""A sample of the harness: runs that are killed, interrupted, without disk, and two at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the harness forks")
def test_a_sample_of_the_lives_of_runs():
    """In a process of its own, which may fork: this one has threads. Its last lines are the findings."""
    pytest.importorskip("torch")
    command = [sys.executable, str(Path(__file__).with_name("runs.py")), "--quick"]
    found = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert found.returncode == 0, found.stdout + found.stderr
    total = next(line for line in found.stdout.splitlines() if line.startswith("all "))
    _, cases, promised, raw, lost, wrong, skipped = total.split()
    assert (raw, lost, wrong) == ("0", "0", "0")
    # Where no small disk can be mounted, those cases are one that was not run.
    assert int(cases) >= 13 and int(promised) == int(cases) - int(skipped)
