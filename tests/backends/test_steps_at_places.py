"""Steps of grouped Newton in both backends: classes as inputs, targets at places, statistics of batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numba_cases import load

from sifrc.compiler import Request, compile_spec
from sifrc.spec import build_spec

METHOD = {"name": "grouped_newton", "learning_rate": 0.1, "internal_damping": 3.0, "period": 2}
TOKENS = {
    "network": {
        "input": {"name": "tokens", "size": 3, "classes": 5},
        "layers": [
            {"name": "e", "type": "embedding", "units": 4, "init": {"kind": "normal", "value": 0.3}},
            {"name": "h", "type": "dense", "units": 4, "activation": "tanh"},
            {"name": "out", "type": "dense", "share": "e"},
        ],
    },
    "loss": "cross_entropy",
}
PIXELS = {
    "network": {
        "input": {"name": "image", "size": [2, 3, 2]},
        "layers": [
            {"name": "c", "type": "conv", "channels": 3, "kernel": 1, "activation": "tanh"},
            {"name": "out", "type": "conv", "channels": 4, "kernel": 1},
        ],
    },
    "loss": {"function": "cross_entropy", "axis": 1},
}
VECTORS = {**PIXELS, "loss": "mse"}
LEFT_OUT = {
    **TOKENS,
    "loss": {"function": "cross_entropy", "ignore_index": -100, "label_smoothing": 0.1},
}
NORMALISED = {
    "network": {
        "input": {"name": "image", "size": [2, 3, 2]},
        "layers": [
            {"name": "c", "type": "conv", "channels": 3, "kernel": 1, "bias": False},
            {"name": "b", "type": "batch_norm", "momentum": 0.3, "activation": "tanh"},
            {"name": "out", "type": "conv", "channels": 4, "kernel": 1},
        ],
    },
    "loss": {"function": "cross_entropy", "axis": 1},
}
CASES = {
    "tokens": TOKENS,
    "pixels": PIXELS,
    "vectors": VECTORS,
    "tokens left out": LEFT_OUT,
    "pixels normalised": NORMALISED,
}


def made(case: str, backend: str, folder: Path) -> Any:
    """The module of a case, without the JIT."""
    data = {"sifrc": 1, "name": "steps", "dtype": "float64", "method": METHOD, "partition": "weights-biases"}
    spec = build_spec({**data, **CASES[case], "target": {"backend": backend}})
    folder.mkdir()
    return load(compile_spec(spec, Request(backend=backend)).text, folder, jit=False)


def samples(case: str, count: int, seed: int) -> tuple[Any, Any]:
    """Inputs and targets."""
    rng = np.random.default_rng(seed)
    if "tokens" in case:
        targets = rng.integers(5, size=(count, 3))
        if "left out" in case:
            targets[rng.uniform(size=targets.shape) < 0.4] = -100
        return rng.integers(5, size=(count, 3)), targets
    inputs = rng.normal(size=(count, 2, 3, 2))
    return inputs, rng.integers(4, size=(count, 3, 2)) if "pixels" in case else rng.normal(
        size=(count, 4, 3, 2)
    )


@pytest.mark.parametrize("case", CASES)
def test_steps_of_both_backends_agree(case: str, tmp_path: Path) -> None:
    """A few steps, and an epoch of Numba's, which copies the samples by itself."""
    ours = made(case, "numba", tmp_path / "numba")
    theirs = made(case, "torch", tmp_path / "torch")
    params = ours.init(0)
    model = theirs.Network(seed=0)
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in params.items()})
    optimizer, state = theirs.Optimizer(model), ours.State(params)
    inputs, targets = samples(case, 12, 1)
    for start in range(0, 12, 4):
        part = slice(start, start + 4)
        found = ours.step(params, state, inputs[part], targets[part])
        expected = optimizer.step(torch.from_numpy(inputs[part]), torch.from_numpy(targets[part]))
        assert found == pytest.approx(float(expected), rel=1e-12)
    total = ours.train_epoch(params, state, inputs, targets, np.arange(12), 4)
    expected = [
        float(optimizer.step(torch.from_numpy(inputs[n : n + 4]), torch.from_numpy(targets[n : n + 4])))
        for n in range(0, 12, 4)
    ]
    assert total == pytest.approx(np.mean(expected), rel=1e-10)
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(params[name], value.numpy(), rtol=1e-9, atol=1e-12)
