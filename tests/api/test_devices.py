"""Whether there is a CUDA device, and what becomes of a module where there is none."""

from __future__ import annotations

import ctypes
import importlib.util
import math
import sys
import types
import warnings
from typing import Any

import pytest

from sifrc import devices, simulation
from sifrc.errors import BackendError
from sifrc.extras import MissingFramework

NUMBA = "numba.cuda"


class Driver:
    """A driver's library."""

    def __init__(self, started: int = 0, counted: int = 0, count: int = 0) -> None:
        self.started, self.counted, self.count = started, counted, count

    def cuInit(self, flags: int) -> int:
        return self.started

    def cuDeviceGetCount(self, place: Any) -> int:
        place._obj.value = self.count
        return self.counted


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (None, "there is no CUDA driver"),
        (Driver(count=2), ""),
        (Driver(), "the CUDA driver has none"),
        (Driver(started=100), "the CUDA driver has none"),
        (Driver(counted=100, count=1), "the CUDA driver has none"),
        (Driver(started=999, count=1), "the CUDA driver fails with code 999"),
    ],
)
def test_the_driver_is_asked(driver: Driver | None, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be absent, broken or without a device; what hides devices is named."""

    def library(name: str) -> Driver:
        if driver is None:
            raise OSError(name)
        return driver

    monkeypatch.setattr(ctypes, "CDLL", library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.why_no_device() == reason
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    hidden = " (CUDA_VISIBLE_DEVICES is '7')" if "has none" in reason else ""
    assert devices.why_no_device() == reason + hidden


def test_the_driver_is_where_numba_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """First the file that is named, then the usual ones."""
    asked: list[str] = []

    def library(name: str) -> Driver:
        asked.append(name)
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", library)
    monkeypatch.setenv("NUMBA_CUDA_DRIVER", "/own/libcuda.so")
    assert devices.why_no_device() and asked[0] == "/own/libcuda.so" and len(asked) > 1


def jit(place: str) -> Any:
    def decorator() -> None: ...

    decorator.__module__ = place
    return decorator


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this process one with a device or without, in which Numba's part was imported or not."""

    def make(reason: str, loaded: Any = None) -> None:
        monkeypatch.delenv(simulation.VARIABLE, raising=False)
        monkeypatch.setattr(simulation, "why_no_device", lambda: reason)
        monkeypatch.delitem(sys.modules, NUMBA, raising=False)
        if loaded is not None:
            monkeypatch.setitem(sys.modules, NUMBA, loaded)

    return make


def real(available: bool = True, error: str | None = None) -> Any:
    """Numba's part for devices."""
    return types.SimpleNamespace(
        jit=jit("numba.cuda.decorators"), is_available=lambda: available, cuda_error=lambda: error
    )


def test_a_device_will_do(process: Any) -> None:
    """Whether or not the simulator would be welcome."""
    process("", real())
    assert not simulation.needs_device("this") and not simulation.needs_device(
        "this", otherwise_simulated=True
    )
    assert not simulation.is_simulated()


def test_the_simulator_will_do(process: Any) -> None:
    """Where it has begun, also beside a device."""
    for reason in ("", "there is no CUDA driver"):
        process(reason, types.SimpleNamespace(jit=jit("numba.cuda.simulator.api")))
        assert simulation.is_simulated() and simulation.needs_device("this")


@pytest.mark.parametrize("loaded", [None, real()])
def test_no_device_is_one_clear_error(loaded: Any, process: Any) -> None:
    """What is missing, what to install, and the way to the simulator."""
    process("there is no CUDA driver", loaded)
    with pytest.raises(simulation.MissingDevice) as caught:
        simulation.needs_device("training")
    assert isinstance(caught.value, BackendError)
    text = str(caught.value)
    assert "training needs a CUDA device, and none was found: there is no CUDA driver" in text
    assert 'pip install "sifrc[cuda]"' in text and "NUMBA_ENABLE_CUDASIM=1" in text


def test_it_may_be_too_late_for_the_simulator(process: Any) -> None:
    """Numba's part is what it was at its import."""
    process("there is no CUDA driver", real())
    with pytest.raises(simulation.MissingDevice, match=r"too late for Numba's simulator(.|\n)*a new process"):
        simulation.needs_device("verifying", otherwise_simulated=True)


def test_a_device_without_its_libraries(process: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed in part says so, and in which way."""
    process("", real(False, "libnvvm.so\n  cannot be found"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingFramework, match=r'needs numba-cuda, which is not(.|\n)*"sifrc\[cuda\]"'):
        simulation.needs_device("this")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(MissingFramework, match=r"cannot use the device: libnvvm.so cannot be found"):
        simulation.needs_device("this")


def prepared(**contents: Any) -> Any:
    """A module with these contents, prepared."""
    module = types.ModuleType("made")
    vars(module).update(contents)
    before = sys.getswitchinterval()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            simulation.prepare(module, "this")
        assert [one.category for one in said] == [simulation.SimulationWarning]
        assert sys.getswitchinterval() < before
    finally:
        sys.setswitchinterval(before)
    return module


def test_a_module_gets_few_threads() -> None:
    """By whatever constants it has; others stay, and what is not there is not made."""
    module = prepared(BLOCK=128, MOST_BLOCKS=4096, THREADS=256, DTYPE=float, SIZE=64)
    assert (module.BLOCK, module.MOST_BLOCKS, module.THREADS, module.SIZE) == (2, 2, 2, 64)
    assert not hasattr(module, "TILE")
    assert not hasattr(module, "math") and prepared(math="own").math == "own"


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("exp", 1e3, math.inf),
        ("expm1", 1e3, math.inf),
        ("sinh", -1e3, -math.inf),
        ("log", 0.0, -math.inf),
        ("log", -1.0, math.nan),
        ("log1p", -1.0, -math.inf),
        ("sqrt", -1.0, math.nan),
        ("sin", math.inf, math.nan),
        ("acosh", 0.0, math.nan),
        ("atanh", 1.0, math.inf),
        ("asin", 2.0, math.nan),
        ("erf", 0.5, math.erf(0.5)),
        ("floor", -0.5, -1),
        ("atan", 0.5, math.atan(0.5)),
        ("isfinite", math.inf, False),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_functions_are_those_of_a_device(name: str, argument: float, value: float) -> None:
    """They give infinity or no number where Python's raise; the others are Python's."""
    found = getattr(prepared(math=math).math, name)(argument)
    assert found == pytest.approx(value, nan_ok=True)
    assert type(found) is int or name != "floor"
