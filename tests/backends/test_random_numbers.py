"""Random numbers that Numba modules draw: the published generator bit by bit, and normal numbers from it."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
from newton_blocks import network

from sifrc.cache import entry_name, module_from_cache
from sifrc.compiler import Request, compile_spec
from sifrc.spec import build_spec

LOSSES = {"uniform": "cross_entropy", "normal": "squared_error"}
"""Numbers, and a loss whose targets are drawn with them."""
MASK = 2**64 - 1


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the Numba module of a method that draws such numbers, as Python."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)

    def made(name: str) -> ModuleType:
        method = {"name": "ea_cg", "kind": "sampled_fisher"}
        data = network(method, sizes=(4, 3, 2), loss=LOSSES[name], dtype="float64")
        text = compile_spec(build_spec(data), Request(backend="numba")).text
        return module_from_cache(entry_name("random", {"text": text}), lambda: text, None)

    return made


def splitmix(state: int) -> int:
    """The next output of splitmix64 (Steele, Lea & Flood 2014), in Python's integers."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def uniform(seed: int, count: int, position: int) -> float:
    """The upper 24 bits, in the middle of their cell; seeds, steps and positions are offsets of the state."""
    offset = (seed + position) * 0x9E3779B97F4A7C15 + count * 0xD1B54A32D192ED03
    return ((splitmix(offset & MASK) >> 40) + 0.5) / 2**24


@pytest.mark.filterwarnings("ignore:overflow")
def test_numba_draws_splitmix(plain: Any) -> None:
    """Of seed, step and place."""
    module = plain("uniform")
    values = np.empty((5, 3))
    for seed, count in ((0, 0), (7, 1), (2**31 - 1, 12345)):
        module._fill_uniform(values, seed, count)
        expected = [uniform(seed, count, position) for position in range(values.size)]
        np.testing.assert_array_equal(values.ravel(), expected)


@pytest.mark.filterwarnings("ignore:overflow")
def test_numba_draws_normal_numbers(plain: Any) -> None:
    """Of two uniform ones each: by their formula, and by their moments."""
    module = plain("normal")
    values = np.empty((40, 50))
    module._fill_normal(values, 3, 2)
    expected = []
    for i in range(values.size):
        radius = math.sqrt(-2 * math.log(uniform(3, 2, 2 * i)))
        expected.append(radius * math.cos(2 * math.pi * uniform(3, 2, 2 * i + 1)))
    np.testing.assert_allclose(values.ravel(), expected, rtol=1e-12, atol=1e-13)
    # Means of 2000 numbers, whose variances are 1, 2, 15 and 96.
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((values**power).mean() - moment) < 4 * math.sqrt(variance / values.size)
