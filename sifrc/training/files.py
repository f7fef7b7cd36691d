"""Files that are whole at every moment, also if the process is killed while it writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sifrc.errors import TrainingError

__all__ = ["replacing", "run_directory"]


def run_directory(path: Path) -> Path:
    """Make the folder of a run.

    Raises:
        TrainingError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot make the folder {path}: {error.strerror}") from error
    return path


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file beside ``path`` and put it in its place once it is complete and on disk.

    The file beside it has a fixed name, so that one left by a killed process is written over.

    Raises:
        TrainingError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with replacing(path) as file:
        ...     _ = file.write(b"whole")
        >>> path.read_bytes(), len(list(path.parent.iterdir()))
        (b'whole', 1)
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise TrainingError(f"cannot write {path.name}: {error.strerror or error}") from error
