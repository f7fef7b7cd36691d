"""Generated modules as files and as Python modules.

Compiled code is cached by file: a module is written under a name that contains a hash of its text, and
imported under the same name in every process. Numba's cache then never sees another text under the same
name, nor the same text under another one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from sifrc.errors import BackendError

__all__ = ["load_module", "module_name", "write_text"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_DIGITS = 16


def module_name(name: str, text: str) -> str:
    """Name under which a text is imported: the given one and the start of the text's sha256.

    Args:
        name: an identifier.
        text: source text of the module.

    Raises:
        BackendError: the name is not an identifier.

    Example:
        >>> module_name("digits_mk_numba", "x = 1\\n")
        'digits_mk_numba_9e26bf369911c45c'
    """
    if not _NAME.fullmatch(name):
        raise BackendError(f"'{name}' is not a name for a module", hint="letters, digits and _")
    return f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: other processes see the old content, or the whole new one.

    Args:
        path: of the file; its folder must exist.
        text: content, written as UTF-8.

    Raises:
        OSError: the file cannot be written.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The process's mask for new files; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def load_module(text: str, directory: Path, name: str = "generated") -> ModuleType:
    """Import the text of a generated module from a file in a folder, written if it is not there.

    The same text gives the same module object.

    Args:
        text: source text.
        directory: the folder, made if it is missing; Numba keeps its cache in it as well.
        name: first part of the module's name.

    Raises:
        BackendError: the folder or the file cannot be written, or the name is not an identifier.
    """
    unique = module_name(name, text)
    path = Path(directory) / f"{unique}.py"
    loaded = sys.modules.get(unique)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
    except OSError as error:
        raise BackendError(
            f"cannot write the module to {path}: {error.strerror or error}",
            hint="choose a folder that can be written",
        ) from error
    spec = importlib.util.spec_from_file_location(unique, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(unique, None)
        raise
    return module
