"""Summaries of the derivatives along a direction, by groups of the parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from sifrc.catalogue.context import Context, Declaration, OperatorSet
from sifrc.catalogue.meaning import Along, Gradient, Value
from sifrc.catalogue.phase import Row
from sifrc.catalogue.record import Argument, Case, Field, Mean, Operator, Record, Single, Switch, Vector
from sifrc.derive.derived import Derived
from sifrc.derive.groups import OWNER
from sifrc.derive.shaped import DIRECTION, GRADIENT
from sifrc.model.partition import Partition

__all__ = ["SUMMARIES", "SUMMARY", "groups_of", "owners_of"]

SUMMARY = "summary"
"""Name of the operator."""

_RECORD = Record(
    "Summary",
    "Derivatives of the objective along a direction u, group by group of the parameters.",
    (
        Field("objective", "Of the batch.", "number"),
        Field("g", "(S,): ⟨u_s, ∂L⟩, u_s the direction within group s."),
        Field("H", "(S, S): d²L[u_s, u_t]; None for order 1.", always=False),
        Field("D3", "(S,): d³L[u_s, u_s, u_s], or all of it, (S, S, S); None below order 3.", always=False),
        Field("groups", "Names of the groups, in order.", "groups"),
        Field("gradient", "Of the objective, where it was asked for.", "params", always=False),
    ),
)
_RESULTS = (
    Single("ḡ", Along(1), "g"),
    Single("H̿", Along(2), "H"),
    Single("D̄", Along(3), "D3"),
)
"""Of orders 1 to 3."""
_WHOLE = (*_RESULTS[:2], Single("T̄", Along(3, full=True), "D3"))
"""Of all of order 3."""


def _summary(declared: Declaration, context: Context) -> Operator:
    summaries = context.derived.summaries
    partition = summaries.partition
    whole = tuple(system.name for system in summaries.whole())
    cases = []
    for order in (1, 2, 3):
        choices = (("order", (order,)), ("full", (False,)))
        cases.append(Case((summaries.of_order(order).name,), _RESULTS[:order], choices))
    cases.append(Case(whole, _WHOLE, (("order", (3,)), ("full", (True,)))))
    return Operator(
        declared.name,
        declared.doc,
        "GN3(6, 9)",
        tuple(cases),
        prepare=("forward", *context.before_loss, "objective", "adjoint"),
        vector=Vector(
            DIRECTION.families,
            "direction",
            tuple(partition.position.items()) if partition.discrete else (),
        ),
        arguments=(
            Argument("order", 2, "1, 2 or 3."),
            Argument("full", False, "all of order 3, (S, S, S), in place of its diagonal."),
        ),
        switches=(
            Switch(
                "gradient",
                "whether the gradient is returned too.",
                ("gradient",),
                context.like_params(GRADIENT, Gradient()),
            ),
        ),
        also=(Mean("objective", Value("objective"), "objective"),),
        # Parts of a batch have statistics of their own.
        chunks=not context.model.couples,
        record=_RECORD,
        partitioned=True,
    )


def groups_of(partition: Partition) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Name and tensors of every group; entries are counted along the rows of a tensor."""
    if not partition.discrete:
        return tuple(zip(partition.names, partition.members, strict=True))
    return tuple(
        (f"{name}[{entry}]", (name,))
        for name, count in zip(partition.names, partition.counts, strict=True)
        for entry in range(count)
    )


def owners_of(derived: Derived) -> Mapping[tuple[str, int], int]:
    """(family, subscript) of every tensor -> position of its group."""
    found: dict[tuple[str, int], int] = {}
    if derived.summaries.partition.discrete:
        return MappingProxyType(found)
    for owned in derived.model.parameters:
        for parameter in owned.members:
            family = OWNER[DIRECTION.family(parameter.slot)]
            found[family, owned.index] = derived.summaries.partition.position[parameter.name]
    return MappingProxyType(found)


def _systems(context: Context, wanted: Collection[str]) -> Iterator[Row]:
    """Summaries of each order, and of all of order 3, where some are wanted."""
    if not any(name.startswith("summary_") for name in wanted):
        return
    summaries, before = context.derived.summaries, ("forward", *context.before_loss, "adjoint")
    systems = [(summaries.of_order(order), before) for order in (1, 2, 3)]
    ran = summaries.whole()
    for position, system in enumerate(ran):
        systems.append((system, (*before, *(earlier.name for earlier in ran[:position]))))
    for system, after in systems:
        yield Row(system.name, lambda s=system: s, after)  # type: ignore[misc]


SUMMARIES = OperatorSet(
    (
        Declaration(
            SUMMARY,
            "Summary of the derivatives along a direction, by groups of the parameters.",
            _summary,
        ),
    ),
    _systems,
)
