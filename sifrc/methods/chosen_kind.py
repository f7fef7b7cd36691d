"""The kind of curvature that a method's option names."""

from __future__ import annotations

from sifrc.derive.curvature.kinds import KINDS, Kind, kind_of
from sifrc.derive.derived import Derived
from sifrc.errors import MethodError
from sifrc.spec.suggest import did_you_mean

__all__ = ["kind_named"]


def kind_named(derived: Derived, name: str) -> Kind:
    """A kind of the spec's list, or a preset.

    Raises:
        MethodError: there is none of this name.
    """
    spec = derived.model.spec
    for own in spec.curvature:
        if own.name == name:
            return kind_of(own)
    if name in KINDS:
        return KINDS[name]
    known = [*(own.name for own in spec.curvature), *KINDS]
    raise MethodError(
        f"unknown kind of curvature '{name}'",
        location=spec.method.location_of("kind") if spec.method else None,
        label=did_you_mean(name, known),
        hint="kinds: " + ", ".join(dict.fromkeys(known)),
    )
