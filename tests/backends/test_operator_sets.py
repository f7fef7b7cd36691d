"""Modules with one operator or two: they compute what the module with all of them does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from types import ModuleType

import numba
import numpy as np
import pytest
from compiling import compile_once
from operator_calls import NETWORKS, arrays_in, calls, given

from sifrc.cache import load_text
from sifrc.catalogue.registry import OPERATORS
from sifrc.compiler import Request
from sifrc.spec import build_spec

NAME = "cross entropy"
PAIRS = list(combinations(OPERATORS, 2))

Make = Callable[[str, Sequence[str]], ModuleType]


@pytest.fixture(scope="module")
def module_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """A module with some operators, of every kind of curvature; those of Numba without its JIT."""
    folder = tmp_path_factory.mktemp("sets")
    whole: dict[str, ModuleType] = {}

    def module(backend: str, operators: Sequence[str]) -> ModuleType:
        if operators is OPERATORS and backend in whole:
            return whole[backend]
        request = Request(backend=backend, method="none", operators=tuple(operators))
        text = compile_once(build_spec(NETWORKS[NAME]), request).text
        name = f"{'_'.join(operators) if operators is not OPERATORS else 'whole'}_{backend}"
        found = load_text(name, folder / f"{name}.py", text)
        if operators is OPERATORS:
            whole[backend] = found
        return found

    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = True
    yield module
    numba.config.DISABLE_JIT = before


def _compared(module_of: Make, backend: str, operators: Sequence[str]) -> None:
    module, whole = module_of(backend, operators), module_of(backend, OPERATORS)
    expected = dict(calls(whole, given(whole)))
    found = dict(calls(module, given(module)))
    assert {text.partition(",")[0] for text in found} >= set(operators)
    for text, call in found.items():
        # Of float32: what is shared between operators is not summed in one order.
        for one, other in zip(arrays_in(call()), arrays_in(expected[text]()), strict=True):
            scale = np.abs(other).max(initial=0.0)
            np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * scale + 1e-9, err_msg=text)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_alone(module_of: Make, operator: str, backend: str) -> None:
    """Nothing of an operator is there by grace of another one."""
    _compared(module_of, backend, (operator,))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_two_operators(module_of: Make, pair: tuple[str, str], backend: str) -> None:
    """Nor of two."""
    _compared(module_of, backend, pair)
