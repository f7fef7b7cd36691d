"""Products of states, numbers times a state, and what is made of an axis."""

from __future__ import annotations

from fractions import Fraction
from math import prod

from sifrc.ir import Axis, Expr, LogSoftmax, Reduce
from sifrc.ir.build import apply, constant, einsum, rename, scale, total, zero
from sifrc.model.layers.building import Building
from sifrc.scalar import EXP, exact
from sifrc.spec.layers.products import AxesSpec, MatmulSpec, ScaleSpec
from sifrc.spec.layers.shapes import AxisSpec

__all__ = ["matmul", "maximum", "mean", "multiply", "scaled", "softmax", "softmax_of", "sum_"]


def multiply(building: Building) -> Expr:
    """The product of the sources, entry by entry."""
    return einsum([building.spread(source) for source in building.sources], building.axes)


def matmul(building: Building) -> Expr:
    """The matrix product of the last two axes, for each index of those before."""
    settings = building.layer.settings
    assert isinstance(settings, MatmulSpec)
    left, right = building.sources
    *before, row, column = building.axes
    summed = left.axes[-2] if settings.transpose_first else left.axes[-1]
    first = (summed, row) if settings.transpose_first else (row, summed)
    second = (column, summed) if settings.transpose_second else (summed, column)
    return einsum([(left, (*before, *first)), (right, (*before, *second))], building.axes)


def scaled(building: Building) -> Expr:
    """value · x + shift."""
    settings = building.layer.settings
    assert isinstance(settings, ScaleSpec)
    source = rename(building.source, building.axes)
    terms = [scale(_fraction(settings.value), source)]
    if settings.shift:
        terms.append(constant(exact(settings.shift), building.axes))
    return total(terms, building.axes)


def _fraction(value: float) -> Fraction:
    return Fraction(repr(value))


def sum_(building: Building) -> Expr:
    """The sum over axes."""
    kept, value = _kept(building)
    return _with_ones(building, einsum([(value, value.axes)], kept))


def mean(building: Building) -> Expr:
    """The mean over axes."""
    kept, value = _kept(building)
    count = prod(axis.entries for axis in value.axes) // prod(axis.entries for axis in kept)
    return _with_ones(building, scale(Fraction(1, count), einsum([(value, value.axes)], kept)))


def maximum(building: Building) -> Expr:
    """The largest entry over axes, the first of them where there are several."""
    kept, value = _kept(building)
    for axis in reversed([axis for axis in value.axes if axis not in kept]):
        value = Reduce(value, axis)
    return _with_ones(building, value)


def _kept(building: Building) -> tuple[tuple[Axis, ...], Expr]:
    """The axes of the source that stay, and the source."""
    settings = building.layer.settings
    assert isinstance(settings, AxesSpec)
    source = building.source
    return tuple(axis for n, axis in enumerate(source.axes) if n not in settings.axes), source


def _with_ones(building: Building, value: Expr) -> Expr:
    """Over the axes of the layer; those that the sum was over have one entry where they stay."""
    settings, axes = building.layer.settings, building.axes
    assert isinstance(settings, AxesSpec)
    kept = axes
    if settings.keep:
        kept = tuple(axis for n, axis in enumerate(axes) if n not in settings.axes)
    return einsum([(value, kept if value.axes else ())], axes)


def softmax(building: Building) -> Expr:
    """exp(x − log Σ exp x) along one axis."""
    settings = building.layer.settings
    assert isinstance(settings, AxisSpec)
    source = rename(building.source, building.axes)
    return softmax_of(source, building.axes[settings.axis])


def log_softmax(building: Building) -> Expr:
    """x − log Σ exp x along one axis."""
    settings = building.layer.settings
    assert isinstance(settings, AxisSpec)
    source, axis = rename(building.source, building.axes), building.axes[settings.axis]
    return zero(source.axes) if axis.size == 1 else LogSoftmax(source, axis)


def softmax_of(value: Expr, axis: Axis) -> Expr:
    """Softmax along an axis; of one entry it is one."""
    if axis.size == 1:
        return constant(exact(1.0), value.axes)
    return apply(EXP, LogSoftmax(value, axis))
