"""Families of a program: where their arrays live, what they hold, and what is known of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from sifrc.derive.quantities import QUANTITIES
from sifrc.ir.fixed import Entries
from sifrc.ir.quantity import Storage
from sifrc.lower.arrays import Family
from sifrc.methods.plan import Plan

__all__ = ["as_batched", "described", "family_of", "with_classes"]


def with_classes(family: Family, classes: Collection[tuple[str, int | None]]) -> Family:
    """The family with what is known of its members that hold classes."""
    return replace(family, classes=frozenset(k for k, _ in family.shapes if (family.name, k) in classes))


def as_batched(family: str, shape: tuple[int | None, ...], plan: Plan) -> tuple[int | None, ...]:
    """Shape of the batched form of a family that only one-sample functions use."""
    storage = storage_of(family, plan)
    return (None, *shape) if storage in (Storage.WORK, Storage.DATA) else shape


def storage_of(family: str, plan: Plan) -> Storage:
    """Where the arrays of a family live."""
    if any(spec.family == family for spec in plan.memory):
        return Storage.MEMORY
    if any(hyper.name == family for hyper in plan.hyperparameters):
        return Storage.HYPERPARAMETER
    if family == "λ" and not any(known == "λ" for known, _ in plan.constants):
        return Storage.WORK
    if family.startswith("identity"):
        return Storage.IDENTITY
    known = QUANTITIES.get(family)
    return Storage.WORK if known is None else known.storage


def described(family: str) -> str:
    """What a family is; its name, if nobody has said."""
    known = QUANTITIES.get(family)
    return family if known is None else known.text


def family_of(
    name: str, code: str, shapes: Mapping[int | None, tuple[int | None, ...]], plan: Plan, part_of: str
) -> Family:
    """A family of a program.

    Args:
        name: canonical name.
        code: identifier.
        shapes: by index.
        plan: that says what it is.
        part_of: family of the quantity that it is an intermediate array of; empty for a quantity itself.
    """
    ordered = tuple(sorted(shapes.items(), key=lambda item: -1 if item[0] is None else item[0]))
    storage = storage_of(name, plan)
    values: tuple[float, ...] = ()
    if storage is Storage.CONSTANT:
        ordered = tuple((k, ()) for (family, k) in sorted(plan.constants) if family == name)
        values = tuple(plan.constants[name, k] for k, _ in ordered if k is not None)
    entries: tuple[Entries, ...] = ()
    if storage is Storage.TABLE:
        known = {table.symbol.index: table.entries for table in plan.model.tables}
        entries = tuple(known[k] for k, _ in ordered)
    memory = next((spec for spec in plan.memory if spec.family == name), None)
    hyper = next((h for h in plan.hyperparameters if h.name == name), None)
    text = described(part_of or name) + (", intermediate" if part_of else "")
    if memory is not None:
        text = memory.text
    if hyper is not None:
        text = hyper.text
    initial = memory.initial if memory else "zeros"
    return Family(name, code, storage, ordered, text, part_of, values, initial, entries)
