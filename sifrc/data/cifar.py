"""CIFAR-10: labelled 32x32 images in three colours, in files that the user has.

A row has 3072 entries: the red plane, then the green, then the blue, each row by row. That is the
order of the original files (and of Torch's image tensors), and a plane of a row is an image by itself.

Two forms are read. The original "binary version" has a byte for the class and 3072 bytes of pixels for
each image. The other is an archive of JPEG images, ``cifar10_jpeg_12k.npz``: for each part (``train``,
``test``) the bytes of all images ``<part>_blob``, where each begins and the last ends ``<part>_off``,
and the classes ``<part>_y``. The original "python version" is pickled, which can run code, so it is
not read.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sifrc.data.dataset import Dataset
from sifrc.data.files import read_npz
from sifrc.data.folders import FOLDER_VARIABLE, MissingImagesError, data_roots, why_missing
from sifrc.data.request import Request, first_rows, padded
from sifrc.errors import DataError
from sifrc.extras import MissingDataDependency, optional

__all__ = ["load_cifar10"]

_NAME = "cifar10"
_SIDE, _ENTRIES = 32, 3072
# of the pixels of the original training part by colour, after division by 255
_MEAN = (0.4914, 0.4822, 0.4465)
_DEVIATION = (0.2470, 0.2435, 0.2616)
_FOLDERS = ("cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "cifar-10", "cifar10", ".")
_PICKLED = ("cifar-10-batches-py", "cifar10/cifar-10-batches-py")
_BATCHES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST_BATCH = "test_batch.bin"
_ARCHIVE = "cifar10_jpeg_12k.npz"
_Part: TypeAlias = tuple[NDArray[Any], NDArray[Any]]


def load_cifar10(request: Request) -> Dataset:
    """CIFAR-10 from the first folder that has it; the original files come before the archive.

    Pixels are divided by 255, then shifted and scaled by the mean and the deviation of their colour in
    the original training part.

    Args:
        request: the folder, and what to load of it.

    Raises:
        MissingImagesError: no folder has the files.
        DataError: the files are damaged or not complete, or the JPEG images cannot be decoded.
    """
    train, test, source = _find(request)

    def scaled(pixels: NDArray[Any]) -> NDArray[Any]:
        planes = padded(pixels, _SIDE, request.pad).reshape(len(pixels), 3, -1).astype(request.dtype)
        planes /= 255
        planes -= np.asarray(_MEAN, request.dtype)[:, None]
        planes /= np.asarray(_DEVIATION, request.dtype)[:, None]
        return planes.reshape(len(pixels), -1)

    return Dataset(
        name=_NAME,
        source=source,
        train_inputs=scaled(train[0]),
        train_targets=train[1].astype(np.int64),
        test_inputs=scaled(test[0]),
        test_targets=test[1].astype(np.int64),
        classes=10,
        image_shape=(_SIDE + 2 * request.pad,) * 2,
    )


def _find(request: Request) -> tuple[_Part, _Part, str]:
    """Pixels (N, 3072) and classes (N,) of both parts, and the words for ``source``."""
    roots = data_roots(request.path)
    for root, origin in roots:
        for folder in (root / below for below in _FOLDERS):
            if (batches := _read_batches(folder, request)) is not None:
                return *batches, f"{_BATCHES[0]} to {_BATCHES[-1]}, {_TEST_BATCH} {origin}"
    for root, origin in roots:
        for path in (root / below / _ARCHIVE for below in _FOLDERS):
            if path.is_file():
                return *_read_archive(path, request), f"{_ARCHIVE}, JPEG images, {origin}"
    reason = why_missing(request.path)
    if any((root / below).is_dir() for root, _ in roots for below in _PICKLED):
        reason += "; cifar-10-batches-py is there, but it is pickled and is not read"
    raise MissingImagesError(
        _NAME,
        "CIFAR-10",
        reason,
        f"a folder (path or {FOLDER_VARIABLE}) with cifar-10-batches-bin, the binary version of CIFAR-10 "
        f"({_BATCHES[0]} to {_BATCHES[-1]} and {_TEST_BATCH}), or with {_ARCHIVE}; "
        "or the data set 'digits'",
    )


def _read_batches(folder: Path, request: Request) -> tuple[_Part, _Part] | None:
    """The original binary files, or None if none of them is in the folder."""
    names = (*_BATCHES, _TEST_BATCH)
    missing = [name for name in names if not (folder / name).is_file()]
    if len(missing) == len(names):
        return None
    if missing:
        raise DataError(
            f"CIFAR-10 is not complete, without {', '.join(missing)}",
            hint=f"all of {', '.join(names)} in one folder",
        )
    train = np.concatenate([_records(folder / name) for name in _BATCHES])
    train = first_rows(train, request.train_count, _NAME)
    test = first_rows(_records(folder / _TEST_BATCH), request.test_count, _NAME)
    return (train[:, 1:], train[:, 0]), (test[:, 1:], test[:, 0])


def _records(path: Path) -> NDArray[np.uint8]:
    """(N, 3073): the class, then the pixels."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path.name}: {error.strerror}") from error
    if not content or len(content) % (1 + _ENTRIES):
        raise DataError(
            f"{path.name} has {len(content)} bytes",
            hint=f"{1 + _ENTRIES} bytes for each image: its class, then its pixels",
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _ENTRIES)
    _check_classes(path.name, records[:, 0])
    return records


def _check_classes(file: str, classes: NDArray[Any]) -> None:
    if classes.max() > 9:
        raise DataError(f"{file}: a class is {classes.max()}", hint="whole numbers from 0 to 9")


def _read_archive(path: Path, request: Request) -> tuple[_Part, _Part]:
    """Both parts of the archive of JPEG images."""
    arrays = read_npz(path)
    needed = {f"{part}_{what}" for part in ("train", "test") for what in ("blob", "off", "y")}
    if not needed <= arrays.keys():
        raise DataError(
            f"{path.name} has the arrays {', '.join(sorted(arrays)) or '(none)'}",
            hint=", ".join(sorted(needed)),
        )
    train = _read_part(path.name, "train", arrays, request.train_count)
    return train, _read_part(path.name, "test", arrays, request.test_count)


def _read_part(file: str, part: str, arrays: Mapping[str, NDArray[Any]], count: int | None) -> _Part:
    """Decode the first ``count`` images, taking the classes in turn.

    The archive has its images in the order of their classes; taken in turn, the first rows hold every
    class, as the original order has it.
    """
    blob, offsets, classes = (arrays[f"{part}_{what}"] for what in ("blob", "off", "y"))
    _check_archive(file, part, blob, offsets, classes)
    turn = np.empty(len(classes), np.int64)
    for value in np.unique(classes):
        members = np.flatnonzero(classes == value)
        turn[members] = np.arange(len(members))
    order = first_rows(np.lexsort((classes, turn)), count, _NAME)
    content, bounds = blob.tobytes(), offsets.astype(np.int64).tolist()
    decode = _decoder()
    pixels = np.empty((len(order), 3, _SIDE, _SIDE), np.uint8)
    for row, index in enumerate(order.tolist()):
        image = decode(content[bounds[index] : bounds[index + 1]], f"{file}: {part} image {index}")
        pixels[row] = image.transpose(2, 0, 1)
    return pixels, classes[order]


def _check_archive(
    file: str, part: str, blob: NDArray[Any], offsets: NDArray[Any], classes: NDArray[Any]
) -> None:
    """Shapes, dtypes and ranges of one part, before anything is decoded."""
    for name, array, kinds in (
        ("blob", blob, "u"),
        ("off", offsets, "iu"),
        ("y", classes, "iu"),
    ):
        if array.ndim != 1 or array.dtype.kind not in kinds or (name == "blob" and array.dtype != np.uint8):
            raise DataError(
                f"{file}: {part}_{name} has shape {array.shape} and dtype {array.dtype}",
                hint="one axis; bytes (uint8) in blob, whole numbers in off and y",
            )
    if not len(classes) or len(offsets) != len(classes) + 1:
        raise DataError(
            f"{file}: {len(classes)} classes and {len(offsets)} offsets in part '{part}'",
            hint="at least one image, and one offset more than images",
        )
    if classes.min() < 0:
        raise DataError(f"{file}: a class is {classes.min()}", hint="whole numbers from 0 to 9")
    _check_classes(file, classes)
    starts = offsets.astype(np.int64)
    if starts[0] < 0 or starts[-1] > len(blob) or (np.diff(starts) <= 0).any():
        raise DataError(
            f"{file}: {part}_off is not increasing from 0 to the {len(blob)} bytes of {part}_blob"
        )


def _decoder() -> Any:
    """A function from JPEG bytes and the words for errors to the pixels (32, 32, 3)."""
    user = f"{_ARCHIVE} with JPEG images (the binary version of CIFAR-10 does without)"
    library: Any = optional("PIL.Image", user, MissingDataDependency)

    def decode(content: bytes, where: str) -> NDArray[np.uint8]:
        try:
            with library.open(io.BytesIO(content), formats=("JPEG",)) as image:
                # The size is known before the pixels are decoded, so that a wrong image costs nothing.
                if image.size != (_SIDE, _SIDE):
                    raise DataError(f"{where} has {image.size[0]}x{image.size[1]} pixels", hint="32x32")
                return np.asarray(image.convert("RGB"), np.uint8)
        except (OSError, SyntaxError, ValueError, library.DecompressionBombError) as error:
            raise DataError(f"{where} cannot be decoded", hint="a JPEG image of 32x32 pixels") from error

    return decode
