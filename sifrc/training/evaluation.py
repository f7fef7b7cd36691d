"""What is measured between two epochs."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from sifrc.data import Dataset
from sifrc.training.adapters import Trainable
from sifrc.training.history import EpochMetrics

__all__ = ["measure"]


def measure(
    trainable: Trainable, dataset: Dataset, epoch: int, seconds: float, objective: float
) -> EpochMetrics:
    """Loss and accuracy over both parts; nothing changes.

    Args:
        trainable: what is measured.
        dataset: on what.
        epoch: epochs completed.
        seconds: spent in training.
        objective: mean over the epoch.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    train_loss, train_accuracy = _evaluate(trainable, dataset, dataset.train_inputs, dataset.train_targets)
    test_loss, test_accuracy = _evaluate(trainable, dataset, dataset.test_inputs, dataset.test_targets)
    return EpochMetrics(epoch, seconds, objective, train_loss, test_loss, train_accuracy, test_accuracy)


def _evaluate(
    trainable: Trainable, dataset: Dataset, inputs: NDArray[Any], targets: NDArray[Any]
) -> tuple[float, float]:
    """Mean loss, and the share of samples whose largest output is that of their class."""
    loss = trainable.loss(inputs, targets)
    if dataset.classes is None:
        return loss, math.nan
    outputs = trainable.predict(inputs)
    if outputs.shape[1] != dataset.classes:
        return loss, math.nan
    labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
    return loss, float((outputs.argmax(axis=1) == labels).mean())
