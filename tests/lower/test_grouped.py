"""Channels in groups: one convolution for all groups, and derivatives that are those of PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp

import sifrc
from sifrc.compiler import Request, compile_spec
from sifrc.lower.access import flat, loads_of
from sifrc.lower.arrays import Gather
from sifrc.lower.statements import Convolve
from sifrc.spec import build_spec

OPERATORS = ("gradient", "hessian_vector_product")


def data_of(channels: int, groups: int, **keys: Any) -> dict[str, Any]:
    """A convolution of four channels in groups, and a dense layer."""
    layers = [
        {"name": "conv", "type": "conv", "channels": channels, "kernel": 3, "groups": groups, **keys},
        {"name": "act", "type": "activation", "function": "tanh"},
        {"name": "flat", "type": "flatten"},
        {"name": "out", "type": "dense", "units": 2},
    ]
    network = {"input": {"name": "image", "size": [4, 6, 5]}, "layers": layers}
    return {"sifrc": 1, "name": "grouped", "dtype": "float64", "loss": "squared_error", "network": network}


CASES = {
    "groups": (6, 2, {"padding": 1}, torch.nn.Conv2d(4, 6, 3, padding=1, groups=2)),
    "each alone": (4, 4, {"stride": 2}, torch.nn.Conv2d(4, 4, 3, 2, groups=4)),
    "several of one": (8, 4, {"dilation": 2}, torch.nn.Conv2d(4, 8, 3, dilation=2, groups=4)),
    "transposed": (6, 2, {"transposed": True}, torch.nn.ConvTranspose2d(4, 6, 3, groups=2)),
}


@pytest.mark.parametrize("case", CASES)
def test_groups_are_one_convolution(case: str) -> None:
    """Forward, back and in the gradient, without what a window reads in memory."""
    channels, groups, keys, _ = CASES[case]
    request = Request(backend="torch", method="none", operators=OPERATORS)
    compiled = compile_spec(build_spec(data_of(channels, groups, **keys)), request)
    for name in ("forward", "backward", "tangent", "hessian_product"):
        statements = flat(compiled.source.program.function(name, True).body)
        assert any(isinstance(statement, Convolve) for statement in statements), name
    bodies = [flat(function.body) for function in compiled.source.program.functions]
    loads = [load for body in bodies for statement in body for load in loads_of(statement)]
    assert not any(isinstance(change, Gather) for load in loads for change in load.changes)


@pytest.mark.parametrize("case", CASES)
def test_derivatives(case: str) -> None:
    channels, groups, keys, layer = CASES[case]
    module = sifrc.compile(
        data_of(channels, groups, **keys), backend="torch", method="none", operators=OPERATORS
    )
    torch.manual_seed(0)
    params, vector = (
        {name: torch.randn(shape, dtype=torch.float64) for name, shape in module.SHAPES.items()} for _ in "12"
    )
    inputs, targets = torch.randn(3, 4, 6, 5, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)

    def loss(params: dict[str, Tensor]) -> Tensor:
        own = {"weight": params["conv.weight"], "bias": params["conv.bias"]}
        hidden = torch.tanh(functional_call(layer, own, (inputs,))).flatten(1)
        outputs = hidden @ params["out.weight"].T + params["out.bias"]
        return 0.5 * ((outputs - targets) ** 2).sum() / 3

    first, second = jvp(grad(loss), (params,), (vector,))
    found = module.gradient(params, inputs, targets)
    products = module.hessian_vector_product(params, inputs, targets, vector)
    for name in params:
        torch.testing.assert_close(found[name], first[name], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(products[name], second[name], rtol=1e-11, atol=1e-11)
