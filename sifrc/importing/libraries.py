"""Which installed library code is of, and in which version: what is anyone's own has none."""

from __future__ import annotations

import functools
import hashlib
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

__all__ = ["library_named", "library_of_class", "library_of_file"]

_STDLIB = sysconfig.get_paths()["stdlib"]
_OWN = str(Path(__file__).resolve().parent.parent)


def library_of_file(file: str) -> str | None:
    """The installed library that a file is of, with its version; None for anyone's own code."""
    parts = Path(file).parts
    for folder in ("site-packages", "dist-packages"):
        if folder in parts:
            inner = parts[len(parts) - parts[::-1].index(folder) :]
            found = _version_of(inner[0].removesuffix(".py"))
            return None if found is None else f"{found} {_digest_of(file)}"
    if file.startswith((_STDLIB, "<frozen ")):
        return "python"
    return "sifrc" if file.startswith(_OWN) else None


def library_of_class(kind: type) -> str:
    """The library that a class is of, if it is what the library has by its name; empty for others."""
    module = sys.modules.get(kind.__module__)
    found: Any = module
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    if module is None or found is not kind:
        return ""
    file = getattr(module, "__file__", None)
    if file is None:
        return library_named(kind.__module__.partition(".")[0])
    return library_of_file(file) or ""


def library_named(name: str) -> str:
    """The installed library that a module of this name is of; empty for anyone's own."""
    if name in sys.builtin_module_names or name in sys.stdlib_module_names:
        return "" if name == "__main__" else "python"
    file = getattr(sys.modules.get(name), "__file__", None)
    return "" if file is None else library_of_file(file) or ""


@functools.cache
def _version_of(package: str) -> str | None:
    """Name and version of an installed package, with what was installed; None for what is no distribution."""
    if package in ("torch", "sifrc", "numpy"):
        return f"{package} {getattr(sys.modules.get(package), '__version__', '')}"
    try:
        found = distribution(package)
    except PackageNotFoundError:
        return None
    record = hashlib.sha256((found.read_text("RECORD") or "").encode()).hexdigest()
    return f"{package} {found.version} {record}"


@functools.cache
def _digest_of(file: str) -> str:
    """Of what a file of a library says; that of torch and numpy is said by their versions."""
    parts = Path(file).parts
    if "torch" in parts or "numpy" in parts:
        return ""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return ""
