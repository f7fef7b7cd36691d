"""Puts this folder on the path, so that tests share ``cases`` and ``strategies``; what all tests have."""

from __future__ import annotations

import gc
import signal
from pathlib import Path

import devices
import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

_DEVICE = devices.enter()

# A run in the background of a shell inherits that signals are ignored; tests send them to themselves.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


# Imports and the collection of tests make objects that stay. Most of a compiler's go by themselves, and a
# garbage collector that comes often looks at them before.
gc.set_threshold(500_000)


def pytest_collection_finish() -> None:
    """Libraries and collected tests stay to the end: the garbage collector need not look at them again."""
    gc.freeze()


@pytest.fixture
def jit_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba's compiler off."""
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)


@pytest.fixture
def draws() -> None:
    """A test that looks at the pictures of a run."""
    pytest.importorskip("matplotlib")


@pytest.fixture
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without pictures, which take longer than they; tests that look at them take ``draws``."""
    if "draws" not in request.fixturenames:
        for place in ("run.training_plot", "companion.interactions_plot", "companion.rates_plot"):
            monkeypatch.setattr(f"sifrc.training.{place}", lambda *arguments: None)


# Hypothesis draws from the constants of all modules that are loaded. Generated ones take longer to read than
# many tests take, and are others in every worker.
_PACKAGE = Path(__file__).resolve().parent.parent / "sifrc"
_is_local = providers.is_local_module_file
providers.is_local_module_file = lambda path: path.startswith(f"{_PACKAGE}/") and _is_local(path)

# Every machine draws the same examples, and no verdict depends on how fast it is.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")
