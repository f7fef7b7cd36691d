"""Every public operator by name, and those that a spec asks for.

Another package adds operators by an entry point in the group ``sifrc.operators``; a script or a test names
an :class:`OperatorSet` of its own as ``package.module:attribute``.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from sifrc.catalogue.blocks import BLOCKS
from sifrc.catalogue.context import Context, Declaration, OperatorSet, available_kinds
from sifrc.catalogue.derivatives import DERIVATIVES
from sifrc.catalogue.fisher import FISHER
from sifrc.catalogue.jacobians import JACOBIANS
from sifrc.catalogue.phase import Phase
from sifrc.catalogue.samples import SAMPLES
from sifrc.catalogue.summaries import SUMMARIES
from sifrc.catalogue.traces import TRACES
from sifrc.derive.curvature.kinds import kind_of
from sifrc.derive.derived import Derived
from sifrc.errors import Location, MethodError
from sifrc.plugins import load, place_of
from sifrc.spec.layers import evaluates_apart
from sifrc.spec.suggest import did_you_mean, shortened
from sifrc.spec.types import Spec

__all__ = [
    "BLOCK_OPERATORS",
    "OPERATORS",
    "context_of",
    "declared_by",
    "existing_operators",
    "is_built_in",
    "names_of_operators",
    "operator_sets",
    "phases_of",
]

GROUP = "sifrc.operators"

_SETS = (DERIVATIVES, SAMPLES, BLOCKS, TRACES, SUMMARIES, FISHER, JACOBIANS)
_FORMS = ("batched", "single")

OPERATORS: Mapping[str, Declaration] = MappingProxyType(
    {declared.name: declared for one in _SETS for declared in one.operators}
)
"""By name, in the order in which modules have them."""
BLOCK_OPERATORS: tuple[str, ...] = tuple(name for name, declared in OPERATORS.items() if declared.uses_kinds)
"""Operators on curvature blocks."""

_ALIASES: Mapping[str, str] = MappingProxyType({"linearize": "hessian_vector_product"})
_ALWAYS = ("loss", "objective")
_EVALUATED = "evaluation_loss"
"""An operator that is there where it is another than the loss."""


def operator_sets(
    names: Collection[str], locations: Mapping[str, Location] = MappingProxyType({})
) -> tuple[OperatorSet, ...]:
    """The built-in operators, and those from elsewhere that are among the names.

    Args:
        names: what is asked for: built-in operators, sets by the name of an entry point in the group
            ``sifrc.operators``, or their places as ``package.module:attribute``.
        locations: where each is asked for.

    Raises:
        MethodError: nothing has the name, or what is there is no set of operators.
    """
    return (*_SETS, *(_loaded(name, locations.get(name)) for name in names if not is_built_in(name)))


def declared_by(names: Collection[str], sets: Sequence[OperatorSet], spec: Spec) -> tuple[Declaration, ...]:
    """The operators asked for, in the order in which modules have them.

    Args:
        names: as in :func:`operator_sets`; ``loss`` and ``objective`` are always there.
        sets: of those names.
        spec: of the network.
    """
    wanted = {_ALIASES.get(name, name) for name in names} | set(_ALWAYS)
    wanted |= {_EVALUATED} if evaluates_apart(spec) else set()
    built_in = (declared for name, declared in OPERATORS.items() if name in wanted)
    return (*built_in, *(declared for one in sets[len(_SETS) :] for declared in one.operators))


def names_of_operators(names: Collection[str]) -> tuple[str, ...]:
    """The names of what is asked for in a module: those of the operators of each set from elsewhere.

    Raises:
        MethodError: as :func:`operator_sets`.
    """
    found = (
        (name,) if is_built_in(name) else tuple(one.name for one in _loaded(name, None).operators)
        for name in names
    )
    return tuple(itertools.chain.from_iterable(found))


def existing_operators(spec: Spec) -> tuple[str, ...]:
    """The package's own operators, but for one that would be another by a second name."""
    return tuple(name for name in OPERATORS if name != _EVALUATED or evaluates_apart(spec))


def is_built_in(name: str) -> bool:
    """Whether an operator is one of the package's own."""
    return name in OPERATORS or name in _ALIASES


def _loaded(name: str, location: Location | None) -> OperatorSet:
    """Operators from elsewhere."""
    place = place_of(GROUP, name)
    if place is None:
        known = [*OPERATORS, *_ALIASES]
        raise MethodError(
            f"unknown operator '{shortened(name)}'",
            location=location,
            label=did_you_mean(name, known),
            hint=f"operators: {', '.join(known)}, or package.module:attribute",
        )
    found = load("operator", name, place, MethodError, location)
    if not isinstance(found, OperatorSet):
        raise MethodError(
            f"'{shortened(name)}' is no set of operators",
            location=location,
            hint="give an instance of sifrc.catalogue.context.OperatorSet",
        )
    taken = [one.name for one in found.operators if is_built_in(one.name) or not one.name.isidentifier()]
    if taken:
        raise MethodError(
            f"'{shortened(name)}' cannot call an operator '{shortened(taken[0])}'",
            location=location,
            hint="a name is an identifier, and none that exists",
        )
    return found


def context_of(derived: Derived, declared: Collection[Declaration]) -> Context:
    """What the operators are built from.

    Raises:
        DerivationError: a kind of curvature that the spec asks for does not exist for the model.
    """
    if not any(one.uses_kinds for one in declared):
        return Context(derived)
    return Context(derived, available_kinds(derived, [kind_of(c) for c in derived.model.spec.curvature]))


def phases_of(
    context: Context, wanted: Mapping[str, set[str]], sets: Sequence[OperatorSet] = _SETS
) -> list[Phase]:
    """The wanted phases in an order in which they can run.

    Args:
        context: derivations and kinds.
        wanted: forms of each, by name.
        sets: whose systems there are.

    Raises:
        LookupError: something is wanted that no system has.
    """
    asked = {name: forms for name, forms in wanted.items() if forms}
    every = frozenset(form for forms in asked.values() for form in forms)
    asked |= {name: set(every) for name in context.before_loss}
    found = [
        Phase(row.derive(), row.after, tuple(form for form in _FORMS if form in asked[row.name]))
        for one in sets
        for row in one.systems(context, asked)
        if row.name in asked
    ]
    missing = set(asked) - {phase.name for phase in found}
    if missing:
        raise LookupError(f"no system is called {', '.join(sorted(missing))}")
    return found
