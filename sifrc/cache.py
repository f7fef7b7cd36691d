"""Generated modules on disk, keyed by everything their text depends on.

An entry is one file: the module, and a last line with the digest of what is above it. A damaged entry
is found by that line and made again. A folder that cannot be written is a warning, never an error: the
module then lives in a temporary folder as long as the process, or in memory where there is none.

Modules are imported as ``sifrc.compiled.<entry>``. Other processes find them under that name, see there.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import PackageNotFoundError, version
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import platformdirs

from sifrc.extras import MissingFramework, importing
from sifrc.version import __version__

__all__ = [
    "CACHE_VARIABLE",
    "PACKAGE",
    "CacheWarning",
    "cache_folder",
    "entry_name",
    "folder_of",
    "generator_digest",
    "load_text",
    "module_from_cache",
    "module_spec",
    "read_entry",
    "write_entry",
]

CACHE_VARIABLE = "SIFRC_CACHE"
"""Environment variable with the folder to use in place of the user's cache folder."""

PACKAGE = "sifrc.compiled"
"""Package of the modules' names."""

_SEAL = "# cached by sifrc, sha256 of the lines above: "
_PRINTERS = ("jinja2", "numpy", "opt_einsum", "sympy")


class CacheWarning(UserWarning):
    """The cache could not be used as wished; compiling went on without it."""


def cache_folder() -> Path | None:
    """The folder for generated modules: that of SIFRC_CACHE, else the user's cache folder.

    None, with a warning, where neither can be found: a process without a home, as in some containers.

    Example:
        >>> cache_folder().is_absolute()
        True
    """
    given = os.environ.get(CACHE_VARIABLE)
    try:
        base = Path(given) if given else Path(platformdirs.user_cache_dir("sifrc", appauthor=False))
        base = base.expanduser()
        if not given and not base.is_absolute():
            raise RuntimeError("there is no home folder")
        return base.absolute()
    except (OSError, RuntimeError) as error:
        _warn(f"there is no cache folder ({_reason(error)}); {CACHE_VARIABLE} names one")
        return None


def folder_of(cache: bool | str | os.PathLike[str]) -> Path | None:
    """The folder that a caller's choice of a cache names; None for none.

    Args:
        cache: True for the user's cache folder, a folder, or False.
    """
    if cache is True:
        return cache_folder()
    return None if cache is False else Path(cache).absolute()


@functools.cache
def generator_digest() -> str:
    """SHA-256 of the generator: sources, templates and the versions of the libraries it prints with.

    A change anywhere in the package gives new entries. That is more often than necessary, and never
    too rarely.
    """
    package = Path(__file__).resolve().parent
    templates = next(
        (p for p in (package / "templates", package.parent / "templates") if p.is_dir()), package
    )
    files = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    files |= {
        f"templates/{path.relative_to(templates).as_posix()}": path
        for path in templates.rglob("*")
        if path.suffix in (".jinja", ".py") and templates != package
    }
    digest = hashlib.sha256()
    for name in sorted(files):
        content = files[name].read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    digest.update(json.dumps([_version(name) for name in _PRINTERS]).encode())
    return digest.hexdigest()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def entry_name(name: str, content: Mapping[str, Any]) -> str:
    """The name of an entry, also of the module that is imported from it.

    Args:
        name: of the spec, for people who look into the folder.
        content: what the text depends on besides the generator, as plain data.

    Example:
        >>> entry_name("tiny", {"a": 1}) == entry_name("tiny", {"a": 2})
        False
    """
    payload = {"sifrc": __version__, "generator": generator_digest(), "content": content}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def read_entry(path: Path) -> str | None:
    """The text of an entry; None if there is none, or with a warning if it is damaged.

    Args:
        path: of the file.
    """
    try:
        text, separator, seal = path.read_bytes().decode().rpartition(_SEAL)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        _warn(f"the cached module {path.name} cannot be read ({_reason(error)}); it is compiled again")
        return None
    if not separator or seal != _digest(text) + "\n":
        _warn(f"the cached module {path.name} is damaged; it is compiled again")
        return None
    return text


def write_entry(path: Path, text: str) -> Path:
    """Write an entry, whole at every moment, and return where it is.

    Several processes may write the same one. Where the folder cannot be written, the entry goes to a
    temporary one, with a warning; where that cannot either, there is no file.
    """
    try:
        _write_whole(path, text)
    except OSError as error:
        kept, beside = "in memory", path
        with suppress(OSError):
            beside = _temporary_folder() / path.name
            _write_whole(beside, text)
            kept = "in a temporary folder"
        _warn(
            f"the cache folder {path.parent} cannot be used ({_reason(error)}); the module is kept {kept}. "
            f"{CACHE_VARIABLE} names another folder"
        )
        return beside
    return path


def module_from_cache(
    name: str,
    make: Callable[[], str],
    folder: Path | None,
    *,
    reuse: bool = True,
    library: str | None = None,
) -> ModuleType:
    """Import an entry, made first if it is not there.

    Args:
        name: from :func:`entry_name`.
        make: gives the text.
        folder: of the cache; None for one that lives as long as the process.
        reuse: False makes the text in any case.
        library: that the module imports, for the error where that fails.

    Raises:
        SifrcError: what the module imports is not installed.
    """
    if folder is None:
        with suppress(OSError):
            folder = _temporary_folder()
    path = Path(f"{name}.py") if folder is None else folder / f"{name}.py"
    text = read_entry(path) if reuse and folder is not None else None
    if text is None:
        text = make()
        if folder is not None:
            path = write_entry(path, text)
    with importing("the generated module", library, MissingFramework):
        return load_text(f"{PACKAGE}.{name}", path, text)


def load_text(name: str, path: Path, text: str) -> ModuleType:
    """Import a module from text that also stands in a file.

    The name decides, as everywhere in Python: a module of this name that is loaded is returned. Numba
    finds its own cache by the path, and its entries only fit a module of the same name.

    Args:
        name: of the module.
        path: of the file, for tracebacks and Numba's cache.
        text: what is run; nothing is read from the file in between.
    """
    finder = _OneModule(module_spec(name, path, text))
    sys.meta_path.insert(0, finder)
    try:
        # Python's own import: threads wait for each other, and a module that fails is not left loaded.
        return import_module(name)
    finally:
        sys.meta_path.remove(finder)


def module_spec(name: str, path: Path, text: str) -> ModuleSpec:
    """What Python imports a module from: its text, which was checked already.

    Args:
        name: of the module.
        path: of the file, for tracebacks and Numba's cache.
        text: what is run.
    """
    spec = spec_from_loader(name, _TextLoader(name, path, text), origin=str(path))
    assert spec is not None
    spec.has_location = True
    return spec


class _OneModule(MetaPathFinder):
    """Finds a module that is about to be imported."""

    def __init__(self, spec: ModuleSpec) -> None:
        self._spec = spec

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module, under its name."""
        return self._spec if fullname == self._spec.name else None


class _TextLoader(SourceFileLoader):
    """Loads text that was checked already, past Python's own bytecode files."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        super().__init__(name, str(path))
        self._text = text

    def get_code(self, fullname: str) -> Any:
        """Compile the text."""
        return self.source_to_code(self._text.encode(), self.path)

    def get_source(self, fullname: str) -> str:
        """The text, for tracebacks."""
        return self._text


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(f"{text}{_SEAL}{_digest(text)}\n".encode())
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    # The object removes the folder when the process ends, so it must live until then.
    return tempfile.TemporaryDirectory(prefix="sifrc-", ignore_cleanup_errors=True)


def _temporary_folder() -> Path:
    return Path(_temporary().name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _warn(text: str) -> None:
    warnings.warn(text, CacheWarning, stacklevel=2)
