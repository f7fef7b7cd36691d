"""A tensor by itself, as what layers read: no sample has a value of its own of it."""

from __future__ import annotations

from sifrc.ir import Expr
from sifrc.ir.build import rename
from sifrc.ir.fixed import Entries, Listed
from sifrc.model.layers.building import Building
from sifrc.scalar import scalar_from_tree
from sifrc.spec.layers.tensors import TableSpec

__all__ = ["parameter", "table"]


def parameter(building: Building) -> Expr:
    """A parameter, or a tensor that is given."""
    given = building.buffers.get("value")
    symbol = building.parameters().weight if given is None else given.symbol
    return rename(symbol, building.axes)


def table(building: Building) -> Expr:
    """Numbers, or a function of the index along each axis."""
    settings, sizes = building.layer.settings, building.layer.shape
    assert isinstance(settings, TableSpec)
    numbers = settings.entries
    if isinstance(numbers, tuple):
        entries: Entries = Listed(numbers)
    else:
        names = tuple(f"x{number}" for number, _ in enumerate(sizes, 1))
        entries = scalar_from_tree(numbers.expression, names, numbers.parameters, numbers.name)
    return rename(building.tables.symbol(entries, sizes), building.axes)
