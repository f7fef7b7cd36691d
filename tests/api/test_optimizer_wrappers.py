"""Modules that torch has wrapped, parametrised, pruned or scripted: taken, or told what would do."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import sifrc

X = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
T = torch.arange(8) % 3


def plain() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def changed(change: Callable[[Any], Any]) -> Any:
    """The network with its first layer changed."""
    model = plain()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change(model[0])
    return model


def old_weight_norm(layer: nn.Module) -> None:
    torch.nn.utils.weight_norm(layer)


def pruned(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", 0.4)


CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "weight_norm": (
        parametrizations.weight_norm,
        r"0\.weight is computed .* by a parametrization: .*remove_param",
    ),
    "spectral_norm": (
        parametrizations.spectral_norm,
        r"0\.weight is computed .* by a parametrization: .*remove_param",
    ),
    "old weight_norm": (old_weight_norm, r"0\.weight is computed .* by weight_norm: .*remove_weight_norm"),
    "pruned": (pruned, r"0\.weight is computed .* by pruning: .*prune\.remove"),
}


@cache
def of_spec() -> Any:
    """A module that is generated from a spec, not from a module of torch."""
    layers = [
        {"name": "fc1", "type": "dense", "units": 5, "activation": "tanh"},
        {"name": "fc2", "type": "dense", "units": 3},
    ]
    network = {"input": {"name": "image", "size": 4}, "layers": layers}
    spec = {"sifrc": 1, "name": "net", "dtype": "float64", "loss": "cross_entropy", "network": network}
    return sifrc.compile(sifrc.build_spec({**spec, "method": {"name": "ea_cg"}}), "torch")


@pytest.mark.parametrize("case", CHANGES)
def test_a_module_of_a_spec_says_why_names_are_others(case: str) -> None:
    change, message = CHANGES[case]
    with pytest.raises(ValueError, match=message):
        of_spec().Optimizer(changed(change))


def test_scripted_modules_are_told_apart() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(plain())
    with pytest.raises(ValueError, match="scripted module; give the module that it was made from"):
        of_spec().Optimizer(scripted)
    with pytest.raises(sifrc.ModuleImportError, match="scripted") as caught:
        sifrc.optimizer(scripted, "cross_entropy", example=(X, T))
    assert "made from" in str(caught.value)


@pytest.mark.parametrize("case", CHANGES)
def test_the_one_line_form_goes_through_them(case: str) -> None:
    """The derivative goes through what makes the weight: a small step falls as autograd's slope says."""
    change, _ = CHANGES[case]
    model = changed(change).eval()
    slopes = torch.autograd.grad(nn.functional.cross_entropy(model(X), T), list(model.parameters()))
    options: Any = {"direction": "gradient", "period": 1, "positive": False, "unbounded": "absolute"}
    optimizer: Any = sifrc.optimizer(model, "cross_entropy", example=(X, T), **options)
    before = [value.detach().clone() for value in model.parameters()]
    optimizer.step(X, T)
    for old, value, slope in zip(before, model.parameters(), slopes, strict=True):
        moved = (old - value.detach()).flatten()
        # Along the slope, at the rate of its group.
        torch.testing.assert_close(moved * slope.norm() ** 2, slope.flatten() * (moved @ slope.flatten()))
        assert float(moved.abs().max()) > 0
    expected = nn.functional.cross_entropy(copy.deepcopy(model)(X), T)
    torch.testing.assert_close(optimizer.step(X, T), expected.detach(), rtol=1e-12, atol=0.0)


class Centred(nn.Module):
    """A layer that keeps a mean of what it sees, and reads the new one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(self.mean**2 + 0.1)
        return x - self.mean


def test_buffers_that_are_written_and_read_are_no_constants() -> None:
    """Each forward pass has others: an error that says how to hold them. In evaluation they are held."""
    model = nn.Sequential(Centred(), *plain())
    with pytest.raises(sifrc.ModuleImportError, match=r"writes into the buffer '0\.mean'") as caught:
        sifrc.optimizer(model, "cross_entropy", example=(X, T))
    assert "module.get_submodule('0').eval()" in str(caught.value)
    model[0].eval()
    optimizer: Any = sifrc.optimizer(model, "cross_entropy", example=(X, T))
    optimizer.step(X, T)


def test_wrappers_of_a_module_of_a_spec_are_seen_through() -> None:
    """Parameters and buffers have a prefix, one inside of another; not all layers are linear."""
    layers = [
        {"name": "conv", "type": "conv", "channels": 3, "kernel": 3},
        {"name": "bn", "type": "batch_norm"},
        {"name": "flat", "type": "flatten"},
        {"name": "fc", "type": "dense", "units": 3},
    ]
    network = {"input": {"name": "image", "size": [2, 4, 4]}, "layers": layers}
    spec = {"sifrc": 1, "name": "net", "dtype": "float64", "loss": "cross_entropy", "network": network}
    method = {"name": "grouped_newton", "positive": False, "unbounded": "absolute"}
    module: Any = sifrc.compile(sifrc.build_spec({**spec, "method": method}), "torch")
    images = torch.randn(8, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    states = []
    compiled = partial(torch.compile, backend="eager")
    for wrap in (lambda m: m, nn.DataParallel, compiled, lambda m: nn.DataParallel(compiled(m))):
        model = module.Network(0)
        optimizer = module.Optimizer(wrap(model))
        optimizer.step(images, T)
        states.append(model.state_dict())
    assert all(torch.equal(value, other[name]) for other in states[1:] for name, value in states[0].items())
