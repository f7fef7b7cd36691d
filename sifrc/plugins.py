"""What other packages add by name: methods, backends and operators."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from sifrc.errors import Location, SifrcError
from sifrc.spec.suggest import shortened

__all__ = ["installed", "load", "place_of"]

_PLACE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def installed(group: str) -> tuple[str, ...]:
    """Names that installed packages have in a group of entry points, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def place_of(group: str, name: str) -> str | None:
    """The place ``package.module:attribute`` of a name: of an entry point of the group, or the name itself.

    Example:
        >>> place_of("sifrc.methods", "package.module:Newton"), place_of("sifrc.methods", "newton")
        ('package.module:Newton', None)
    """
    for point in sorted(entry_points(group=group), key=lambda point: point.value):
        if point.name == name:
            return point.value
    return name if _PLACE.fullmatch(name) else None


def load(what: str, name: str, place: str, error: type[SifrcError], location: Location | None = None) -> Any:
    """Import what stands at a place; this runs its module.

    Args:
        what: it is to be, for the error.
        name: as it is asked for.
        place: ``package.module:attribute``.
        error: class of the error.
        location: of the name in a spec, for the error.

    Raises:
        SifrcError: of the given class, where it cannot be imported.
    """
    module, _, attribute = EntryPoint(name, place, what).value.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as problem:
        raise error(
            f"{what} '{shortened(name)}' cannot be loaded: {problem}",
            location=location,
            hint=f"{place} must be importable",
        ) from problem
