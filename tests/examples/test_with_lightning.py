"""The example with Lightning: the numbers of a plain loop, both ways to optimise, schedulers, checkpoints."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from library_examples import example

import sifrc

pytestmark = pytest.mark.slow


@cache
def module() -> Any:
    """Imported when the first test runs."""
    return example("with_lightning", "pytorch_lightning", "sklearn")


EPOCHS = 3


def plain() -> tuple[torch.nn.Module, list[float]]:
    """The same training without Lightning."""
    module().lightning.seed_everything(0, verbose=False)
    own = module().Digits()
    optimizer: Any = sifrc.optimizer(
        own.network, own.loss, method="grouped_newton", example=torch.zeros(2, 64), learning_rate=1.0
    )
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
    training, new = module().loaders()
    accuracies = []
    for _ in range(EPOCHS):
        for images, labels in training:
            optimizer.step(images, labels)
        scheduler.step()
        images, labels = next(iter(new))
        accuracies.append(float((own.network(images).argmax(1) == labels).float().mean()))
    return own, accuracies


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))


def test_it_is_the_plain_loop(tmp_path: Path) -> None:
    """Automatic and manual optimisation, bit for bit; the rate falls by the scheduler, digits are learned."""
    expected, accuracies = plain()
    for manual in (False, True):
        found = module().trained(tmp_path / str(manual), EPOCHS, manual)
        assert same(found, expected)
        assert found.accuracies == pytest.approx(accuracies)
        assert found.trainer.global_step == EPOCHS * 15
        rates = [group["lr"] for group in found.trainer.optimizers[0].param_groups]
        assert rates == pytest.approx([0.7**EPOCHS])
    assert accuracies[-1] > 0.8


def test_a_checkpoint_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """State of the optimizer and of the scheduler; in the file there are tensors and numbers alone."""
    whole = module().trained(tmp_path / "whole", EPOCHS)
    file = tmp_path / "whole" / "epoch=0.ckpt"
    assert same(module().trained(tmp_path / "resumed", EPOCHS, resume=file), whole)
    (state,) = torch.load(file, weights_only=False)["optimizer_states"]
    torch.save(state, tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True).keys() == state.keys()
