"""The networks of ``examples/`` that have no data set of their own train with the step that the docs show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")


import sifrc  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "examples"
Batch = tuple["torch.Tensor", "torch.Tensor"]


def strokes(count: int, generator: Any) -> Batch:
    """Images of a bright rectangle; the image is its own target."""
    rows, columns = (torch.randint(4, 24, (count, 1, 1, 1), generator=generator) for _ in range(2))
    grid = torch.arange(28.0)
    near = ((grid[:, None] - rows).abs() < 3) & ((grid - columns).abs() < 5)
    return near.float(), near.float()


def regions(count: int, generator: Any) -> Batch:
    """Noise on blocks of 8 × 8 pixels of one of five levels; the target is the level of each pixel."""
    levels = torch.randint(5, (count, 4, 4), generator=generator)
    target = levels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    noise = torch.randn(count, 3, 32, 32, generator=generator)
    return target[:, None] / 2 - 1 + 0.3 * noise, target


def gratings(count: int, generator: Any) -> Batch:
    """Noisy waves of ten frequencies."""
    target = torch.randint(10, (count,), generator=generator)
    waves = torch.sin(torch.arange(16.0) * (0.2 + 0.25 * target[:, None]))
    noise = torch.randn(count, 3, 16, 16, generator=generator)
    return waves[:, None, None, :] + 0.3 * noise, target


def walks(places: int) -> Callable[[int, Any], Batch]:
    """Tokens that go on by one of three strides, each sequence by its own: known from the second on."""

    def draw(count: int, generator: Any) -> Batch:
        first = torch.randint(65, (count, 1), generator=generator)
        stride = torch.randint(1, 4, (count, 1), generator=generator)
        tokens = (first + stride * torch.arange(places + 1)) % 65
        return tokens[:, :-1], tokens[:, 1:]

    return draw


CASES = {
    # file -> batches, samples of one, steps, λ_1, the part of the first loss that is left
    "conv_autoencoder": (strokes, 32, 100, 0.3, 0.6),
    "unet": (regions, 8, 100, 0.3, 0.6),
    "inverted_residual": (gratings, 32, 100, 0.3, 0.6),
    "transformer": (walks(64), 8, 100, 0.3, 0.7),
    "lstm_language_model": (walks(50), 32, 200, 0.3, 0.7),
}


@pytest.mark.slow
@pytest.mark.parametrize("file", CASES)
def test_the_loss_falls(file: str) -> None:
    """By grouped Newton on weights and biases as two groups, from the spec's own initial weights."""
    draw, samples, steps, rate, part = CASES[file]
    module = sifrc.compile(
        FOLDER / f"{file}.yaml", method="grouped_newton", partition="weights-biases", operators=()
    )
    network = module.Network(seed=0)
    optimizer = module.Optimizer(network, lr=rate)
    generator = torch.Generator().manual_seed(0)
    losses = [float(optimizer.step(*draw(samples, generator))) for _ in range(steps)]
    first, last = sum(losses[:5]) / 5, sum(losses[-20:]) / 20
    assert last < part * first, (first, last)
