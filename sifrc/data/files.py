"""Reading stored data sets: idx files, also compressed, and npz archives. Nothing is ever unpickled."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import DataError

__all__ = ["find_idx", "read_idx", "read_npz"]

_IDX_TYPES: Mapping[int, str] = MappingProxyType(
    {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
)


def find_idx(folder: Path, stem: str) -> Path | None:
    """The idx file of a stem such as ``train-images-idx3-ubyte``: plain, or with ``.gz``.

    The spelling ``train-images.idx3-ubyte`` is found too.
    """
    for name in (stem, stem.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            if (path := folder / (name + suffix)).is_file():
                return path
    return None


def read_idx(path: Path) -> NDArray[Any]:
    """Read an idx file: two zero bytes, type, number of axes, sizes (big-endian), values.

    Raises:
        DataError: not an idx file, damaged, or shorter or longer than its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path.name}: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise DataError(f"{path.name} is not an idx file", hint="an idx file, plain or with .gz")
    dtype, axes = np.dtype(_IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise DataError(f"{path.name}: the file ends inside its header")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", axes, 4))
    expected = dtype.itemsize * prod(shape)
    if len(content) - start != expected:
        raise DataError(
            f"{path.name}: its header says shape {shape}, {expected} bytes, but {len(content) - start} follow"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an npz archive.

    Raises:
        DataError: missing, damaged, or it contains Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path.name} is not an npz archive")
            return {key: archive[key] for key in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        raise DataError(
            f"cannot read {path.name}: {error}", hint="an .npz archive of plain arrays (numpy.savez)"
        ) from error
