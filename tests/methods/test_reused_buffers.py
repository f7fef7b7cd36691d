"""Steps keep nothing of the caller's arrays: one buffer for all batches gives what fresh arrays give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
import torch

from sifrc.cache import load_text
from sifrc.compiler import Request, compile_spec
from sifrc.spec import build_spec

METHODS: Mapping[str, dict[str, Any]] = {
    "mk": {"name": "mk"},
    "esn": {"name": "esn"},
    "ea_cg": {"name": "ea_cg", "period": 3},
    "kfi": {"name": "ea_cg", "solver": "kfi", "kind": "ggn", "period": 3},
    "grouped_newton": {"name": "grouped_newton", "period": 2},
}
BATCH = 5


def network(method: dict[str, Any]) -> dict[str, Any]:
    layers = [
        {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
        {"name": "fc2", "type": "dense", "units": 3},
    ]
    return {
        "sifrc": 1,
        "name": f"buffers_{method['name']}_{method.get('solver', '')}",
        "network": {"input": {"name": "image", "size": 4}, "layers": layers},
        "loss": "squared_error",
        "regularization": {"state": 0.1},
        "dtype": "float64",
        "method": method,
    }


@pytest.fixture(autouse=True)
def plain_python() -> Iterator[None]:
    """Numba's functions without its JIT."""
    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = True
    yield
    numba.config.DISABLE_JIT = before


def load(name: str, backend: str, folder: Path) -> ModuleType:
    compiled = compile_spec(build_spec(network(METHODS[name])), Request(backend=backend))
    return load_text(f"{compiled.name}_buffers", folder / f"{compiled.name}_buffers.py", compiled.text)


class Run:
    """Parameters and state of a module, and steps on arrays that are fresh, or always the same two."""

    def __init__(self, module: ModuleType, reuse: bool) -> None:
        self.module, self.reuse = module, reuse
        self.torch = hasattr(module, "torch")
        self.buffers: dict[Any, Any] = {}
        if self.torch:
            self.model = module.Network(0)
            self.optimizer = module.Optimizer(self.model)
        else:
            self.params = module.init(0)
            self.state = module.State(self.params)

    def given(self, array: np.ndarray, name: str) -> Any:
        value = torch.from_numpy(array.copy()) if self.torch else array.copy()
        if not self.reuse:
            return value
        buffer = self.buffers.setdefault((name, array.shape), value)
        buffer[...] = value
        return buffer

    def spoil(self) -> None:
        """What the next batch would do to the buffers, at its worst."""
        for buffer in self.buffers.values():
            buffer[...] = np.nan

    def step(self, inputs: np.ndarray, targets: np.ndarray, curvature: Any) -> float:
        data = self.given(inputs, "inputs"), self.given(targets, "targets")
        more = {}
        if curvature is not None:
            more["curvature"] = self.given(curvature[0], "other"), self.given(curvature[1], "other targets")
        if self.torch:
            result = float(self.optimizer.step(*data, **more))
        else:
            result = self.module.step(self.params, self.state, *data, **more)
        self.spoil()
        return result

    def refresh(self, inputs: np.ndarray, targets: np.ndarray) -> None:
        data = self.given(inputs, "other"), self.given(targets, "other targets")
        if self.torch:
            self.optimizer.refresh(*data)
        else:
            self.module.refresh(self.params, self.state, *data)
        self.spoil()

    def parameters(self) -> dict[str, np.ndarray]:
        found = dict(self.model.named_parameters()) if self.torch else self.params
        return {name: np.array(value.detach() if self.torch else value) for name, value in found.items()}


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("name", METHODS)
def test_one_buffer_for_all_batches(name: str, backend: str, tmp_path: Path) -> None:
    """Overwritten after every call, between steps that use what a step before computed."""
    module = load(name, backend, tmp_path)
    batch = 1 if name == "mk" else BATCH
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((batch, 4)), rng.standard_normal((batch, 3))) for _ in range(6)]
    runs = [Run(module, reuse) for reuse in (False, True)]
    owner = runs[0].optimizer if backend == "torch" else module
    refreshes = hasattr(owner, "refresh")
    for number, (inputs, targets) in enumerate(batches):
        other = None
        if name == "grouped_newton":
            other = rng.standard_normal((8, 4)), rng.standard_normal((8, 3))
        if refreshes and number == 4:
            for run in runs:
                run.refresh(inputs + 1, targets)
        first, second = (run.step(inputs, targets, other) for run in runs)
        assert first == second and np.isfinite(first)
    expected, found = (run.parameters() for run in runs)
    for key, value in expected.items():
        assert np.isfinite(value).all()
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    assert refreshes == (name in ("ea_cg", "kfi"))
