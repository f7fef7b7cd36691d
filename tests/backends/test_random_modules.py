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
from cases import CASES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import specs

from sifrc.cache import load_text
from sifrc.compiler import Request, compile_spec
from sifrc.methods.operators import OPERATORS
from sifrc.spec import Spec, build_spec
from sifrc.verify.generated import generated_rows

RANDOM = settings(
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
SMOOTH = tuple(name for name in OPERATORS if name != "newton_direction")


def load(spec: Spec, backend: str, operators: tuple[str, ...], folder: Path) -> ModuleType:
    """The module of a spec, without the cache."""
    compiled = compile_spec(spec, Request(backend=backend, method="none", operators=operators))
    path = folder / f"{compiled.name}_{abs(hash(compiled.text))}.py"
    path.write_text(compiled.text, encoding="utf-8")
    return load_text(path.stem, path, compiled.text)


def agree(spec: Spec, module: ModuleType, framework: str, seed: int) -> None:
    """Every operator that the module has agrees with the oracle to rounding."""
    rows = [check() for _, _, check in generated_rows(spec, module, framework, seed)]
    found = [row for row in rows if row is not None]
    assert len(found) >= 5
    for row in found:
        assert row.passed, row


@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=110)
def test_torch_module_of_a_random_network(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """Loss, gradient, Hessian– and Gauss–Newton–vector products of a random graph."""
    spec = build_spec(data)
    agree(spec, load(spec, "torch", SMOOTH, tmp_path_factory.mktemp("torch")), "torch", seed)


@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=110)
def test_numba_module_of_a_random_network(data: dict[str, Any], seed: int, tmp_path_factory: Any) -> None:
    """The same through the Numba backend, with the JIT off."""
    spec = build_spec(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        module = load(spec, "numba", SMOOTH, tmp_path_factory.mktemp("numba"))
        agree(spec, module, "numpy", seed)


@pytest.mark.slow
@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=10)
def test_compiled_numba_module_of_a_random_network(
    data: dict[str, Any], seed: int, tmp_path_factory: Any
) -> None:
    """The same, compiled."""
    spec = build_spec(data)
    agree(spec, load(spec, "numba", SMOOTH, tmp_path_factory.mktemp("compiled")), "numpy", seed)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("name", CASES)
def test_named_case(name: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every named case, the Newton direction included where it exists."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    spec = build_spec(dict(CASES[name]))
    operators = tuple(OPERATORS)
    try:
        module = load(spec, backend, operators, tmp_path)
    except Exception:
        module = load(spec, backend, SMOOTH, tmp_path)
    agree(spec, module, "torch" if backend == "torch" else "numpy", 5)
