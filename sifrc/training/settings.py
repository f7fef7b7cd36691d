"""What a run is told once and keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RunSettings", "Schedule"]

Schedule = Callable[[int], float]
"""Factor of the learning rate in an epoch, counted from 0."""


@dataclass(frozen=True)
class RunSettings:
    """The arguments of :func:`~sifrc.training.fit` that a run keeps."""

    epochs: int
    batch: int
    seed: int
    directory: Path | None
    checkpoint_every: float
    schedule: Schedule | None
    clock: Callable[[], float]
