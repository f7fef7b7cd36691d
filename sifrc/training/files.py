"""Files of a run: whole at every moment, also if the process is killed; and one process at a time."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import TrainingError

__all__ = ["reading_arrays", "replacing", "run_directory"]

_DAMAGED = (OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, BadZipFile, zlib.error)
"""What a damaged archive, or an array of another form than it should have, raises."""


@contextmanager
def run_directory(path: Path | None) -> Iterator[Path | None]:
    """Make the folder of a run, and keep it for this run until the block ends.

    The lock is one on the folder itself, which the system drops when the process ends, however it ends.
    File systems without such locks are used without.

    Args:
        path: of the folder; None for a run without one.

    Raises:
        TrainingError: it cannot be made, or another run is using it.
    """
    if path is None:
        yield None
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot make the folder {path}: {_reason(error)}") from error
    with _locked(path):
        yield path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        fcntl: Any = import_module("fcntl")
    except ImportError:  # not on this system
        yield
        return
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise TrainingError(f"cannot use the folder {path}: {_reason(error)}") from error
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise TrainingError(
                    f"another run is using the folder {path}",
                    hint="another folder, or wait for its end",
                ) from error
        yield
    finally:
        os.close(folder)


class _Recording(FileIO):
    """A file that remembers why it could not be written.

    What writes archives and pictures through it may fail in ways of its own after that.
    """

    failure: OSError | None = None

    def write(self, content: Any, /) -> int:
        """Write as usual."""
        try:
            return super().write(content)
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file beside ``path`` and put it in its place once it is complete and on disk.

    The file beside it has a fixed name, so that one left by a killed process is written over; after an
    error it is removed. Until the new file is complete the old one is untouched.

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
    raw: _Recording | None = None
    try:
        raw = _Recording(beside, "w")
        try:
            with raw:
                file = BufferedWriter(raw)
                yield file
                file.flush()
                os.fsync(raw.fileno())
            os.replace(beside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside)
            raise
        _sync_folder(path.parent)
    except Exception as error:
        failure = error if isinstance(error, OSError) else raw.failure if raw is not None else None
        if failure is None:
            raise
        raise TrainingError(f"cannot write {path}: {_reason(failure)}") from error


@contextmanager
def reading_arrays(
    path: Path | str, problem: str, hint: str | None = None
) -> Iterator[dict[str, NDArray[Any]]]:
    """The arrays of an ``.npz`` archive; what goes wrong with them in the block says that it is damaged.

    Args:
        path: of the archive.
        problem: words for the error.
        hint: what would help.

    Raises:
        TrainingError: the archive, or something in it, is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            yield {key: archive[key] for key in archive.files}
    except _DAMAGED as error:
        raise TrainingError(f"{problem}: {error}", hint=hint) from error


def _sync_folder(folder: Path) -> None:
    """Bring the new name to disk, where the system can do that for folders."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
