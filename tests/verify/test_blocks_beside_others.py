"""Verification of Kronecker factors beside norms, embeddings, attention and channels in groups."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sifrc.cache import entry_name, module_from_cache
from sifrc.compiler import Request, compile_spec
from sifrc.spec import Spec, build_spec
from sifrc.verify.ladder import verify

OPERATORS = ("block_hessian", "curvature_factors", "block_vector_product", "diagonal", "trace")
FACTORED = ["ggn", "fisher", "sampled_fisher", "empirical_fisher"]
TOKENS = [
    {"name": "wte", "type": "embedding", "units": 3},
    {"name": "wpe", "type": "positions"},
    {"name": "n1", "type": "layer_norm"},
    {"name": "at", "type": "attention", "heads": 1, "causal": True},
    {"name": "add", "type": "add", "inputs": ["wpe", "at"]},
    {"name": "n2", "type": "rms_norm"},
    {"name": "out", "type": "dense", "units": 2},
]
PIXELS = [
    {"name": "pairs", "type": "conv", "channels": 4, "kernel": [2, 1], "groups": 2, "activation": "tanh"},
    {"name": "n", "type": "group_norm", "groups": 2},
    {"name": "depth", "type": "conv", "channels": 4, "kernel": 1, "groups": 4},
    {"name": "up", "type": "conv", "channels": 2, "kernel": [1, 2], "transposed": True},
    {"name": "round", "type": "conv", "channels": 2, "kernel": 3, "padding": 1, "mode": "circular"},
    {"name": "flat", "type": "flatten"},
    {"name": "out", "type": "dense", "units": 2},
]
VECTORS = [
    {"name": "fc1", "type": "dense", "units": 3, "activation": "tanh"},
    {"name": "n1", "type": "layer_norm"},
    {"name": "fc2", "type": "dense", "units": 2},
]
CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "tokens": ({"size": 2, "classes": 3}, TOKENS),
    "pixels": ({"size": [2, 3, 2]}, PIXELS),
    "vectors": ({"size": 2}, VECTORS),
}


def spec_of(name: str, backend: str = "torch", more: tuple[str, ...] = ()) -> Spec:
    source, layers = CASES[name]
    network = {"input": {"name": "x", **source}, "layers": layers}
    head = {"sifrc": 1, "name": name, "dtype": "float64", "network": network, "loss": "cross_entropy"}
    target = {"backend": backend, "operators": [*OPERATORS]}
    return build_spec({**head, "curvature": [*FACTORED, *more], "target": target})


def load(spec: Spec, backend: str, folder: Path) -> Any:
    text = compile_spec(spec, Request(backend=backend)).text
    return module_from_cache(entry_name("beside", {"text": text}), lambda: text, folder)


def cases(*fast: str) -> list[Any]:
    """All of them, those that are not named as slow tests."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("name", cases("vectors"))
def test_many_digits(name: str) -> None:
    more = () if name == "pixels" else ("hessian",)
    report = verify(spec_of(name, more=more), levels=(1, 2), quantities=OPERATORS)
    assert report.passed, report.text()


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("name", cases("tokens", "vectors"))
def test_modules(name: str, backend: str, tmp_path: Path) -> None:
    spec = spec_of(name, backend)
    shown = SimpleNamespace(**vars(load(spec, backend, tmp_path)))
    framework = "torch" if backend == "torch" else "numpy"
    report = verify(spec, levels=(3,), module=shown, framework=framework, quantities=OPERATORS)
    assert report.passed, report.text()


def test_wrong_factors_are_found(tmp_path: Path) -> None:
    """Of classes a moment of another class, and of others a diagonal with a sign changed."""
    spec = spec_of("tokens")
    made = load(spec, "torch", tmp_path)

    def factors(*arguments: Any, **more: Any) -> Any:
        found = made.curvature_factors(*arguments, **more)
        found["wte"] = found["wte"]._replace(moment=found["wte"].moment.flip(0))
        return found

    def diagonal(*arguments: Any, others: bool = False, **more: Any) -> Any:
        found = made.diagonal(*arguments, others=others, **more)
        return {name: -value if others and name == "n2.weight" else value for name, value in found.items()}

    wrong = SimpleNamespace(**{**vars(made), "curvature_factors": factors, "diagonal": diagonal})
    report = verify(spec, levels=(3,), module=wrong, framework="torch", quantities=OPERATORS)
    assert {row.quantity for row in report.failures} == {"curvature_factors", "diagonal"}
