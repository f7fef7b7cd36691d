"""The verification of curvature where weights act at several places, or the output has several axes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import pytest

from sifrc.cache import entry_name, module_from_cache
from sifrc.compiler import Request, compile_spec
from sifrc.spec import Spec, build_spec
from sifrc.verify.ladder import verify

OPERATORS = ("block_hessian", "curvature_factors", "block_vector_product", "diagonal", "trace")
FACTORED = ["ggn", "fisher", "sampled_fisher", "empirical_fisher"]
DENSE = [
    {"name": "fc1", "type": "dense", "units": 2, "activation": "tanh"},
    {"name": "fc2", "type": "dense", "units": 3},
]
PIXELS = [
    {"name": "c1", "type": "conv", "channels": 2, "kernel": 2, "activation": "tanh"},
    {"name": "c2", "type": "conv", "channels": 3, "kernel": 1},
]
WINDOWS = [
    {"name": "c1", "type": "conv", "channels": 2, "kernel": 2, "padding": [1, 0], "activation": "tanh"},
    {"name": "pool", "type": "pool", "function": "max", "kernel": [2, 1]},
    {"name": "flat", "type": "flatten"},
    {"name": "out", "type": "dense", "units": 2},
]
CASES: dict[str, tuple[list[int], list[dict[str, Any]], Any, list[str]]] = {
    "tokens": ([2, 2], DENSE, "cross_entropy", [*FACTORED, "hessian", "pch1"]),
    "ignored": (
        [2, 2],
        DENSE,
        {"function": "cross_entropy", "reduction": "sum", "ignore_index": 0},
        FACTORED,
    ),
    "vectors": ([2, 2], DENSE, "mse", [*FACTORED, "kfra"]),
    "pixels": ([1, 3, 2], PIXELS, {"function": "cross_entropy", "axis": 1}, FACTORED),
    "windows": ([1, 3, 2], WINDOWS, "cross_entropy", [*FACTORED, "pch2"]),
}


def spec_of(name: str, backend: str = "torch") -> Spec:
    size, layers, loss, kinds = CASES[name]
    network = {"input": {"name": "x", "size": size}, "layers": layers}
    head = {"sifrc": 1, "name": name, "dtype": "float64", "network": network, "loss": loss}
    return build_spec(
        {**head, "curvature": kinds, "target": {"backend": backend, "operators": list(OPERATORS)}}
    )


def load(spec: Spec, backend: str, folder: Path) -> Any:
    text = compile_spec(spec, Request(backend=backend)).text
    return module_from_cache(entry_name("places", {"text": text}), lambda: text, folder)


def cases(*fast: str) -> list[Any]:
    """All of them, those that are not named as slow tests."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("name", cases("tokens"))
def test_many_digits(name: str) -> None:
    report = verify(spec_of(name), levels=(2,), quantities=OPERATORS)
    assert report.passed, report.text()


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("name", cases("ignored", "pixels"))
def test_modules(name: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    spec = spec_of(name, backend)
    shown = SimpleNamespace(**vars(load(spec, backend, tmp_path)))
    framework = "torch" if backend == "torch" else "numpy"
    report = verify(spec, levels=(3,), module=shown, framework=framework, quantities=OPERATORS)
    assert report.passed, report.text()


@pytest.mark.parametrize("operator", ["curvature_factors", "block_vector_product"])
def test_the_other_sharing_is_found(operator: str, tmp_path: Path) -> None:
    """A module that sums over the wrong pairs of places does not pass."""
    spec = spec_of("tokens")
    made = load(spec, "torch", tmp_path)

    def swapped(*arguments: Any, sharing: str = "expand", **more: Any) -> Any:
        other = "reduce" if sharing == "expand" else "expand"
        return getattr(made, operator)(*arguments, sharing=other, **more)

    wrong = SimpleNamespace(**{**vars(made), operator: swapped})
    report = verify(spec, levels=(3,), module=wrong, framework="torch", quantities=OPERATORS)
    assert {row.quantity for row in report.failures} == {operator}
