"""Files that commands write: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from sifrc.errors import SifrcError

__all__ = ["write_file"]


def write_file(path: Path, text: str) -> None:
    """Write a text file in one step; an error leaves what was there.

    Raises:
        SifrcError: the file or its folder cannot be written.
    """
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, _usual_mode())
        os.replace(beside, path)
    except OSError as error:
        raise SifrcError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if beside is not None:
            with suppress(OSError):
                os.unlink(beside)


def _usual_mode() -> int:
    """The mode of a new file: temporary files are made for their owner only."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
