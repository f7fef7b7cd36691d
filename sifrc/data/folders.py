"""Where the files of stored data sets are looked for, and what is said when they are not there."""

from __future__ import annotations

import os
from pathlib import Path

from sifrc.errors import DataError

__all__ = ["FOLDER_VARIABLE", "MissingImagesError", "data_roots", "why_missing"]

FOLDER_VARIABLE = "SIFRC_DATA"
"""Environment variable that names a folder of data sets."""


class MissingImagesError(DataError):
    """The files of an image set are not there.

    Args:
        name: of the set.
        title: how people write it; kept for the caller.
        reason: where they were looked for; kept for the caller.
        hint: what would do.
    """

    def __init__(self, name: str, title: str, reason: str, hint: str) -> None:
        """Say what would do."""
        super().__init__(f"the data set '{name}' is missing: {reason}", hint=hint)
        self.title = title
        self.reason = reason


def data_roots(path: Path | None) -> list[tuple[Path, str]]:
    """The folders to search, each with the words for ``source``: the given one, else SIFRC_DATA's."""
    if path is not None:
        return [(path, "in the given folder")]
    if os.environ.get(FOLDER_VARIABLE):
        return [(Path(os.environ[FOLDER_VARIABLE]), f"in {FOLDER_VARIABLE}")]
    return []


def why_missing(path: Path | None) -> str:
    """Why no folder of :func:`data_roots` has the files; it names no folder."""
    if path is not None:
        return "its files are not in the given folder" if path.is_dir() else "the given folder does not exist"
    if os.environ.get(FOLDER_VARIABLE):
        return f"its files are not in the folder that {FOLDER_VARIABLE} names"
    return f"no folder was given and {FOLDER_VARIABLE} is not set"
