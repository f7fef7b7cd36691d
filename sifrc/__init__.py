"""sifrc: a compiler from network specs to modules of curvature operators and optimizer updates.

    module = sifrc.compile("digits.yaml", backend="torch")
    print(sifrc.equations("digits.yaml"))

Importing the package imports none of its stages; each name is loaded when it is first used.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from sifrc.version import __version__

if TYPE_CHECKING:
    from sifrc.api import (
        compile,
        compile_source,
        equations,
        from_torch,
        operators,
        optimizer,
        read_spec,
        train,
        verify,
    )
    from sifrc.errors import (
        BackendError,
        DataError,
        DerivationError,
        Location,
        MethodError,
        ModelError,
        ModuleImportError,
        OperatorError,
        SifrcError,
        SpecError,
        TrainingError,
        VerificationError,
    )
    from sifrc.spec import Spec, build_spec, load_spec, parse_spec

__all__ = [
    "BackendError",
    "DataError",
    "DerivationError",
    "Location",
    "MethodError",
    "ModelError",
    "ModuleImportError",
    "OperatorError",
    "SifrcError",
    "Spec",
    "SpecError",
    "TrainingError",
    "VerificationError",
    "__version__",
    "build_spec",
    "compile",
    "compile_source",
    "equations",
    "from_torch",
    "load_spec",
    "operators",
    "optimizer",
    "parse_spec",
    "read_spec",
    "train",
    "verify",
]

_HOMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sifrc.api": (
            "compile",
            "compile_source",
            "equations",
            "from_torch",
            "operators",
            "optimizer",
            "read_spec",
            "train",
        ),
        "sifrc.errors": (
            "BackendError",
            "DataError",
            "DerivationError",
            "Location",
            "MethodError",
            "ModelError",
            "ModuleImportError",
            "OperatorError",
            "SifrcError",
            "SpecError",
            "TrainingError",
            "VerificationError",
        ),
        "sifrc.spec": ("Spec", "build_spec", "load_spec", "parse_spec"),
    }
)
_HOME_OF: Mapping[str, str] = MappingProxyType(
    {name: home for home, names in _HOMES.items() for name in names}
)


def __getattr__(name: str) -> Any:
    """Load a public name from the module it lives in."""
    if name == "verify":
        return import_module("sifrc.verify")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sifrc' has no attribute '{name}'")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All public names, also those not loaded yet."""
    return sorted({*globals(), *__all__})


class _VerifyStage(ModuleType):
    """The package ``sifrc.verify``, which can also be called like the function of its name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See :func:`sifrc.api.verify`."""
        return import_module("sifrc.api").verify(*args, **kwargs)


class _Package(ModuleType):
    """This package. One name is a stage and a function of the API: ``sifrc.verify``."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Python binds a subpackage here when it is first imported, from wherever that happens.
        if name == "verify" and type(value) is ModuleType:
            value.__class__ = _VerifyStage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
