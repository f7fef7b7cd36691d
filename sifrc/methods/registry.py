"""Methods by name.

Another package adds a method by an entry point in the group ``sifrc.methods``; a script or a test
names one as ``package.module:attribute``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from sifrc.errors import Location, MethodError
from sifrc.methods.base import Method
from sifrc.methods.ea_cg import CurvatureBlocks
from sifrc.methods.esn import ExactStochasticNewton
from sifrc.methods.grouped_newton import GroupedNewton
from sifrc.methods.mk import MehouachiKasmi
from sifrc.plugins import load, place_of
from sifrc.spec.suggest import did_you_mean, shortened

__all__ = ["METHODS", "find_method"]

GROUP = "sifrc.methods"

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (ExactStochasticNewton(), MehouachiKasmi(), CurvatureBlocks(), GroupedNewton())
    }
)
"""Built-in methods by name."""

_IDENTIFIER = re.compile(r"[A-Za-z]\w*", re.ASCII)


def find_method(name: str, location: Location | None = None) -> Method:
    """A method by name.

    Args:
        name: of a built-in method, of an entry point in the group ``sifrc.methods``, or the place of
            one as ``package.module:attribute``. The attribute is a :class:`Method` or a subclass of it
            that takes no arguments. A built-in name always means the built-in.
        location: of the name in a spec, for the error.

    Raises:
        MethodError: there is none of this name, or what is there is not a method.

    Example:
        >>> find_method("mk").title
        'Mehouachi–Kasmi'
    """
    if name in METHODS:
        return METHODS[name]
    place = place_of(GROUP, name)
    if place is not None:
        return _checked(load("method", name, place, MethodError, location), name, place, location)
    raise MethodError(
        f"unknown method '{shortened(name)}'",
        location=location,
        label=did_you_mean(name, METHODS),
        hint=f"methods: {', '.join(METHODS)}, or package.module:attribute",
    )


def _checked(found: object, name: str, place: str, location: Location | None) -> Method:
    """What was loaded, if it is a method."""
    method = found() if isinstance(found, type) and issubclass(found, Method) else found
    if not isinstance(method, Method):
        raise MethodError(
            f"'{shortened(name)}' is not a method",
            location=location,
            hint="give an instance or a subclass of sifrc.methods.base.Method",
        )
    # The name becomes part of the generated file's name.
    if not _IDENTIFIER.fullmatch(method.name):
        raise MethodError(
            f"the method in {place} is named '{shortened(method.name)}', which is no identifier",
            location=location,
            hint="e.g. my_method",
        )
    return method
