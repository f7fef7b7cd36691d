"""Maxima by index in modules: ties as PyTorch has them, and what is not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from curvature_modules import load
from curvature_oracle import assert_close
from torch import Tensor
from torch.func import grad
from torch.nn import functional as F

from sifrc.spec import Spec, build_spec

BATCH = 3
KEYS = {"kernel": [2, 3], "stride": [1, 2], "padding": [1, 1]}


def spec_of() -> Spec:
    """A convolution without an activation, a maximum and a dense layer."""
    layers = [
        {"name": "c", "type": "conv", "channels": 2, "kernel": 1},
        {"name": "r", "type": "pool", "function": "max", **KEYS},
        {"name": "f", "type": "flatten"},
        {"name": "out", "type": "dense", "units": 2},
    ]
    network = {"input": {"name": "x0", "size": [2, 4, 5]}, "layers": layers}
    head = {"sifrc": 1, "name": "maxima", "dtype": "float64", "loss": "squared_error"}
    return build_spec(head | {"network": network})


def network(values: dict[str, Tensor], x: Tensor) -> Tensor:
    """The forward pass of ``spec_of`` with PyTorch's own maximum."""
    h = F.conv2d(x, values["c.weight"], values["c.bias"])
    return F.max_pool2d(h, (2, 3), (1, 2), (1, 1)).flatten(1) @ values["out.weight"].T + values["out.bias"]


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_ties_and_what_is_not_finite(backend: str, tmp_path: Path) -> None:
    """Of equal entries the first one is followed, as PyTorch does; NaN and infinity come out."""
    module = load(spec_of(), backend, tmp_path, ("gradient",))

    def own(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: own(v) for k, v in value.items()}
        return value if backend == "torch" else value.numpy()

    generator = torch.Generator().manual_seed(1)
    params = {n: torch.randn(*s, generator=generator, dtype=torch.float64) for n, s in module.SHAPES.items()}
    params["c.weight"][0] = 0.0  # all entries of the first channel are equal
    x = torch.randn(BATCH, 2, 4, 5, generator=generator, dtype=torch.float64)
    t = torch.randn(BATCH, 2, generator=generator, dtype=torch.float64)
    expected = grad(lambda values: ((network(values, x) - t) ** 2).sum() / (2 * BATCH))(params)
    assert_close(module.gradient(own(params), own(x), own(t)), expected)
    params["out.weight"] = torch.eye(2, params["out.weight"].shape[1], dtype=torch.float64)
    for value in (torch.nan, torch.inf, -torch.inf):
        for place in ((0, 0, 0, 0), (1, 1, 1, 0), (2, 1, 1, 1)):
            params["c.weight"] = torch.eye(2, dtype=torch.float64)[..., None, None]
            changed = x.clone()
            changed[place] = value
            if value == -torch.inf:
                changed[:, :, :3, :2] = value  # whole windows
            found = np.asarray(module.predict(own(params), own(changed)))
            np.testing.assert_array_equal(found, network(params, changed).numpy())
