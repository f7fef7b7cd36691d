"""Traces of a curvature: of all of it, or by layer, group or parameter."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial

from sifrc.catalogue.context import Context, Declaration, OperatorSet
from sifrc.catalogue.meaning import Meaning
from sifrc.catalogue.phase import Row
from sifrc.catalogue.record import Argument, Case, Entry, Operator, Table
from sifrc.derive.curvature.kinds import Form
from sifrc.derive.curvature.systems import FACTORED
from sifrc.derive.curvature.traces import PARTS, TRACE, parts_system, sums_system
from sifrc.derive.system import System
from sifrc.model import Model
from sifrc.model.partition import partition_of

__all__ = ["TRACES", "Trace"]

_FORMS: tuple[Form, ...] = ("samples", *FACTORED, "batch")


@dataclass(frozen=True)
class Trace(Meaning):
    """Sums over the diagonal of a curvature.

    Args:
        sums: (name, parameters) of each.
    """

    sums: tuple[tuple[str, tuple[str, ...]], ...]


def _sums(model: Model) -> dict[str, tuple[tuple[str, tuple[str, ...]], ...]]:
    """What is added up, by the value of the argument."""
    names = tuple(parameter.name for owned in model.parameters for parameter in owned.members)
    found = {
        "whole": (("whole", names),),
        "layer": tuple((owned.layer, tuple(p.name for p in owned.members)) for owned in model.parameters),
    }
    partition = partition_of(model.spec)
    if not partition.discrete:  # that is the diagonal
        found["group"] = tuple(zip(partition.names, partition.members, strict=True))
    return found


def _trace(declared: Declaration, context: Context) -> Operator:
    sums, parts = _sums(context.model), context.like_params(PARTS, Meaning())
    single = tuple((entry.key, (entry.key,)) for entry in parts.entries)
    tables = {
        by: Table(tuple(Entry(name, (TRACE, k)) for k, (name, _) in enumerate(named, 1)), Trace(named))
        for by, named in sums.items()
    }
    tables["parameter"] = replace(parts, meaning=Trace(single))
    cases = [
        Case(
            (f"traces_of_{form}", *((f"trace_by_{by}",) if by in sums else ())),
            (table,),
            (("by", (by,)),),
            (form,),
        )
        for by, table in tables.items()
        for form in _FORMS
    ]
    approximated = [kind.name for kind in context.kinds if kind.form == "batch"]
    more = f" Of {', '.join(approximated)} they are made of products of means." if approximated else ""
    return Operator(
        declared.name,
        declared.doc,
        "EA-CG(4)",
        tuple(cases),
        arguments=(Argument("by", "whole", f"{', '.join(sums)} or parameter."),),
        kinds=context.kinds,
        returns=f"Dict name -> number, a single one for whole.{more}",
    )


def _systems(context: Context, wanted: Collection[str]) -> Iterator[Row]:
    for form in _FORMS:
        derive = partial(_parts, context, form)
        yield Row(f"traces_of_{form}", derive, ("forward",))
    for by, named in _sums(context.model).items():
        sums = [names for _, names in named]
        yield Row(f"trace_by_{by}", partial(sums_system, context.model, f"trace_by_{by}", sums))


def _parts(context: Context, form: Form) -> System:
    return parts_system(context.derived.curvature, form)


TRACES = OperatorSet(
    (Declaration("trace", "Trace of a curvature, exact from its blocks.", _trace, uses_kinds=True),),
    _systems,
)
