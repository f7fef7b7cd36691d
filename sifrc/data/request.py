"""The arguments that the loaders share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sifrc.errors import DataError

__all__ = ["Request", "first_rows"]


@dataclass(frozen=True)
class Request:
    """The arguments of :func:`sifrc.data.load_dataset` that the loaders share, checked."""

    path: Path | None
    dtype: str
    seed: int
    train_count: int | None
    test_count: int | None


def first_rows(array: NDArray[Any], count: int | None, name: str) -> NDArray[Any]:
    """The first ``count`` rows, all without a count."""
    if count is not None and count > len(array):
        raise DataError(f"{name}: {count} samples asked for, there are {len(array)}")
    return array if count is None else array[:count]
