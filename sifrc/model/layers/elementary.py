"""Dense layers, functions of entries, sums, and all axes as one."""

from __future__ import annotations

from sifrc.ir import Axis, Expr
from sifrc.ir.build import apply, einsum, rename, total
from sifrc.ir.selections import joined
from sifrc.model.layers.building import Building
from sifrc.model.parameters import LayerParameters
from sifrc.scalar import scalar_from_tree
from sifrc.spec.layers.elementary import EntrywiseSpec

__all__ = ["dense", "entrywise", "flatten", "linear", "summed"]


def dense(building: Building) -> Expr:
    """W x + β along the last axis, at every place of the others."""
    return linear(building.parameters(), building.source, building.axes)


def linear(owned: LayerParameters, source: Expr, axes: tuple[Axis, ...]) -> Expr:
    """W x + β along the last axis of a state, over some axes."""
    *places, feature = axes
    read = source.axes[-1]
    terms = [einsum([(owned.weight, (feature, read)), (source, (*places, read))], axes)]
    if owned.bias is not None:
        terms.append(einsum([(owned.bias, (feature,))], axes))
    return total(terms, axes)


def summed(building: Building) -> Expr:
    """The sum of the sources: of one, itself."""
    terms = (einsum([building.spread(source)], building.axes) for source in building.sources)
    return total(terms, building.axes)


def entrywise(building: Building) -> Expr:
    """A function of the entries of the sources."""
    settings = building.layer.settings
    assert isinstance(settings, EntrywiseSpec)
    function, axes = settings.function, building.axes
    names = tuple(f"x{number}" for number, _ in enumerate(building.sources, 1))
    scalar = scalar_from_tree(function.expression, names, function.parameters, function.name)
    return apply(scalar, *(einsum([building.spread(source)], axes) for source in building.sources))


def flatten(building: Building) -> Expr:
    """All axes of x as one."""
    source, axes = building.source, building.axes
    if len(source.axes) == 1:
        return rename(source, axes)
    join = joined(tuple(axis.entries for axis in source.axes))
    return einsum([(join, (*axes, *source.axes)), (source, source.axes)], axes)
