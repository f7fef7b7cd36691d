"""Parameters that begin as those of PyTorch's layers: uniform, as far as one over the root of the fan-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from curvature_modules import load
from torch import nn

from sifrc.errors import SpecError
from sifrc.spec import build_spec, spec_to_dict
from sifrc.spec.types import Spec

INIT = "uniform"
LAYERS: list[dict[str, Any]] = [
    {"name": "c", "type": "conv", "channels": 8, "kernel": [3, 5], "groups": 2, "init": INIT},
    {"name": "t", "type": "conv", "channels": 6, "kernel": 3, "groups": 2, "transposed": True, "init": INIT},
    {"name": "f", "type": "reshape", "sizes": [6, -1]},
    {"name": "r", "type": "gru", "units": 20, "bidirectional": True, "init": INIT},
    {"name": "out", "type": "dense", "units": 40, "init": INIT},
]


def spec_of(init: Any = None) -> Spec:
    layers = [{**layer, **({"init": init} if init and "init" in layer else {})} for layer in LAYERS]
    return build_spec(
        {
            "sifrc": 1,
            "name": "start",
            "loss": "mse",
            "network": {"input": {"size": [4, 6, 8]}, "layers": layers},
        }
    )


def limits() -> dict[str, float]:
    """The largest that PyTorch's layers reach, by many draws of each."""
    found: dict[str, float] = {}
    for _ in range(40):
        for name, layer in (
            ("c", nn.Conv2d(4, 8, (3, 5), groups=2)),
            ("t", nn.ConvTranspose2d(8, 6, 3, groups=2)),
            ("out", nn.Linear(40, 40)),
        ):
            for slot, value in layer.named_parameters():
                found[f"{name}.{slot}"] = max(found.get(f"{name}.{slot}", 0.0), float(value.abs().max()))
        for slot, value in nn.GRU(36, 20, bidirectional=True).named_parameters():
            kind, part = slot.split("_", 1)
            name = f"r.{part}.{kind}"
            found[name] = max(found.get(name, 0.0), float(value.abs().max()))
    return found


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_limits(backend: str, tmp_path: Path) -> None:
    """Weights and biases reach as far as those of PyTorch's layers, and are all different."""
    module = load(spec_of(), backend, tmp_path, ("gradient",))
    start = module.initialize if backend == "torch" else module.init
    many = [{name: np.asarray(value) for name, value in start(seed).items()} for seed in range(40)]
    for name, limit in limits().items():
        drawn = np.stack([values[name] for values in many])
        assert abs(drawn).max() == pytest.approx(limit, rel=0.1), name
        assert len(np.unique(drawn)) > 0.99 * drawn.size
        assert abs(drawn.mean()) < 0.2 * limit


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_limit_of_ones_own(backend: str, tmp_path: Path) -> None:
    """The same for all tensors of the layer."""
    spec = spec_of({"kind": "uniform", "value": 0.08})
    assert build_spec(spec_to_dict(spec)) == spec
    module = load(spec, backend, tmp_path, ("gradient",))
    start = module.initialize(0) if backend == "torch" else module.init(0)
    largest = max(float(abs(np.asarray(value)).max()) for value in start.values())
    assert 0.079 < largest <= 0.08


def test_a_limit_is_positive() -> None:
    """Zero is another start."""
    with pytest.raises(SpecError, match="the limit of a uniform start is more than zero"):
        spec_of({"kind": "uniform", "value": 0.0})
