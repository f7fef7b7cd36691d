"""MNIST and Fashion-MNIST: labelled 28x28 images in files that the user has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sifrc.data.dataset import Dataset
from sifrc.data.files import find_idx, read_idx, read_npz
from sifrc.data.folders import FOLDER_VARIABLE, MissingImagesError, data_roots, why_missing
from sifrc.data.request import Request, first_rows, padded
from sifrc.errors import DataError

__all__ = ["IMAGE_SETS", "ImageSet", "load_images"]

_SIDE = 28  # pixels
_Part: TypeAlias = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class ImageSet:
    """A set of labelled 28x28 images in files: 10 classes, pixels as bytes.

    Args:
        title: how people write it.
        mean: of the pixels of the whole training part, after division by 255.
        deviation: their standard deviation.
        folders: where its files lie below a folder of data sets, the folder itself last.
        system: the folder of the operating system's package, if there is one.
        package: that package.
    """

    title: str
    mean: float
    deviation: float
    folders: tuple[str, ...]
    system: Path | None = None
    package: str = ""


IMAGE_SETS: Mapping[str, ImageSet] = MappingProxyType(
    {
        "mnist": ImageSet("MNIST", 0.1307, 0.3081, ("mnist", "MNIST/raw", ".")),
        "fashion_mnist": ImageSet(
            "Fashion-MNIST",
            0.2860,
            0.3530,
            ("fashion-mnist", "fashion_mnist", "FashionMNIST/raw", "."),
            Path("/usr/share/datasets/fashion-mnist"),
            "dataset-fashion-mnist",
        ),
    }
)


def load_images(name: str, request: Request) -> Dataset:
    """MNIST or Fashion-MNIST from the first folder that has it.

    Args:
        name: a key of :data:`IMAGE_SETS`.
        request: the folder, and what to load of it.

    Raises:
        MissingImagesError: no folder has the files.
        DataError: the files are damaged, or those of another data set.
    """
    images = IMAGE_SETS[name]
    (train_x, train_y), (test_x, test_y), source = _find_images(name, request.path)
    _check_images(images.title, train_x, train_y, "training")
    _check_images(images.title, test_x, test_y, "test")
    mean = float(train_x.mean()) / 255
    # The idx files of the two sets have the same names; their brightness tells them apart.
    if len(train_x) == 60_000 and abs(mean - images.mean) > 0.01:
        raise DataError(
            f"this is not {images.title} ({source}): the mean of the pixels is {mean:.4f}, not {images.mean}",
            hint=f"a folder with the files of {images.title}",
        )

    def scaled(array: NDArray[Any], count: int | None) -> NDArray[Any]:
        rows = first_rows(array, count, name).reshape(-1, _SIDE * _SIDE)
        result = padded(rows, _SIDE, request.pad).astype(request.dtype)
        result /= 255
        result -= images.mean
        result /= images.deviation
        return result

    return Dataset(
        name=name,
        source=source,
        train_inputs=scaled(train_x, request.train_count),
        train_targets=first_rows(train_y, request.train_count, name).astype(np.int64),
        test_inputs=scaled(test_x, request.test_count),
        test_targets=first_rows(test_y, request.test_count, name).astype(np.int64),
        classes=10,
        image_shape=(_SIDE + 2 * request.pad,) * 2,
    )


def _folders(images: ImageSet, path: Path | None) -> list[tuple[Path, str]]:
    """Where to look, in order, each with the words for ``source``."""
    found = [(root / below, origin) for root, origin in data_roots(path) for below in images.folders]
    if path is None and images.system is not None:
        found.append((images.system, f"of the Debian package {images.package}"))
    return found


def _find_images(name: str, path: Path | None) -> tuple[_Part, _Part, str]:
    """Training part, test part, and the words for ``source``."""
    for folder, origin in _folders(IMAGE_SETS[name], path):
        if (found := _read_images(name, folder)) is not None:
            train, test, files = found
            return train, test, f"{files} {origin}"
    package = IMAGE_SETS[name].package
    raise MissingImagesError(
        name,
        IMAGE_SETS[name].title,
        why_missing(path),
        f"a folder (path or {FOLDER_VARIABLE}) with {name}_train.npz and {name}_test.npz, or "
        "with train-images-idx3-ubyte.gz and the three files beside it; "
        + (f"or the Debian package {package}; " if package else "")
        + "or the data set 'digits'",
    )


def _read_images(name: str, folder: Path) -> tuple[_Part, _Part, str] | None:
    """Training and test part and the names of the files, or None if they are not in the folder."""
    archives = [folder / f"{name}_{part}.npz" for part in ("train", "test")]
    if all(archive.is_file() for archive in archives):
        train, test = (_image_arrays(archive) for archive in archives)
        return train, test, ", ".join(archive.name for archive in archives)
    paths = [
        find_idx(folder, f"{part}-{what}-ubyte")
        for part in ("train", "t10k")
        for what in ("images-idx3", "labels-idx1")
    ]
    present = [path for path in paths if path is not None]
    if len(present) < len(paths):
        return None
    arrays = [read_idx(path) for path in present]
    files = ", ".join(path.name for path in present)
    return (arrays[0], arrays[1]), (arrays[2], arrays[3]), files


def _image_arrays(archive: Path) -> _Part:
    """X and y of an archive."""
    arrays = read_npz(archive)
    if not {"X", "y"} <= arrays.keys():
        raise DataError(f"{archive.name} has {', '.join(sorted(arrays)) or 'no arrays'}", hint="X and y")
    return arrays["X"], arrays["y"]


def _check_images(title: str, inputs: NDArray[Any], labels: NDArray[Any], part: str) -> None:
    """Shapes and dtypes of one part, before anything is computed from it."""
    if inputs.dtype != np.uint8 or inputs.shape[1:] not in ((28, 28), (784,)):
        raise DataError(
            f"{title}: the {part} images have shape {inputs.shape} and dtype {inputs.dtype}",
            hint="bytes (uint8) of shape (samples, 28, 28)",
        )
    if labels.shape != inputs.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{title}: the {part} labels have shape {labels.shape} and dtype {labels.dtype}",
            hint=f"whole numbers of shape ({len(inputs)},)",
        )
    if not len(labels):
        raise DataError(f"{title}: there are no {part} images")
    if not (labels.min() >= 0 and labels.max() <= 9):
        raise DataError(f"{title}: a {part} label is outside 0..9")
