"""Every public operator by name, and the records of those that a spec asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from types import MappingProxyType

from sifrc.derive.curvature.kinds import kind_of
from sifrc.derive.derived import Derived
from sifrc.errors import Location, MethodError
from sifrc.operators.blocks import BLOCKS
from sifrc.operators.context import Context, Declaration, available_kinds
from sifrc.operators.derivatives import DERIVATIVES
from sifrc.operators.phase import Phase
from sifrc.operators.samples import SAMPLES
from sifrc.operators.summaries import SUMMARIES
from sifrc.operators.traces import TRACES

__all__ = ["BLOCK_OPERATORS", "OPERATORS", "context_of", "phases_of", "resolve_operators"]

_SETS = (DERIVATIVES, SAMPLES, BLOCKS, TRACES, SUMMARIES)
_FORMS = ("batched", "single")

OPERATORS: Mapping[str, Declaration] = MappingProxyType(
    {declared.name: declared for one in _SETS for declared in one.operators}
)
"""By name, in the order in which modules have them."""
BLOCK_OPERATORS: tuple[str, ...] = tuple(name for name, declared in OPERATORS.items() if declared.uses_kinds)
"""Operators on curvature blocks."""

_ALIASES: Mapping[str, str] = MappingProxyType({"linearize": "hessian_vector_product"})
_ALWAYS = ("loss", "objective")


def resolve_operators(
    names: Collection[str], locations: Mapping[str, Location] = MappingProxyType({})
) -> tuple[Declaration, ...]:
    """Operators by name, in the order of the table; ``loss`` and ``objective`` are always there.

    Args:
        names: what is asked for.
        locations: where each is asked for.

    Raises:
        MethodError: an unknown operator.
    """
    known = [*OPERATORS, *_ALIASES]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise MethodError(
                f"unknown operator '{name}'",
                location=locations.get(name),
                label=f"did you mean '{near[0]}'?" if near else None,
                hint=f"operators: {', '.join(known)}",
            )
    wanted = {_ALIASES.get(name, name) for name in names} | set(_ALWAYS)
    return tuple(declared for name, declared in OPERATORS.items() if name in wanted)


def context_of(derived: Derived, declared: Collection[Declaration]) -> Context:
    """What the operators are built from.

    Raises:
        DerivationError: a kind of curvature that the spec asks for does not exist for the model.
    """
    if not any(one.uses_kinds for one in declared):
        return Context(derived)
    return Context(derived, available_kinds(derived, [kind_of(c) for c in derived.model.spec.curvature]))


def phases_of(context: Context, wanted: Mapping[str, set[str]]) -> list[Phase]:
    """The wanted phases in an order in which they can run.

    Args:
        context: derivations and kinds.
        wanted: forms of each, by name.

    Raises:
        LookupError: something is wanted that no system has.
    """
    asked = {name: forms for name, forms in wanted.items() if forms}
    every = frozenset(form for forms in asked.values() for form in forms)
    asked |= {name: set(every) for name in context.spectral}
    found = [
        Phase(row.derive(), row.after, tuple(form for form in _FORMS if form in asked[row.name]))
        for one in _SETS
        for row in one.systems(context, asked)
        if row.name in asked
    ]
    missing = set(asked) - {phase.name for phase in found}
    if missing:
        raise LookupError(f"no system is called {', '.join(sorted(missing))}")
    return found
