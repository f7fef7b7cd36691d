"""``sifrc.optimizer``: one line, and the habits of PyTorch's loops."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import sifrc

T = torch.arange(24) % 3


def model_and_batch() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), torch.randn(24, 4)


def test_all_ways_to_give_a_batch_are_the_same_step() -> None:
    """Arguments, a function that returns them, a closure that computes the loss, and no argument."""
    found = []
    for way in ("arguments", "batch", "closure", "seen", "gone"):
        model, x = model_and_batch()
        criterion = nn.CrossEntropyLoss()
        optimizer: Any = sifrc.optimizer(model, criterion, example=(x, T), learning_rate=0.2)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = criterion(model(x), T)
            loss.backward()
            return loss

        for _ in range(3):
            if way == "arguments":
                optimizer.step(x, T)
            elif way == "batch":
                optimizer.step(lambda: (x, T))
            elif way == "closure":
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
        found.append(torch.cat([value.detach().flatten() for value in model.parameters()]))
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_a_step_without_a_batch_says_what_is_missing() -> None:
    model, x = model_and_batch()
    optimizer: Any = sifrc.optimizer(model, "cross_entropy", example=(x, T))
    with pytest.raises(sifrc.TrainingError, match="the model was not called"):
        optimizer.step()
    model(x)
    with pytest.raises(sifrc.TrainingError, match="no targets") as caught:
        optimizer.step()
    assert "torch.nn" in str(caught.value) or "loss module" in str(caught.value)


def test_schedulers_copies_and_pickles() -> None:
    model, x = model_and_batch()
    optimizer: Any = sifrc.optimizer(model, nn.CrossEntropyLoss(), example=x)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    first = optimizer.param_groups[0]["lr"]
    optimizer.step(x, T)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(first / 2)
    state = copy.deepcopy(optimizer.state_dict())
    others = [copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))]
    wanted = optimizer.step(x, T)
    for other, own in others:
        assert torch.equal(own.step(x, T), wanted)
        assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))
    optimizer.load_state_dict(state)


def test_unknown_methods_and_options() -> None:
    model, x = model_and_batch()
    with pytest.raises(sifrc.MethodError, match="adam"):
        sifrc.optimizer(model, nn.CrossEntropyLoss(), "adam", example=x)
    with pytest.raises(sifrc.MethodError, match="betas"):
        sifrc.optimizer(model, nn.CrossEntropyLoss(), example=x, betas=0.9)


@pytest.mark.parametrize(
    "activation, own",
    [
        ("gelu", nn.GELU(approximate="tanh")),
        ("relu", nn.ReLU6()),
        ("relu", nn.Sequential(nn.ReLU(), nn.Dropout(0.2))),
        ("relu", nn.Sequential(nn.ReLU(), nn.BatchNorm1d(20, affine=False))),
    ],
)
def test_a_model_that_is_nearly_that_of_the_spec_is_refused(activation: str, own: nn.Module) -> None:
    """In the mode it trains in, within the rounding of its dtype, and where its branches differ."""
    layers = [
        {"name": "0", "type": "dense", "units": 20, "activation": activation},
        {"name": "2", "type": "dense", "units": 3},
    ]
    for layer, name in zip(layers, ("a", "b"), strict=True):
        layer["name"] = name
    data = {"sifrc": 1, "name": "near", "loss": "cross_entropy", "network": {
        "input": {"size": 4}, "layers": layers}, "method": {"name": "grouped_newton"}}  # fmt: skip
    module: Any = sifrc.compile(data)
    torch.manual_seed(0)
    x = torch.randn(24, 4)
    names = {"a": "0", "b": "2"}
    right = nn.ReLU() if activation == "relu" else nn.GELU()
    module.Optimizer(nn.Sequential(nn.Linear(4, 20), right, nn.Linear(20, 3)), names=names).step(x, T)
    wrong = nn.Sequential(nn.Linear(4, 20), own, nn.Linear(20, 3))
    buffers = {name: value.clone() for name, value in wrong.named_buffers()}
    with pytest.raises(ValueError, match="outputs differ from those of near"):
        module.Optimizer(wrong, names=names).step(x, T)
    assert all(torch.equal(buffers[name], value) for name, value in wrong.named_buffers())


def test_batches_as_libraries_give_them() -> None:
    """A closure by its name, a list as of a loader, inputs that are alone in a tuple or a mapping."""
    model, x = model_and_batch()
    start = copy.deepcopy(model.state_dict())
    optimizer: Any = sifrc.optimizer(model, "cross_entropy", example=(x, T), learning_rate=0.2)
    found = []
    for given in (
        {"closure": lambda: (x, T)},
        {"closure": lambda: [x, T]},
        {"closure": lambda: ((x,), T)},
        {"closure": lambda: ({"input": x}, T)},
    ):
        model.load_state_dict(start)
        optimizer.step(**given)
        found.append(torch.cat([value.detach().flatten() for value in model.parameters()]))
    model.load_state_dict(start)
    optimizer.step({"input": x}, T)
    found.append(torch.cat([value.detach().flatten() for value in model.parameters()]))
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert not torch.equal(found[0], torch.cat([value.flatten() for value in start.values()]))


class Mapped(nn.Module):
    """Its logits are in a mapping, as models of Hugging Face have them."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.head(features), "hidden": features}


def test_a_model_that_is_called_by_name_and_gives_a_mapping() -> None:
    torch.manual_seed(0)
    model, x = Mapped(), torch.randn(24, 4)
    alike = nn.Linear(4, 3)
    alike.load_state_dict(model.head.state_dict())
    one: Any = sifrc.optimizer(model, "cross_entropy", example=({"features": x}, T), learning_rate=0.2)
    other: Any = sifrc.optimizer(alike, "cross_entropy", example=(x, T), learning_rate=0.2)
    one.step({"features": x}, T)
    other.step(x, T)
    assert torch.equal(model.head.weight, alike.weight)
    spec = sifrc.from_torch(model, {"features": x}, "cross_entropy")
    for given in (None, spec):
        ops = sifrc.operators(model, None if given else "cross_entropy", ({"features": x}, T), spec=given)
        assert ops.samples == 24
