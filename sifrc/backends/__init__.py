"""Backends: printers of tensor programs, found by name.

Built-in backends are imported when they are asked for. Another package adds one by an entry point in
the group ``sifrc.backends``; a test or a script names one as ``package.module:attribute``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias, cast

from sifrc.backends.base import Backend, LayerInfo, ModuleSource, Option
from sifrc.errors import BackendError, Location
from sifrc.plugins import installed, load, place_of
from sifrc.spec.suggest import did_you_mean, quoted_list, shortened

__all__ = [
    "BUILT_IN",
    "LIBRARIES",
    "Backend",
    "LayerInfo",
    "ModuleSource",
    "Option",
    "check_options",
    "find_backend",
    "known_backends",
]

OptionValue: TypeAlias = bool | int | float | str

GROUP = "sifrc.backends"

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "cuda": "sifrc.backends.numba_cuda:BACKEND",
        "numba": "sifrc.backends.numba_cpu:BACKEND",
        "torch": "sifrc.backends.torch_eager:BACKEND",
    }
)
"""Built-in backends: name -> ``module:attribute``."""

LIBRARIES: Mapping[str, str] = MappingProxyType({"cuda": "numba.cuda", "numba": "numba", "torch": "torch"})
"""What modules of the built-in backends import; compiling them imports none of it."""


def known_backends() -> tuple[str, ...]:
    """Names of all backends, built in and installed, sorted.

    Example:
        >>> known_backends()[:3]
        ('cuda', 'numba', 'torch')
    """
    return tuple(sorted({*BUILT_IN, *installed(GROUP)}))


def find_backend(name: str, location: Location | None = None) -> Backend:
    """The backend of a name.

    Args:
        name: of a built-in backend, of an entry point in the group ``sifrc.backends``, or the place
            of one as ``package.module:attribute``. The attribute is an instance, or a class or
            function that makes one without arguments. A built-in name always means the built-in.
        location: of the name in a spec, for the error.

    Raises:
        BackendError: no backend has this name, or what is there is not a backend.

    Example:
        >>> find_backend("torch").name
        'torch'
    """
    place = BUILT_IN.get(name) or place_of(GROUP, name)
    if place is not None:
        return _checked(load("backend", name, place, BackendError, location), name, location)
    raise BackendError(
        f"unknown backend '{shortened(name)}'",
        location=location,
        label=did_you_mean(name, known_backends()),
        hint=f"known backends: {' '.join(known_backends())}, or package.module:attribute",
    )


def _checked(found: object, name: str, location: Location | None) -> Backend:
    """What was loaded, or made by it, if it has the members of a backend."""
    members = ("name", "options", "dtypes", "emit")
    backend = (
        found() if isinstance(found, type) or (not hasattr(found, "emit") and callable(found)) else found
    )
    missing = [member for member in members if not hasattr(backend, member)]
    if missing:
        raise BackendError(
            f"'{shortened(name)}' is not a backend: it has no {quoted_list(missing)}",
            location=location,
            hint="a backend has " + " ".join(members),
        )
    return cast(Backend, backend)


def check_options(
    backend: Backend,
    given: Mapping[str, OptionValue],
    locations: Mapping[str, Location] = MappingProxyType({}),
) -> Mapping[str, OptionValue]:
    """Backend options with their defaults filled in, in the order of the backend's table.

    Args:
        backend: whose options they are.
        given: option values by name.
        locations: where in the spec each was given, for the error.

    Raises:
        BackendError: an unknown option, a value of another type, or one that is not among the choices.

    Example:
        >>> check_options(find_backend("torch"), {"spam": 1})
        Traceback (most recent call last):
        ...
        sifrc.errors.BackendError: error: backend 'torch' has no option 'spam'
          = options: check_forward compile recompute blocks
    """
    table = {option.name: option for option in backend.options}
    for name, value in given.items():
        location = locations.get(name)
        option = table.get(name)
        if option is None:
            raise BackendError(
                f"backend '{backend.name}' has no option '{shortened(name)}'",
                location=location,
                label=did_you_mean(name, table),
                hint=f"options: {' '.join(table)}" if table else "it has no options",
            )
        _check_value(backend.name, option, value, location)
    return MappingProxyType({name: given.get(name, option.default) for name, option in table.items()})


def _check_value(backend: str, option: Option, value: OptionValue, location: Location | None) -> None:
    kind = type(option.default)
    # An integer will do for a float; a bool is an int only for Python.
    fits = type(value) is kind or (kind is float and type(value) is int)
    if not fits:
        raise BackendError(
            f"option '{option.name}' of backend '{backend}' is {value!r}, not of type {kind.__name__}",
            location=location,
            hint=option.text,
        )
    if option.choices and value not in option.choices:
        raise BackendError(
            f"option '{option.name}' of backend '{backend}' is {value!r}",
            location=location,
            hint=f"accepted: {quoted_list(repr(choice) for choice in option.choices)}",
        )
