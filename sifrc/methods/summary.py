"""The public function on summaries: what it runs for which order."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sifrc.derive.derived import Derived
from sifrc.derive.groups import OWNER
from sifrc.derive.shaped import DIRECTION
from sifrc.derive.system import System
from sifrc.methods.plan import Phase
from sifrc.methods.summary_plan import SummaryOperator
from sifrc.model.partition import Partition

__all__ = ["SUMMARY", "groups_of", "owners_of", "summary_operator", "summary_phases"]

SUMMARY = "summary"
"""Name of the operator."""


def summary_operator(derived: Derived) -> SummaryOperator:
    """What ``summary`` runs."""
    spectral = () if derived.spectral is None else ("spectral",)
    base = ("forward", *spectral, "objective", "adjoint")
    whole = tuple(system.name for system in derived.summaries.whole())
    partition = derived.summaries.partition
    return SummaryOperator(
        single=tuple(partition.position.items()) if partition.discrete else (),
        base=base,
        orders=tuple(derived.summaries.of_order(order).name for order in (1, 2, 3)),
        whole=whole,
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


def summary_phases(derived: Derived, orders: tuple[int, ...], whole: bool) -> tuple[Phase, ...]:
    """The phases of some orders, after back-propagation."""
    spectral = () if derived.spectral is None else ("spectral",)
    before = ("forward", *spectral, "adjoint")
    phases = [Phase(derived.summaries.of_order(order), before) for order in orders]
    ran: tuple[System, ...] = derived.summaries.whole() if whole else ()
    for position, system in enumerate(ran):
        phases.append(Phase(system, (*before, *(earlier.name for earlier in ran[:position]))))
    return tuple(phases)


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
