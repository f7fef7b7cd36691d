"""Methods by name."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

from sifrc.errors import Location, MethodError
from sifrc.methods.base import Method
from sifrc.methods.esn import ExactStochasticNewton
from sifrc.methods.mk import MehouachiKasmi

__all__ = ["METHODS", "find_method"]

METHODS: Mapping[str, Method] = MappingProxyType(
    {method.name: method for method in (ExactStochasticNewton(), MehouachiKasmi())}
)


def find_method(name: str, location: Location | None = None) -> Method:
    """A method by name.

    Raises:
        MethodError: there is none of this name.
    """
    if name not in METHODS:
        near = get_close_matches(name, METHODS, 1)
        raise MethodError(
            f"unknown method '{name}'",
            location=location,
            label=f"did you mean '{near[0]}'?" if near else None,
            hint="methods: " + ", ".join(METHODS),
        )
    return METHODS[name]
