"""CUDA modules on a device that does its worst compute what modules for the CPU do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from cuda_comparison import compared, trained
from cuda_device import Deadlock, loaded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import specs
from test_cuda_simulator import CUDA, METHODS, assert_same, method_spec

from sifrc.backends.numba_cuda import placement, rows
from sifrc.cache import load_text
from sifrc.compiler import Request, compile_spec
from sifrc.operators.derivatives import DERIVATIVES
from sifrc.spec import build_spec

RANDOM = settings(deadline=None, derandomize=True, print_blob=True, suppress_health_check=list(HealthCheck))
SMOOTH = tuple(one.name for one in DERIVATIVES.operators if one.name != "newton_direction")
ONLINE = ("mk", "esn", "esn_exact", "esn_saddle_free", "esn_recursive")
WIDE = [
    {"name": "fc1", "type": "dense", "units": 5, "activation": "tanh"},
    {"name": "fc2", "type": "dense", "units": 4, "activation": "softplus"},
    {"name": "out", "type": "dense", "units": 3},
]
"""More entries than a block has threads, and systems of more than one turn of rotations."""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks divide the products of small networks too."""
    for module in (placement, rows):
        monkeypatch.setattr(module, "LARGE", 6)


def texts(data: Mapping[str, Any], **asked: Any) -> tuple[str, str]:
    """The module for the CPU and the one for CUDA."""
    spec = build_spec(dict(data))
    cpu, cuda = (compile_spec(spec, Request(backend=name, **asked)).text for name in ("numba", CUDA))
    return cpu, cuda


def on_cpu(text: str, folder: Path) -> Any:
    """The module of a text, without the cache."""
    path = folder / f"cpu_{abs(hash(text))}.py"
    path.write_text(text, encoding="utf-8")
    return load_text(path.stem, path, text)


def errors(pair: tuple[str, str], folder: Path, seed: int = 0) -> dict[str, float | str]:
    """What differs."""
    cpu, cuda = on_cpu(pair[0], folder), loaded(pair[1], seed)
    return (trained if hasattr(cpu, "State") else compared)(cpu, cuda)


def wide(name: str) -> dict[str, Any]:
    """A method on a network that blocks have to divide."""
    data = method_spec(METHODS[name])
    return data | {"network": data["network"] | {"layers": WIDE}}


@pytest.mark.parametrize("name", ["mk", *(pytest.param(n, marks=pytest.mark.slow) for n in ONLINE[1:])])
def test_blocks_divide_steps_of_single_samples(name: str, divided: None, tmp_path: Path) -> None:
    """Three blocks that wait for each other make what one processor makes."""
    pair = texts(wide(name))
    assert "grid.sync()" in pair[1]
    for seed in range(2):
        assert_same({name: errors(pair, tmp_path, seed)}, "float64")


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str, tmp_path: Path) -> None:
    """Every method, an epoch of each batch size and a step."""
    assert_same({name: errors(texts(wide(name)), tmp_path)}, "float64")


@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=4)
def test_random_networks(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """Every operator of random networks, with every sort of argument."""
    pair = texts(data, method="none", operators=SMOOTH)
    assert_same(
        {"random": errors(pair, tmp_path_factory.mktemp("random"), seed)}, data.get("dtype", "float64")
    )


@pytest.mark.slow
@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=60)
def test_many_random_networks(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """The same on many more."""
    test_random_networks.hypothesis.inner_test(data, seed, tmp_path_factory)


def test_threads_that_do_not_meet_are_seen() -> None:
    """A wait that only some threads reach is an error, and not for ever."""
    text = """
@cuda.jit(cache=True)
def kernel(values):
    if cuda.threadIdx.x == 0:
        cuda.syncthreads()
"""
    module = loaded(text)
    with pytest.raises(Deadlock):
        module.kernel[1, 2](np.zeros(1))
