"""Training of CUDA modules: in Numba's simulator, beside those for the CPU, and without a device."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from simulated import outcome

from sifrc import simulation
from sifrc.errors import TrainingError
from sifrc.training import make_trainable

ROUNDING = 1e-10


SCRIPT = Path(__file__).with_name("simulated_training.py")


@cache
def found() -> Any:
    """What runs and adapters do in one process with the simulator."""
    with TemporaryDirectory() as folder:
        return outcome(SCRIPT, "runs", "adapter", folder=Path(folder), simulated=True)


@pytest.mark.slow
def test_a_run_is_that_on_the_cpu() -> None:
    """Metrics and parameters."""
    assert 0 <= found()["runs"]["mk"] < ROUNDING


@pytest.mark.slow
def test_summaries_are_those_on_the_cpu(tmp_path: Path) -> None:
    """With a batch of their own and axes of the samples: metrics, parameters, and what is recorded."""
    summaries = outcome(SCRIPT, "summaries", folder=tmp_path, simulated=True)["summaries"]
    assert max(summaries["grouped"], summaries["summaries"]) < ROUNDING and summaries["recorded"] == 2


@pytest.mark.slow
def test_a_resumed_run_gives_the_same_numbers() -> None:
    """To the bit."""
    assert found()["runs"]["resumed"] == 0.0


@pytest.mark.slow
def test_a_run_says_once_that_it_is_simulated() -> None:
    """And nothing of what its arithmetic does on the way."""
    (text,) = found()["runs"]["said"]
    assert "simulator" in text and "no CUDA device" in text and not found()["runs"]["other warnings"]


@pytest.mark.slow
def test_parameters_are_on_the_device_and_copies_come_back() -> None:
    """Arrays of NumPy, whose changes change nothing; the state has them all."""
    adapter = found()["adapter"]
    assert adapter["equal"] and adapter["unchanged"] and adapter["types"] == ["ndarray"]
    assert adapter["rates"] == [0.25, 0.125] and adapter["identity"] == "cuda" and adapter["threads"] == 2
    assert adapter["predicted"] < ROUNDING


@pytest.mark.slow
def test_what_is_refused() -> None:
    """Hyperparameters, parameters of another network, steps."""
    adapter = found()["adapter"]
    assert adapter["refused"].startswith("TrainingError: the method refuses its hyperparameters")
    assert adapter["other network"].startswith("TrainingError: parameter 'fc1.weight' has shape (3,)")
    assert adapter["step"].startswith("TrainingError: ") and "is not finite" in adapter["step"]


def test_training_without_a_device_is_one_error(fake_numba: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made."""
    monkeypatch.setattr(simulation, "why_no_device", lambda: "there is no CUDA driver")
    monkeypatch.delenv(simulation.VARIABLE, raising=False)
    monkeypatch.delitem(sys.modules, "numba.cuda", raising=False)
    with pytest.raises(
        simulation.MissingDevice, match="training a CUDA module needs a CUDA device, and none"
    ):
        make_trainable(fake_numba, "cuda")
    assert "numba.cuda" not in sys.modules


def test_a_backend_without_an_adapter_is_refused(fake_numba: Any) -> None:
    """With those that have one."""
    with pytest.raises(TrainingError, match=r"with the backend 'jax'(.|\n)*cuda or numba or torch"):
        make_trainable(fake_numba, "jax")
