"""Which operators on curvature blocks, and which kinds, verification looks at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from sifrc.derive.curvature.kinds import KINDS, Kind, kind_of
from sifrc.derive.derived import Derived
from sifrc.errors import DerivationError, VerificationError
from sifrc.model import build_model
from sifrc.operators.context import available_kinds
from sifrc.operators.registry import BLOCK_OPERATORS
from sifrc.spec.types import Spec
from sifrc.verify.points import capped

__all__ = [
    "CURVATURE_QUANTITIES",
    "curvature_obstacle",
    "described",
    "kinds_of_module",
    "kinds_of_spec",
    "looked_at",
]

CURVATURE_QUANTITIES: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        1: ("block_hessian", "block_vector_product", "hessian_diagonal"),
        2: BLOCK_OPERATORS,
        3: BLOCK_OPERATORS,
    }
)
"""Level -> operators that it checks."""


def looked_at(spec: Spec, required: Iterable[str], module: Any) -> tuple[str, ...]:
    """The operators on blocks that are required or that the module has.

    A spec that lists kinds and no operators, without a module, means all of them.
    """
    required = set(required)
    if spec.curvature and not required and module is None:
        exact = any(entry.name == "hessian" for entry in spec.curvature)
        return tuple(name for name in BLOCK_OPERATORS if exact or name != "hessian_diagonal")
    return tuple(name for name in BLOCK_OPERATORS if name in required or hasattr(module, name))


def curvature_obstacle(spec: Spec) -> str | None:
    """Why the model has no operators on blocks; None where it has them."""
    derived = Derived(build_model(capped(spec, 4)))
    try:
        derived.curvature.moments("second")
        available_kinds(derived, [kind_of(entry) for entry in spec.curvature])
    except DerivationError as error:
        return error.message
    return None


def kinds_of_spec(spec: Spec) -> tuple[Kind, ...]:
    """The kinds that a module of the spec has: those it lists, or every preset that exists for it."""
    derived = Derived(build_model(capped(spec, 4)))
    wanted = [kind_of(entry) for entry in spec.curvature]
    return tuple(kind for kind, _ in available_kinds(derived, wanted))


def kinds_of_module(spec: Spec, module: Any) -> tuple[Kind, ...]:
    """The kinds that a module has, as the spec and the presets say what they are.

    Raises:
        VerificationError: it has one that neither knows, or lacks one that the spec lists.
    """
    names = getattr(module, "_KINDS", None)
    if names is None:
        return kinds_of_spec(spec)
    own = {entry.name: kind_of(entry) for entry in spec.curvature}
    missing = [name for name in own if name not in names]
    if missing:
        raise VerificationError(f"the module lacks kinds that the spec lists: {', '.join(missing)}")
    known = {**KINDS, **own}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise VerificationError(f"the module has kinds that the spec does not know: {', '.join(unknown)}")
    return tuple(known[name] for name in names)


def described(kinds: Iterable[Kind]) -> str:
    """Their names, for a note."""
    return "kinds " + ", ".join(kind.name for kind in kinds)
