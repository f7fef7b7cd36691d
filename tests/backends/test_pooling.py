"""Pooling and convolutions in all their settings as PyTorch's own: random forward passes, and derivatives."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from curvature_modules import load
from curvature_oracle import assert_close
from sampled import one_in
from torch import Tensor, nn
from torch.func import grad, jvp
from torch.nn import functional as F

import sifrc
from sifrc.derive.derived import Derived
from sifrc.errors import SpecError
from sifrc.model import build_model
from sifrc.spec import build_spec, spec_to_dict
from sifrc.spec.types import Spec
from sifrc.verify.ladder import verify
from sifrc.verify.precise.systems import SampleSystems

Made = tuple[dict[str, Any], Callable[[Tensor], Tensor], dict[str, Tensor]]
"""A layer, what PyTorch computes, and its parameters."""


def by_axes(name: str, axes: int) -> Any:
    return getattr(F, f"{name}{axes}d")


def largest(pick: random.Random, channels: int, size: list[int]) -> Made:
    kernel = [pick.randint(1, 3) for _ in size]
    keys: dict[str, Any] = {
        "kernel": kernel,
        "stride": [pick.randint(1, 3) for _ in size],
        "padding": [pick.randint(0, n // 2) for n in kernel],
        "dilation": [pick.randint(1, 2) for _ in size],
        "ceil": pick.random() < 0.5,
    }
    own = by_axes("max_pool", len(size))
    return {"type": "pool", "function": "max", **keys}, lambda x: own(x, *keys.values()), {}


def average(pick: random.Random, channels: int, size: list[int]) -> Made:
    kernel = [pick.randint(1, 3) for _ in size]
    keys: dict[str, Any] = {
        "kernel": kernel,
        "stride": [pick.randint(1, 3) for _ in size],
        "padding": [pick.randint(0, n // 2) for n in kernel],
        "ceil": pick.random() < 0.7,
        "count_padding": pick.random() < 0.6,
    }
    own = by_axes("avg_pool", len(size))
    return {"type": "pool", "function": "average", **keys}, lambda x: own(x, *keys.values()), {}


def to_places(pick: random.Random, channels: int, size: list[int]) -> Made:
    function, output = pick.choice(["average", "max"]), [pick.randint(1, n + 1) for n in size]
    own = by_axes({"average": "adaptive_avg_pool", "max": "adaptive_max_pool"}[function], len(size))
    return {"type": "pool", "function": function, "output": output}, lambda x: own(x, output), {}


def convolution(pick: random.Random, channels: int, size: list[int]) -> Made:
    mode, same = pick.choice(["zeros", "circular", "reflect", "replicate"]), pick.random() < 0.5
    groups = pick.choice([1, channels])
    keys: dict[str, Any] = {
        "kernel": [pick.randint(1, 4) for _ in size],
        "stride": 1 if same else [pick.randint(1, 2) for _ in size],
        "padding": "same" if same else [pick.randint(0, n - 1) for n in size],
        "dilation": [pick.randint(1, 2) for _ in size],
        "groups": groups,
    }
    kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    made = kinds[len(size)](channels, 2 * groups, *keys.values(), padding_mode=mode, dtype=torch.float64)
    return {"type": "conv", "channels": 2 * groups, "mode": mode, **keys}, made, dict(made.named_parameters())


def transposed(pick: random.Random, channels: int, size: list[int]) -> Made:
    groups = pick.choice([1, channels])
    keys: dict[str, Any] = {
        "kernel": [pick.randint(1, 3) for _ in size],
        "stride": [pick.randint(1, 3) for _ in size],
        "padding": [pick.randint(0, 2) for _ in size],
        "output_padding": [pick.randint(0, 2) for _ in size],
        "groups": groups,
        "dilation": [pick.randint(1, 2) for _ in size],
    }
    kinds = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
    *first, dilation = keys.values()
    made = kinds[len(size)](channels, 2 * groups, *first, dilation=dilation, dtype=torch.float64)
    layer = {"type": "conv", "channels": 2 * groups, "transposed": True, **keys}
    return layer, made, dict(made.named_parameters())


DRAWS = [largest, average, to_places, convolution, transposed]


@pytest.mark.parametrize("draw", DRAWS)
def test_forward_passes(draw: Callable[[random.Random, int, list[int]], Made]) -> None:
    """What PyTorch computes is computed, and what it refuses is refused."""
    pick, compared = random.Random(7), 0
    for _ in range(30):
        axes, channels = pick.choice([1, 2, 3]), pick.choice([1, 2, 4])
        size = [pick.randint(3, 6 if axes < 3 else 4) for _ in range(axes)]
        torch.manual_seed(pick.randint(0, 1000))
        x = torch.randn(1, channels, *size, dtype=torch.float64)
        layer, own, parameters = draw(pick, channels, size)
        try:
            expected = own(x)[0].detach().numpy()
        except RuntimeError:
            with pytest.raises(SpecError):
                spec_of(layer, [channels, *size])
            continue
        spec = spec_of(layer, [channels, *size])
        assert build_spec(spec_to_dict(spec)) == spec
        assert spec.shapes["r"] == expected.shape
        params = {f"r.{name}": value.detach().numpy() for name, value in parameters.items()}
        places = expected.shape[1:]
        params |= {"q.weight": np.ones((1, expected.shape[0], *(1 for _ in places))), "q.bias": np.zeros(1)}
        model = build_model(spec)
        systems = SampleSystems(Derived(model), params, x[0].numpy(), np.zeros((1, *places)))
        (state,) = (c.state for c in model.constraints if c.name == "r")
        np.testing.assert_allclose(systems.env[state], expected, rtol=1e-12, atol=1e-12, err_msg=str(layer))
        compared += 1
    assert compared > 10


def spec_of(layer: dict[str, Any], size: list[int]) -> Spec:
    """The layer before a convolution of single places."""
    layers = [{"name": "r", **layer}, {"name": "q", "type": "conv", "channels": 1, "kernel": 1}]
    return build_spec(
        {
            "sifrc": 1,
            "name": "windows",
            "dtype": "float64",
            "loss": "squared_error",
            "network": {"input": {"name": "x0", "size": size}, "layers": layers},
        }
    )


CASES: dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "a maximum with gaps": (
        {
            "function": "max",
            "kernel": [2, 3],
            "stride": 2,
            "dilation": [2, 1],
            "padding": [0, 1],
            "ceil": True,
        },
        lambda x: F.max_pool2d(x, (2, 3), 2, (0, 1), (2, 1), True),
    ),
    "means of ninths": (
        {"function": "average", "kernel": 3, "stride": 2, "padding": [1, 0]},
        lambda x: F.avg_pool2d(x, 3, 2, (1, 0)),
    ),
    "means beyond their padding": (
        {"function": "average", "kernel": 3, "stride": 2, "padding": [1, 0], "ceil": True},
        lambda x: F.avg_pool2d(x, 3, 2, (1, 0), True),
    ),
    "means of different windows": (
        {"function": "average", "output": [3, 4]},
        lambda x: F.adaptive_avg_pool2d(x, (3, 4)),
    ),
    "maxima of different windows": (
        {"function": "max", "output": [3, 2]},
        lambda x: F.adaptive_max_pool2d(x, (3, 2)),
    ),
}


def own(module: ModuleType, value: Any) -> Any:
    """In the arrays of the module."""
    if hasattr(module, "torch"):
        return value
    return {k: own(module, v) for k, v in value.items()} if isinstance(value, dict) else value.numpy()


def pooled(case: str) -> Spec:
    """A convolution before the layer, and a dense one of all that it gives."""
    layers = [
        {"name": "c", "type": "conv", "channels": 2, "kernel": 1, "activation": "tanh"},
        {"name": "r", "type": "pool", **CASES[case][0]},
        {"name": "f", "type": "flatten"},
        {"name": "out", "type": "dense", "units": 2},
    ]
    return build_spec(
        {
            "sifrc": 1,
            "name": "pooled",
            "dtype": "float64",
            "loss": "squared_error",
            "network": {"input": {"name": "x0", "size": [2, 5, 6]}, "layers": layers},
        }
    )


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("case", CASES)
def test_derivatives(case: str, backend: str, tmp_path: Path) -> None:
    """Of PyTorch's own layers, which are linear in what they read, or read one entry each."""
    module = load(pooled(case), backend, tmp_path, ("gradient", "hessian_vector_product"))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 2, 5, 6, generator=generator, dtype=torch.float64)
    t = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    params, vector = (
        {n: torch.randn(*s, generator=generator, dtype=torch.float64) for n, s in module.SHAPES.items()}
        for _ in range(2)
    )

    def objective(values: dict[str, Tensor]) -> Tensor:
        h = torch.tanh(F.conv2d(x, values["c.weight"], values["c.bias"]))
        y = CASES[case][1](h).flatten(1) @ values["out.weight"].T + values["out.bias"]
        return ((y - t) ** 2).sum() / 6

    given = tuple(own(module, v) for v in (params, x, t))
    assert float(module.loss(*given)) == pytest.approx(float(objective(params)), rel=1e-12)
    assert_close(module.gradient(*given), grad(objective)(params))
    product = jvp(grad(objective), (params,), (vector,))[1]
    assert_close(module.hessian_vector_product(*given, own(module, vector)), product)


@pytest.mark.parametrize("case", one_in(3, CASES))
def test_all_that_is_derived_is_verified(case: str) -> None:
    """Gradients of samples too, which are looked at on a network of other sizes with as many parameters."""
    report = verify(pooled(case), levels=(1, 2), quantities=("gradient", "per_sample_gradients"))
    assert report.passed, [row for row in report.rows if row.passed is False]


def test_keys_that_do_not_go_with_output() -> None:
    """Windows are what makes so many places."""
    for key in ("kernel", "dilation", "count_padding"):
        layer = {"type": "pool", "function": "max", "output": 2, key: True if key == "count_padding" else 2}
        with pytest.raises(SpecError, match=f"'{key}' does not go with output"):
            spec_of(layer, [1, 5])


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("sizes", [(3, 3, 3, 3), (1, 1, 2, 2)], ids=str)
def test_maxima_of_equal_layers_in_a_loop(
    backend: str, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many places adjoints are added at is known in a loop, and no loop has layers that differ in it."""
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    layers: list[dict[str, Any]] = []
    for n, kernel in enumerate(sizes):
        window = {"kernel": kernel, "padding": 1, "stride": 1} if kernel == 3 else {"kernel": kernel}
        conv = {"type": "conv", "channels": 2, "kernel": 3, "padding": "same", "activation": "tanh"}
        layers += [{"name": f"c{n}", **conv}, {"name": f"p{n}", "type": "pool", "function": "max", **window}]
    data = {
        "sifrc": 1,
        "name": "maxima",
        "loss": "cross_entropy",
        "dtype": "float64",
        "network": {
            "input": {"name": "x", "size": [2, 8]},
            "layers": [
                *layers,
                {"name": "flat", "type": "flatten"},
                {"name": "out", "type": "dense", "units": 2},
            ],
        },
        "target": {"backend": backend, "operators": ["gradient", "hessian_vector_product", "summary"]},
    }
    report = sifrc.verify(data, levels=(3,), cache=False)
    assert report.passed, report.text()
