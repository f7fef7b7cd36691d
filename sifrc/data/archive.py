"""The user's own arrays in an ``.npz`` archive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.data.dataset import Dataset
from sifrc.data.files import read_npz
from sifrc.data.request import Request, first_rows
from sifrc.errors import DataError

__all__ = ["load_archive"]


def load_archive(name: str, request: Request) -> Dataset:
    """The user's own arrays."""
    file = Path(name) if request.path is None else request.path / name
    if not file.is_file():
        raise DataError(f"there is no data file {file.name}", hint="an .npz archive with train_X and test_X")
    arrays = read_npz(file)
    known = {"train_X", "train_y", "test_X", "test_y", "classes"}
    if not {"train_X", "test_X"} <= arrays.keys() <= known or ("train_y" in arrays) != ("test_y" in arrays):
        raise DataError(
            f"{file.name} has the arrays {', '.join(sorted(arrays)) or '(none)'}",
            hint="train_X and test_X; both or none of train_y and test_y; classes if they are classes",
        )
    shape = arrays["train_X"].shape[1:]
    train, test = (_own_inputs(file.name, arrays, f"{part}_X", request.dtype) for part in ("train", "test"))
    train_y, test_y, classes = train, test, None
    if "train_y" in arrays:
        train_y, test_y = (
            _own_targets(file.name, arrays, f"{part}_y", request.dtype) for part in ("train", "test")
        )
        if train_y.ndim == 1:
            classes = _own_classes(file.name, arrays, train_y, test_y)
    return Dataset(
        name=file.stem,
        source=file.name,
        train_inputs=first_rows(train, request.train_count, file.name),
        train_targets=first_rows(train_y, request.train_count, file.name),
        test_inputs=first_rows(test, request.test_count, file.name),
        test_targets=first_rows(test_y, request.test_count, file.name),
        classes=classes,
        image_shape=(int(shape[0]), int(shape[1])) if len(shape) == 2 else None,
    )


def _own_inputs(file: str, arrays: Mapping[str, NDArray[Any]], key: str, dtype: str) -> NDArray[Any]:
    array = arrays[key]
    if array.ndim < 2 or array.dtype.kind not in "fiu" or not array.size:
        raise DataError(
            f"{file}: {key} has shape {array.shape} and dtype {array.dtype}",
            hint="numbers of shape (samples, ...), at least one",
        )
    flat = np.ascontiguousarray(array.reshape(len(array), -1), dtype)
    if not np.isfinite(flat).all():
        raise DataError(f"{file}: {key} has entries that are not finite in {dtype}")
    return flat / flat.dtype.type(255) if array.dtype == np.uint8 else flat


def _own_targets(file: str, arrays: Mapping[str, NDArray[Any]], key: str, dtype: str) -> NDArray[Any]:
    array = arrays[key]
    if array.ndim == 1 and array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.shape[1]:
        raise DataError(
            f"{file}: {key} has shape {array.shape} and dtype {array.dtype}",
            hint="(samples,) whole numbers for classes, or (samples, entries) numbers",
        )
    flat = np.ascontiguousarray(array, dtype)
    if not np.isfinite(flat).all():
        raise DataError(f"{file}: {key} has entries that are not finite in {dtype}")
    return flat


def _own_classes(
    file: str, arrays: Mapping[str, NDArray[Any]], train: NDArray[Any], test: NDArray[Any]
) -> int:
    """The number of classes, as stated or as seen."""
    labels = np.concatenate([train, test.reshape(-1).astype(np.int64)])
    seen = int(labels.max()) + 1
    classes = seen
    if "classes" in arrays:
        stated = arrays["classes"]
        if stated.size != 1 or stated.dtype.kind not in "iu":
            raise DataError(f"{file}: classes has shape {stated.shape}", hint="one whole number")
        classes = int(stated.reshape(-1)[0])
    if labels.min() < 0 or seen > classes:
        raise DataError(
            f"{file}: labels from {labels.min()} to {labels.max()}", hint=f"labels from 0 to {classes - 1}"
        )
    return classes
