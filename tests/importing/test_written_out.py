"""Operators that no one layer does: written out as windows, products and tables; derivatives by autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from importing_cases import images, series
from sampled import one_in
from test_modules import check_derivatives
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import sifrc


class Of(nn.Module):
    """A function of some parts and an input."""

    def __init__(self, function: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def standardised(module: Any, x: Tensor) -> Tensor:
    """Weight standardisation, as in BiT's ResNets."""
    weight, over = module.conv.weight, (1, 2, 3)
    mean, deviation = weight.mean(over, keepdim=True), weight.std(over, keepdim=True)
    own = module.conv
    made = F.conv2d(x, (weight - mean) / (deviation + 1e-5), own.bias, own.stride, own.padding, 1, own.groups)
    return made.mean((2, 3))


def resized(**keys: Any) -> Callable[[Any, Tensor], Tensor]:
    def function(module: Any, x: Tensor) -> Tensor:
        return F.interpolate(torch.tanh(module.conv(x)), **keys)

    return function


CASES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "standardised weights": (
        lambda: Of(standardised, conv=nn.Conv2d(3, 4, 3, stride=2, padding=1)),
        images(3, 6),
    ),
    "standardised weights in groups": (
        lambda: Of(standardised, conv=nn.Conv2d(4, 6, (3, 2), padding=(1, 0), groups=2)),
        images(4, 5),
    ),
    "spectral norm evaluated": (
        lambda: parametrizations.spectral_norm(nn.Conv2d(3, 4, 3, padding="same")).eval(),
        images(3, 5),
    ),
    "bilinear, aligned": (
        lambda: Of(
            resized(scale_factor=2, mode="bilinear", align_corners=True), conv=nn.Conv2d(3, 2, 3)
        ).eval(),
        images(3, 5),
    ),
    "bilinear to any size": (
        lambda: Of(resized(size=(5, 4), mode="bilinear"), conv=nn.Conv2d(3, 2, 3)).eval(),
        images(3, 5),
    ),
    "bilinear by a factor": (
        lambda: Of(resized(scale_factor=1.7, mode="bilinear"), conv=nn.Conv2d(3, 2, 3)).eval(),
        images(3, 6),
    ),
    "bicubic": (
        lambda: Of(resized(scale_factor=2, mode="bicubic"), conv=nn.Conv2d(3, 2, 3)).eval(),
        images(3, 5),
    ),
    "nearest to any size": (
        lambda: Of(resized(size=7, mode="nearest"), conv=nn.Conv1d(3, 2, 3)).eval(),
        series(4, 3, 6),
    ),
    "transposed weights": (
        lambda: Of(
            lambda m, x: F.linear(torch.tanh(m.fc(x)), m.fc.weight.t(), m.bias),
            fc=nn.Linear(5, 3),
            bias=nn.Parameter(torch.randn(5)),
        ),
        series(4, 5),
    ),
    "a norm twice": (
        lambda: Of(
            lambda m, x: m.norm(torch.tanh(m.fc(m.norm(x)))), fc=nn.Linear(5, 5), norm=nn.LayerNorm(5)
        ),
        series(4, 5),
    ),
    "a group norm twice": (
        lambda: Of(
            lambda m, x: m.norm(torch.tanh(m.conv(m.norm(x)))).mean((2, 3)),
            conv=nn.Conv2d(4, 4, 3),
            norm=nn.GroupNorm(2, 4),
        ),
        images(4, 5),
    ),
    "a weight used plainly besides": (
        lambda: Of(lambda m, x: m.fc(x) + (m.fc.weight**2).sum(1), fc=nn.Linear(5, 3)),
        series(4, 5),
    ),
    "cosines and logsumexp": (
        lambda: Of(
            lambda m, x: torch.stack([F.cosine_similarity(m.fc(x), x, 1), m.fc(x).logsumexp(1)], 1),
            fc=nn.Linear(5, 5),
        ),
        series(4, 5),
    ),
}


@pytest.mark.parametrize("name", one_in(2, CASES))
def test_derivatives(name: str) -> None:
    """Of all that is trained, to 1e-9 in float64."""
    make, example = CASES[name]
    torch.manual_seed(0)
    check_derivatives(make().double(), example.double(), nn.MSELoss())


def test_weight_norm_of_a_convolution() -> None:
    """Torch's second derivatives of its own weight norm are wrong: the oracle has the norm written out."""
    torch.manual_seed(0)
    module = parametrizations.weight_norm(nn.Conv1d(3, 4, 3, dilation=2)).double()
    bias, length, direction = (nn.Parameter(value.detach().clone()) for value in module.parameters())

    def written_out(own: Any, x: Tensor) -> Tensor:
        weight = own.length * own.direction / (own.direction**2).sum((1, 2), keepdim=True).sqrt()
        return F.conv1d(x, weight, own.bias, dilation=2)

    oracle = Of(written_out, bias=bias, length=length, direction=direction)
    check_derivatives(module, series(4, 3, 8).double(), nn.MSELoss(), oracle)


def test_a_fixed_kernel_is_a_layer() -> None:
    """A buffer that a convolution reads is frozen, and nothing is written out."""
    module = Of(lambda m, x: F.conv2d(m.conv(x), m.blur), conv=nn.Conv2d(3, 2, 1))
    module.register_buffer("blur", torch.ones(1, 2, 3, 3))
    spec = sifrc.from_torch(module, images(3, 5), "mse")
    assert [(layer.kind, layer.frozen) for layer in spec.layers] == [("conv", False), ("conv", True)]


def test_what_cannot_be_written_out() -> None:
    class Deconvolved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = parametrizations.weight_norm(nn.ConvTranspose2d(3, 2, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    with pytest.raises(sifrc.ModuleImportError, match="transposed convolution whose weight is computed"):
        sifrc.from_torch(Deconvolved(), images(3, 5))
    norm = nn.BatchNorm1d(5)
    twice = Of(lambda m, x: m.norm(m.fc(m.norm(x))), fc=nn.Linear(5, 5), norm=norm)
    for training in (True, False):
        with pytest.raises(sifrc.ModuleImportError, match="batch norm is used twice"):
            sifrc.from_torch(twice.train(training), series(4, 5))
