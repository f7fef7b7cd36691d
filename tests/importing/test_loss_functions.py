"""Losses that are functions of Python: values and derivatives of their expressions are the functions'."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sifrc

CLASSES = torch.tensor([0, 2, 1, 1, 0])
Y = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
VECTORS = torch.rand(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SIGNS = torch.sign(VECTORS - 0.5)
CONSISTENCY = 0.3


def focal(y: Tensor, t: Tensor, gamma: float = 2.0) -> Tensor:
    entropy = F.cross_entropy(y, t, reduction="none")
    return ((1 - torch.exp(-entropy)) ** gamma * entropy).mean()


def brier(y: Tensor, t: Tensor) -> Tensor:
    return ((torch.softmax(y, 1) - F.one_hot(t, 3)) ** 2).sum(1).mean()


def z_loss(y: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(y, t, label_smoothing=0.1) + 1e-2 * (torch.logsumexp(y, 1) ** 2).mean()


def by_hand(y: Tensor, t: Tensor) -> Tensor:
    return -torch.log_softmax(y, 1).gather(1, t[:, None]).sum() / len(t)


def weighted_sum(y: Tensor, t: Tensor) -> Tensor:
    return 2 * ((y - t) ** 2).sum() - F.l1_loss(y, t, reduction="sum") * CONSISTENCY


class Margin(nn.Module):
    """A loss of a user's own, as a module."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, y: Tensor, t: Tensor) -> Tensor:
        return torch.clamp(self.margin - y * t, min=0).pow(2).mean()


LOSSES: dict[str, tuple[Callable[..., Any], Tensor]] = {
    "focal": (focal, CLASSES),
    "focal with another number": (functools.partial(focal, gamma=3.0), CLASSES),
    "brier": (brier, CLASSES),
    "entropy and the square of logsumexp": (z_loss, CLASSES),
    "likelihood by hand": (by_hand, CLASSES),
    "sums": (weighted_sum, VECTORS),
    "a module": (Margin(0.7), SIGNS),
    "log cosh": (lambda y, t: torch.log(torch.cosh(y - t)).mean(), VECTORS),
    "smooth and huber": (lambda y, t: F.smooth_l1_loss(y, t) + 2 * F.huber_loss(y, t, delta=0.4), VECTORS),
    "soft targets": (lambda y, t: -(t * F.log_softmax(y, -1)).sum(-1).mean(), VECTORS),
    "poisson": (nn.PoissonNLLLoss(), VECTORS),
    "divergence": (lambda y, t: F.kl_div(F.log_softmax(y, 1), t, reduction="batchmean"), VECTORS),
    "cosine": (lambda y, t: (1 - F.cosine_similarity(y, t)).mean(), VECTORS),
    "logits and a penalty": (
        lambda y, t: F.binary_cross_entropy_with_logits(y, t) + y.pow(2).mean() / 10 + 1.0,
        VECTORS,
    ),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


@pytest.mark.parametrize("name", LOSSES)
def test_values_and_derivatives(name: str) -> None:
    """Of loss, gradient and Hessian product, to rounding, by autograd of the function itself."""
    function, targets = LOSSES[name]
    module, x = network(), torch.randn(5, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    spec = sifrc.from_torch(
        module, x, function, targets=targets, target={"operators": ["gradient", "hessian_vector_product"]}
    )
    generated: Any = sifrc.compile(spec)
    names = {own: module.get_parameter(given) for own, given in spec.names.items()}
    params = {own: value.detach() for own, value in names.items()}
    vector = {own: torch.ones_like(value) for own, value in params.items()}
    value = function(module(x), targets)
    slopes = torch.autograd.grad(value, list(names.values()), create_graph=True)
    products = torch.autograd.grad(sum(slope.sum() for slope in slopes), list(names.values()))
    torch.testing.assert_close(generated.loss(params, x, targets), value.detach(), rtol=1e-11, atol=1e-12)
    found = (
        generated.gradient(params, x, targets),
        generated.hessian_vector_product(params, x, targets, vector),
    )
    for result, wanted in zip(found, (slopes, products), strict=True):
        for each, expected in zip(result.values(), wanted, strict=True):
            torch.testing.assert_close(each, expected.detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "function, axis",
    [
        (lambda y, t: F.cross_entropy(y, t), 0),
        (lambda y, t: F.cross_entropy(y, t, reduction="sum"), 0),
        (lambda y, t: ((y - t) ** 2).mean(), 2),
        (lambda y, t: ((y - t) ** 2).sum(), 2),
        (lambda y, t: -(t * torch.log_softmax(y, 1)).sum(1).mean(), 0),
    ],
)
def test_outputs_at_places(function: Any, axis: int) -> None:
    """Of images: classes or entries along one axis, means or sums over the others."""
    torch.manual_seed(0)
    module, x = nn.Conv2d(2, 3, 3).double(), torch.randn(2, 2, 5, 6, dtype=torch.float64)
    spec = sifrc.from_torch(module, x, function, target={"operators": ["gradient"]})
    assert spec.loss.axis == axis
    generated: Any = sifrc.compile(spec)
    classes = spec.loss.targets == "classes"
    targets = (
        torch.arange(24).reshape(2, 3, 4) % 3 if classes else torch.rand(2, 3, 3, 4, dtype=torch.float64)
    )
    params = {own: module.get_parameter(own.rpartition(".")[2]).detach() for own in generated.SHAPES}
    value = function(module(x), targets)
    torch.testing.assert_close(generated.loss(params, x, targets), value.detach(), rtol=1e-11, atol=1e-12)
    wanted = torch.autograd.grad(value, list(module.parameters()))
    for each, expected in zip(generated.gradient(params, x, targets).values(), wanted, strict=True):
        torch.testing.assert_close(each, expected, rtol=1e-10, atol=1e-11)


def test_in_one_line() -> None:
    """An optimizer and operators take such a loss too."""
    module, x = network(), torch.randn(5, 4, dtype=torch.float64)
    before = float(focal(module(x), CLASSES))
    product = sifrc.operators(module, focal, (x, CLASSES)).H @ torch.ones(43, dtype=torch.float64)
    slopes = torch.autograd.grad(focal(module(x), CLASSES), list(module.parameters()), create_graph=True)
    wanted = torch.autograd.grad(sum(slope.sum() for slope in slopes), list(module.parameters()))
    torch.testing.assert_close(product, torch.cat([each.flatten() for each in wanted]), rtol=1e-9, atol=1e-11)
    optimizer = sifrc.optimizer(module, focal, example=(x, CLASSES))
    optimizer.step(x, CLASSES)
    assert float(focal(module(x), CLASSES)) < before


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "a root of the mean": (lambda y, t: F.mse_loss(y, t).sqrt(), "no mean or sum over the samples"),
    "an operator without a layer": (lambda y, t: (torch.sort(y, 1)[0] - t).pow(2).mean(), "what sort does"),
    "numbers for entries": (
        lambda y, t: ((y - t) ** 2 * torch.tensor([1.0, 2.0, 3.0], dtype=y.dtype)).mean(),
        "fixed numbers for the entries",
    ),
    "weights of classes": (
        lambda y, t: F.cross_entropy(y, t, weight=torch.tensor([1.0, 2.0, 3.0], dtype=y.dtype)) * 2,
        "with weight inside of a function",
    ),
    "a number for each sample": (lambda y, t: ((y - t) ** 2).mean(1), "in the place of one number"),
    "a mean and a sum": (lambda y, t: ((y - t) ** 2).mean() + y.abs().sum(), "means of some terms"),
    "nothing of the outputs": (lambda y, t: torch.zeros((), dtype=y.dtype), "does not depend on the outputs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    function, words = REFUSED[name]
    with pytest.raises(sifrc.ModuleImportError) as caught:
        sifrc.from_torch(network(), torch.randn(5, 4, dtype=torch.float64), function)
    assert words in caught.value.message and caught.value.hint
    assert "test_loss_functions.py:" in caught.value.message or "in the place" in caught.value.message


def test_what_is_no_function() -> None:
    with pytest.raises(sifrc.ModuleImportError, match="no loss and no function"):
        sifrc.from_torch(network(), torch.randn(5, 4, dtype=torch.float64), 3)


def test_the_comparison_finds_a_wrong_expression(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sifrc.importing import expressed

    usual = expressed.expressed
    monkeypatch.setattr(expressed, "expressed", lambda f, *given: usual(lambda y, t: 2 * f(y, t), *given))
    with pytest.raises(sifrc.ModuleImportError, match="and its expression"):
        sifrc.from_torch(network(), torch.randn(5, 4, dtype=torch.float64), focal, cache=tmp_path)
