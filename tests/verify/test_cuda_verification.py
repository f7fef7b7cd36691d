"""Level 3 on CUDA modules, which Numba's simulator runs where there is no device."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from simulated import outcome, process

from sifrc.verify.device import MOST

TOO_LATE = """
import json, numba.cuda, sifrc
from sifrc.simulation import MissingDevice
network = {"input": {"size": 2}, "layers": [{"type": "dense", "units": 1}]}
try:
    sifrc.verify({"sifrc": 1, "name": "s", "loss": "mse", "network": network}, levels=[3], backend="cuda")
except MissingDevice as error:
    print(error)
"""


@cache
def found() -> Any:
    """Everything that is found in one process."""
    with TemporaryDirectory() as folder:
        script = Path(__file__).with_name("simulated_verification.py")
        return outcome(script, folder=Path(folder), simulated=False)


@pytest.mark.slow
def test_a_module_passes_in_the_simulator() -> None:
    """Every operator, in a process that did not ask for it; each row says where it was found."""
    assert found()["before"] == [False, False]
    right = found()["right"]
    assert right["passed"]
    assert {"gradient", "linearize", "newton_direction", "trace"} <= set(right["rows"])
    assert all("cuda in Numba's simulator, float32" in note for _, note in right["rows"].values())


@pytest.mark.slow
def test_it_says_once_that_it_is_simulated() -> None:
    """And nothing of what its arithmetic does on the way."""
    (text,) = found()["said"]
    assert "verifying a CUDA module runs in Numba's simulator and on no CUDA device" in text


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "text"), [("off", ""), ("dtype", "expected dtype float32, got float64")])
def test_a_wrong_module_fails(fault: str, text: str) -> None:
    """A number, and a dtype."""
    assert not found()[fault]["passed"]
    result, note = found()[fault]["rows"]["gradient"]
    assert result == "FAILED" and text in note


@pytest.mark.slow
@pytest.mark.parametrize(("what", "count"), [("parameters", 611), ("entries of states", 602)])
def test_large_networks_are_refused_in_the_simulator(what: str, count: int) -> None:
    """With the number that is too large, the largest one, and what would do."""
    text = found()[what.partition(" ")[0]]
    assert f"{count:,} {what}" in text and f"at most {MOST}" in text
    assert "a CUDA device" in text and "levels 1 and 2" in text


def test_it_may_be_too_late_for_the_simulator(tmp_path: Path) -> None:
    """Where the process has imported Numba's part for devices already."""
    ran = process("-c", TOO_LATE, folder=tmp_path, simulated=False)
    assert ran.returncode == 0 and "too late for Numba's simulator" in ran.stdout, ran.stderr
    assert "NUMBA_ENABLE_CUDASIM=1" in ran.stdout
