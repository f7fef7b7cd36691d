"""Systems of the softmax are singular along (1, …, 1): no last bit decides what is found there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from compiling import compile_once

from sifrc.cache import load_text
from sifrc.compiler import Request
from sifrc.spec import build_spec

LAYERS = [
    {"name": "fc1", "type": "dense", "units": 3, "activation": "tanh"},
    {"name": "out", "type": "dense", "units": 4},
]
MARGIN = 50.0
"""Of the relative change of a step: last bits times the condition, which is that of the least probability."""
SIZES = {"float64": (1, 3, 6), "float32": (1, 2, 3)}
"""Factors of the last weights: softmaxes from flat to saturated, where float32 has few digits left."""


def module_of(variant: str, dtype: str, backend: str, folder: Path) -> Any:
    """A module of ESN for cross-entropy."""
    network = {"input": {"size": 3}, "layers": LAYERS}
    head = {"sifrc": 1, "name": "centred", "network": network, "loss": "cross_entropy", "dtype": dtype}
    method = {"name": "esn", "variant": variant}
    spec = build_spec(head | {"regularization": {"state": 0.01}, "method": method})
    text = compile_once(spec, Request(backend=backend)).text
    name = f"centred_{variant}_{dtype}_{backend}"
    return load_text(name, folder / f"{name}.py", text)


def least_probability(params: Mapping[str, np.ndarray], x: np.ndarray) -> float:
    """Of the softmax at the parameters: the inverse of its curvature is as large as the inverse of it."""
    p = {name: value.astype(np.float64) for name, value in params.items()}
    y = p["out.weight"] @ np.tanh(p["fc1.weight"] @ x + p["fc1.bias"]) + p["out.bias"]
    softmax = np.exp(y - y.max())
    return float(softmax.min() / softmax.sum())


def stepped(module: Any, params: Mapping[str, np.ndarray], x: np.ndarray, target: int) -> np.ndarray:
    """What a step adds to the parameters."""
    if not hasattr(module, "torch"):
        ours = {name: value.copy() for name, value in params.items()}
        module.step(ours, module.State(ours), x[None], np.array([target]))
        return np.concatenate([(ours[name] - value).ravel() for name, value in params.items()])
    network = module.Network(0)
    named = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in params.items():
            named[name].copy_(torch.from_numpy(value))
    module.Optimizer(network).step(torch.from_numpy(x[None]), torch.tensor([target]))
    return np.concatenate([(named[name].detach().numpy() - value).ravel() for name, value in params.items()])


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("variant", ["exact", "saddle_free"])
def test_last_bits_do_not_decide(
    variant: str, dtype: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps at parameters that differ in their last bits, from flat softmaxes to saturated ones."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    module = module_of(variant, dtype, backend, tmp_path)
    rng = np.random.default_rng(0)
    eps = np.finfo(dtype).eps
    made = 0
    for trial in range(24):
        params = {name: rng.standard_normal(shape).astype(dtype) for name, shape in module.SHAPES.items()}
        params["out.weight"] *= SIZES[dtype][trial % 3]
        x, target = rng.standard_normal(3).astype(dtype), int(rng.integers(4))
        try:
            found = [
                stepped(
                    module, {n: (v * (1 + eps * sign)).astype(dtype) for n, v in params.items()}, x, target
                )
                for sign in (0, 1, -1)
            ]
        except FloatingPointError:
            continue
        made += 1
        allowed = MARGIN * eps / least_probability(params, x) * np.abs(found[0]).max()
        for other in found[1:]:
            assert np.abs(other - found[0]).max() <= allowed, trial
    assert made >= 12
