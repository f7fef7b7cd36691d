"""Optional dependencies: one error when one is missing or broken, which says what to install."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from sifrc.errors import BackendError, DataError, SifrcError, TrainingError

__all__ = [
    "MissingDataDependency",
    "MissingDependency",
    "MissingFramework",
    "MissingPlotDependency",
    "importing",
    "installing",
    "optional",
]

_EXTRAS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "torch": ("PyTorch", "sifrc[torch]"),
        "matplotlib": ("matplotlib", "sifrc[report]"),
        "latex2mathml": ("latex2mathml", "sifrc[report]"),
        "PIL": ("Pillow", "sifrc[data]"),
        "sklearn": ("scikit-learn", "sifrc[data]"),
        "numba": ("Numba", "numba"),
        "numba.cuda": ("Numba for CUDA (numba-cuda)", "sifrc[cuda]"),
    }
)
"""Module -> its name, and what pip installs it with; parts that are not here are those of their root."""


class MissingDependency(SifrcError, ImportError):
    """An optional dependency is not installed, or cannot be imported."""


class MissingFramework(MissingDependency, BackendError):
    """That of a generated module."""


class MissingDataDependency(MissingDependency, DataError):
    """That of a data set."""


class MissingPlotDependency(MissingDependency, TrainingError):
    """That of plots."""


def optional(name: str, user: str, error: Callable[..., SifrcError] = MissingDependency) -> Any:
    """Import an optional dependency, or part of one.

    Args:
        name: of the module.
        user: what needs it, for the message.
        error: class of the error.

    Raises:
        SifrcError: it is not installed, or its own import fails.

    Example:
        >>> optional("json", "this example").loads("1")
        1
        >>> optional("absent_one.datasets", "the data set 'digits'")
        Traceback (most recent call last):
        ...
        sifrc.extras.MissingDependency: error: the data set 'digits' needs absent_one, which is not installed
          = pip install absent_one
    """
    with importing(user, name, error):
        return importlib.import_module(name)


@contextmanager
def importing(
    user: str, name: str | None = None, error: Callable[..., SifrcError] = MissingDependency
) -> Iterator[None]:
    """Imports in the block that fail become one error.

    Args:
        user: what needs them, for the message.
        name: of the module, where it is known.
        error: class of the error.

    Raises:
        SifrcError: a module is not installed, or its own import fails, as that of a library whose shared
            objects do not fit the system.
    """
    try:
        yield
    except SifrcError:
        raise
    except (ImportError, OSError) as reason:
        raise _explained(user, name, reason, error) from reason


def _explained(
    user: str, name: str | None, reason: ImportError | OSError, error: Callable[..., SifrcError]
) -> SifrcError:
    failed = (reason.name if isinstance(reason, ImportError) else None) or name or ""
    absent = isinstance(reason, ModuleNotFoundError) and (name is None or _root(failed) == _root(name))
    root = _root(name or failed)
    title, package = _EXTRAS.get(name or "") or _EXTRAS.get(root, (root, root))
    install = _command(package)
    if absent:
        return error(f"{user} needs {title}, which is not installed", hint=install)
    text = " ".join(str(reason).split())
    return error(
        f"{user} needs {title or 'a library'}, which cannot be imported: {text}",
        hint=f"is it broken, or another version? {install}" if package else None,
    )


def installing(name: str) -> str:
    """The command that installs what a module belongs to.

    Example:
        >>> installing("numba.cuda")
        'pip install "sifrc[cuda]"'
    """
    return _command(_EXTRAS[name][1])


def _command(package: str) -> str:
    return f'pip install "{package}"' if "[" in package else f"pip install {package}"


def _root(name: str) -> str:
    return name.partition(".")[0]
