"""The loss of one sample: of vectors along one axis of the output, at every place of the others.

Labels of classes may be smoothed, and targets may not count; a mean over a batch divides by those that do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import prod

from sifrc.ir import Axis, Expr, Input, Role
from sifrc.ir.along import along, spread
from sifrc.ir.build import add, einsum, scale
from sifrc.ir.traverse import substitute
from sifrc.model.loss import build_loss
from sifrc.spec.types import LossSpec

__all__ = ["Normalization", "normalization_of", "sample_loss", "target_of"]


def target_of(loss: LossSpec, axes: tuple[Axis, ...]) -> Input:
    """The symbol of the target: like the output, with the axis of classes last where there are such."""
    if loss.targets == "vectors":
        return Input("t", None, axes, Role.DATA)
    places = (axis for position, axis in enumerate(axes) if position != loss.axis)
    # Of a target that does not count, all entries are zero.
    role = Role.CLASS if loss.ignored is None else Role.COUNTED
    return Input("t", None, (*places, axes[loss.axis]), role)


@dataclass(frozen=True)
class Normalization:
    """What a mean over a batch divides by besides the number of samples, where not all targets count alike.

    Args:
        count: of one sample, from its target.
        mean: its mean over the batch.
        factor: one over that, which the loss is multiplied by.
    """

    count: Expr
    mean: Input
    factor: Input


def normalization_of(loss: LossSpec, target: Input) -> Normalization | None:
    """Of a loss some of whose targets do not count."""
    if loss.ignored is None or loss.reduction == "sum":
        return None
    count = prod(axis.entries for axis in target.axes[:-1]) if loss.places == "mean" else 1
    weight = scale(Fraction(1, count), einsum([(target, target.axes)], ()))
    mean, factor = (Input(name, None, (), Role.STATISTIC) for name in ("ω̄", "κ"))
    return Normalization(weight, mean, factor)


def sample_loss(loss: LossSpec, output: Input, target: Input) -> Expr:
    """The loss of one sample: that of the vectors along one axis, at every place of the others.

    Args:
        loss: of the spec.
        output: symbol of y.
        target: symbol of t, as :func:`target_of` gives it.

    Raises:
        ModelError: the expression is not a number, or not differentiable.
    """
    function = loss.function
    vector = output.axes[loss.axis]
    places = [axis for position, axis in enumerate(output.axes) if position != loss.axis]
    # Of one place first, then along one axis of places after the other; the last axis comes first.
    of_one = {symbol: replace(symbol, slots=(vector,)) for symbol in (output, target)}
    value = build_loss(function.expression, of_one[output], of_one[target], function.parameters)
    if loss.smoothing:
        value = substitute(value, {of_one[target]: _smoothed(of_one[target], vector, loss.smoothing)})
    for number in reversed(range(len(places))):
        at = {one: replace(one, slots=(*places[number:], vector)) for one in (output, target)}
        before = {
            symbol: replace(symbol, slots=(*places[number + 1 :], vector)) for symbol in (output, target)
        }
        table = {before[symbol]: at[symbol] for symbol in (output, target)}
        value = along(value, places[number], partial(_looked_up, table))
    if places:
        count = prod(axis.entries for axis in places) if loss.places == "mean" else 1
        value = scale(Fraction(1, count), einsum([(value, value.axes)], ()))
        moved = {replace(s, slots=(*places, vector)): _as_is(s, places, vector) for s in (output, target)}
        value = substitute(value, moved)
    return value


def _smoothed(target: Input, vector: Axis, smoothing: float) -> Expr:
    """A part of the class at all classes, the rest at the class itself."""
    part = Fraction(repr(smoothing))
    shared = einsum([(target, (vector,))], ())
    return add([(1 - part, target), (part / vector.entries, spread(shared, (vector,)))], (vector,))


def _looked_up(table: Mapping[Input, Input], symbol: Input) -> Expr:
    return table.get(symbol, symbol)


def _as_is(symbol: Input, places: list[Axis], vector: Axis) -> Expr:
    """A symbol with the axis of vectors last."""
    return einsum([(symbol, symbol.axes)], (*places, vector))
