"""The arguments that the loaders share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import DataError

__all__ = ["Request", "first_rows", "padded"]


@dataclass(frozen=True)
class Request:
    """The arguments of :func:`sifrc.data.load_dataset` that the loaders share, checked."""

    path: Path | None
    dtype: str
    seed: int
    train_count: int | None
    test_count: int | None
    pad: int = 0


def first_rows(array: NDArray[Any], count: int | None, name: str) -> NDArray[Any]:
    """The first ``count`` rows, all without a count."""
    if count is not None and count > len(array):
        raise DataError(f"{name}: {count} samples asked for, there are {len(array)}")
    return array if count is None else array[:count]


def padded(rows: NDArray[Any], side: int, pad: int) -> NDArray[Any]:
    """Rows of square images with ``pad`` zeros around every plane.

    Args:
        rows: (N, planes · side²), unscaled, so that zero is the background.
        side: pixels of an edge.
        pad: pixels to add at each of the four sides.

    Returns:
        (N, planes · (side + 2 pad)²); the rows themselves where nothing is added.

    Example:
        >>> padded(np.array([[1, 2]]), 1, 1).reshape(2, 3, 3).tolist()
        [[[0, 0, 0], [0, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 2, 0], [0, 0, 0]]]
    """
    if pad == 0:
        return rows
    planes = rows.reshape(len(rows), -1, side, side)
    return np.pad(planes, ((0, 0), (0, 0), (pad, pad), (pad, pad))).reshape(len(rows), -1)
