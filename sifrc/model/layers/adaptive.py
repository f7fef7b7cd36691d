"""Pooling to a number of places that does not divide those of the input: windows of different sizes.

Place i of o reads the entries r of an axis of n with (r + 1) o > i n and r o < (i + 1) n, axis by axis: a
fixed table says which.
"""

from __future__ import annotations

import sympy

from sifrc.ir import Axis, Expr, Input, Operand, Reduce
from sifrc.ir.build import apply, einsum, rename
from sifrc.model.layers.building import Building
from sifrc.model.layers.masks import UNLESS_OUTSIDE
from sifrc.scalar import RECIPROCAL, ScalarFunction
from sifrc.spec.types import AdaptiveSpec

__all__ = ["adaptive"]

_PLACE, _ENTRY = sympy.symbols("place entry", real=True)


def adaptive(building: Building, settings: AdaptiveSpec) -> Expr:
    """Means or largest entries of the windows."""
    sizes = [axis.entries for axis in building.source.axes[1:]]
    tables = [_inside(building, *each) for each in zip(settings.output, sizes, strict=True)]
    return (_means if settings.pooling == "average" else _largest)(building, tables)


def _inside(building: Building, places: int, entries: int) -> Input:
    """1 where the window of a place has an entry of an axis, else 0."""

    def holds(condition: sympy.Basic) -> sympy.Expr:
        return sympy.Piecewise((1, condition), (0, True))

    begun = (_ENTRY + 1) * places > _PLACE * entries
    ended = _ENTRY * places < (_PLACE + 1) * entries
    formula = ScalarFunction("inside", ("place", "entry"), holds(begun) * holds(ended))
    return building.tables.symbol(formula, (places, entries))


def _means(building: Building, tables: list[Input]) -> Expr:
    """Σ x over a window, times one over its entries along each axis."""
    source, (channels, *places) = building.source, building.axes
    read = source.axes[1:]
    factors: list[Operand] = [(source, (channels, *read))]
    for table, place, axis in zip(tables, places, read, strict=True):
        counted = einsum([(table, (place, axis))], (place,))
        factors += [(table, (place, axis)), (apply(RECIPROCAL, counted), (place,))]
    return einsum(factors, building.axes)


def _largest(building: Building, tables: list[Input]) -> Expr:
    """The largest along one axis after the other, the last one first: of equal entries the first one."""
    value: Expr = building.source
    for number in reversed(range(1, len(building.axes))):
        read = value.axes[number]
        axes = (*value.axes[:number], building.axes[number], *value.axes[number + 1 :])
        axes = building.axes if number == 1 else building.inner(f"largest{number}", axes)
        labels = (*axes[:number], read, *axes[number + 1 :])
        inside = rename(tables[number - 1], (axes[number], read))
        found = einsum(
            [(Reduce(apply(UNLESS_OUTSIDE, rename(value, labels), inside), read), _moved(axes, number))], axes
        )
        value = found if number == 1 else building.state(f"largest{number}", found)
    return value


def _moved(axes: tuple[Axis, ...], number: int) -> tuple[Axis, ...]:
    """Axes with one of them at the end."""
    return (*axes[:number], *axes[number + 1 :], axes[number])
