"""A tensor by itself, as what layers read: no sample has a value of its own of it."""

from __future__ import annotations

from sifrc.ir import Expr
from sifrc.ir.build import rename
from sifrc.model.layers.building import Building

__all__ = ["parameter"]


def parameter(building: Building) -> Expr:
    """A parameter, or a tensor that is given."""
    given = building.buffers.get("value")
    symbol = building.parameters().weight if given is None else given.symbol
    return rename(symbol, building.axes)
