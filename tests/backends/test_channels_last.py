"""Images and kernels whose channels lie together in memory: the same results, whichever of them do."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType

import pytest
import torch
from torch import Tensor

import sifrc
from sifrc.spec import build_spec

OPERATORS = ["gradient", "hessian_vector_product", "gauss_newton_vector_product", "summary"]
LAYERS = [
    {"name": "conv", "type": "conv", "channels": 4, "kernel": 3, "padding": 1, "activation": "elu"},
    {"name": "norm", "type": "batch_norm"},
    {"name": "pool", "type": "pool", "function": "max", "kernel": 2},
    {"name": "wide", "type": "conv", "channels": 6, "kernel": 3, "activation": "tanh"},
    {"name": "flat", "type": "flatten"},
    {"name": "out", "type": "dense", "units": 3},
]


@cache
def module() -> ModuleType:
    spec = build_spec(
        {"sifrc": 1, "name": "images", "loss": "cross_entropy", "dtype": "float64", "partition": "canonical",
         "network": {"mode": "evaluation", "input": {"size": [2, 6, 6]}, "layers": LAYERS},
         "target": {"operators": OPERATORS}}
    )  # fmt: skip
    return sifrc.compile(spec, backend="torch", method="none")


def last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def as_it_is(value: Tensor) -> Tensor:
    return value


@pytest.mark.parametrize(("images", "kernels"), [(last, as_it_is), (as_it_is, last), (last, last)])
def test_results(images: Callable[[Tensor], Tensor], kernels: Callable[[Tensor], Tensor]) -> None:
    """Predictions, gradient, both products and summaries, to rounding; nothing given is changed."""
    found = module()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(5, 2, 6, 6, generator=generator, dtype=torch.float64)
    targets = torch.arange(5) % 3
    params = {name: value.double() for name, value in found.initialize(0).items()}
    vector = {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in found.SHAPES.items()}

    def results(x: Tensor, p: dict[str, Tensor], v: dict[str, Tensor]) -> list[Tensor]:
        summary = found.summary(p, x, targets, v, order=3)
        return [
            found.predict(p, x),
            *found.gradient(p, x, targets).values(),
            *found.hessian_vector_product(p, x, targets, v).values(),
            *found.gauss_newton_vector_product(p, x, targets, v).values(),
            summary.g,
            summary.H,
            summary.D3,
        ]

    expected = results(inputs, params, vector)
    x = images(inputs.clone())
    p, v = ({name: kernels(value.clone()) for name, value in given.items()} for given in (params, vector))
    strides = x.stride()
    assert (images is last) == x.is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(results(x, p, v), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert torch.equal(x, inputs) and x.stride() == strides
