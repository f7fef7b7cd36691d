"""Generated modules of random networks against torch.func, in both backends.

The oracle reads the spec's syntax trees with torch operations; it shares no code with the compiler. Numba
modules run with the JIT off, a few compiled.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import pytest
from cases import CASES, marked
from compiling import compile_once
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import specs

from sifrc.cache import load_text
from sifrc.catalogue.derivatives import DERIVATIVES
from sifrc.compiler import Request
from sifrc.errors import DerivationError
from sifrc.spec import Spec, build_spec
from sifrc.verify.generated import generated_rows
from sifrc.verify.records import looked_at
from sifrc.verify.subjects.module import Framework

RANDOM = settings(
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
SMOOTH = tuple(one.name for one in DERIVATIVES.operators if one.name != "newton_direction")


def sources(spec: Spec, operators: tuple[str, ...]) -> dict[str, str]:
    """Backend -> text of the module; derived and lowered once for both."""
    return {name: source(spec, name, operators) for name in ("torch", "numba")}


def source(spec: Spec, backend: str, operators: tuple[str, ...]) -> str:
    """Text of one module."""
    return compile_once(spec, Request(backend=backend, method="none", operators=operators)).text


def load(text: str, folder: Path) -> ModuleType:
    """The module of a text, without the cache."""
    path = folder / f"random_{abs(hash(text))}.py"
    path.write_text(text, encoding="utf-8")
    return load_text(path.stem, path, text)


def agree(spec: Spec, module: ModuleType, framework: Framework, seed: int) -> None:
    """Every operator that the module has agrees with the oracle to rounding."""
    looked = looked_at(spec, [one.name for one in DERIVATIVES.operators])
    rows = [check() for _, _, check in generated_rows(spec, looked, module, framework, seed)]
    found = [row for row in rows if row is not None]
    assert len(found) >= 5
    for row in found:
        assert row.passed, row


@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=5)
def test_modules_of_a_random_network(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """Loss, gradient, Hessian– and Gauss–Newton–vector products of a random graph; the JIT is off."""
    spec = build_spec(data)
    folder = tmp_path_factory.mktemp("random")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        for text, framework in zip(sources(spec, SMOOTH).values(), ("torch", "numpy"), strict=True):
            agree(spec, load(text, folder), framework, seed)


@pytest.mark.slow
@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=60)
def test_modules_of_many_random_networks(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """The same on many more."""
    test_modules_of_a_random_network.hypothesis.inner_test(data, seed, tmp_path_factory)


@pytest.mark.slow
@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=6)
def test_compiled_numba_module_of_a_random_network(
    data: dict[str, Any], seed: int, tmp_path_factory: Any
) -> None:
    """The same, compiled."""
    spec = build_spec(data)
    agree(spec, load(sources(spec, SMOOTH)["numba"], tmp_path_factory.mktemp("compiled")), "numpy", seed)


@pytest.mark.parametrize("name", marked(CASES))
def test_named_case(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every named case in both backends, the Newton direction included where it exists."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    spec = build_spec(dict(CASES[name]))
    try:
        texts = sources(spec, tuple(one.name for one in DERIVATIVES.operators))
    except DerivationError:
        texts = sources(spec, SMOOTH)
    for text, framework in zip(texts.values(), ("torch", "numpy"), strict=True):
        agree(spec, load(text, tmp_path), framework, 5)
