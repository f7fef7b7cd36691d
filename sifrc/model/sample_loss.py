"""The loss of one sample: of vectors along one axis of the output, at every place of the others.

Labels of classes may be smoothed; targets may count more than others, by their class or by a mask, or not at
all, and a mean over a batch divides by what counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import prod

from sifrc.ir import Axis, Expr, Input, Operand, Role
from sifrc.ir.along import along, spread
from sifrc.ir.build import add, einsum, hadamard, rename, scale, total
from sifrc.ir.fixed import Listed
from sifrc.ir.traverse import substitute
from sifrc.model.loss import build_loss
from sifrc.model.tables import Tables
from sifrc.spec.functionspec import loss_parts
from sifrc.spec.types import LossSpec

__all__ = ["Counting", "Normalization", "counting_of", "normalization_of", "sample_loss", "target_of"]


def target_of(loss: LossSpec, axes: tuple[Axis, ...]) -> Input:
    """The symbol of the target: like the output, with the axis of classes last where there are such."""
    if loss.targets == "vectors":
        return Input("t", None, axes, Role.DATA)
    # Of a target that does not count, all entries are zero.
    role = Role.CLASS if loss.ignored is None else Role.COUNTED
    return Input("t", None, (*loss.of_places(axes), axes[loss.axis]), role)


@dataclass(frozen=True)
class Counting:
    """What says how much targets count.

    Args:
        weights: of the classes, a fixed table; None where all count alike.
        positive: of targets of one, for each entry of a vector, a fixed table; None where they count alike.
        mask: data with a number for each place, or for each entry; None where all count alike.
    """

    weights: Input | None = None
    positive: Input | None = None
    mask: Input | None = None


def counting_of(loss: LossSpec, mask: Input | None, tables: Tables) -> Counting:
    """What a loss has of this.

    Args:
        loss: of the spec.
        mask: the input that it names, if it does.
        tables: of the model, which gets those of weights.
    """
    weights, positive = (
        tables.symbol(Listed(numbers), (len(numbers),)) if numbers else None
        for numbers in (loss.weights, loss.positive)
    )
    return Counting(weights, positive, mask)


@dataclass(frozen=True)
class Normalization:
    """What a mean over a batch divides by besides the number of samples, where not all targets count alike.

    Args:
        count: of one sample, from its target and its mask.
        mean: its mean over the batch.
        factor: one over that, which the loss is multiplied by.
    """

    count: Expr
    mean: Input
    factor: Input


def normalization_of(loss: LossSpec, target: Input, counting: Counting) -> Normalization | None:
    """Of a loss some of whose targets count more than others, or not at all."""
    of_classes = loss.targets == "classes" and (loss.ignored is not None or counting.weights is not None)
    if loss.reduction == "sum" or not (of_classes or counting.mask is not None):
        return None
    *places, vector = target.axes
    factors: list[Operand] = []
    if of_classes:
        factors.append((target, target.axes))
        factors += [(counting.weights, (vector,))] if counting.weights is not None else []
    count = prod(axis.entries for axis in places) if loss.places == "mean" else 1
    if counting.mask is not None:
        mask = counting.mask
        factors.append((mask, tuple(places) if of_classes and places else mask.axes))
        count = prod(axis.entries for axis in mask.axes)
    weight = scale(Fraction(1, count), einsum(factors, ()))
    mean, factor = (Input(name, None, (), Role.STATISTIC) for name in ("ω̄", "κ"))
    return Normalization(weight, mean, factor)


def sample_loss(loss: LossSpec, output: Input, target: Input, counting: Counting) -> Expr:
    """The loss of one sample: that of the vectors along one axis, at every place of the others.

    Args:
        loss: of the spec.
        output: symbol of y.
        target: symbol of t, as :func:`target_of` gives it.
        counting: what says how much targets count.

    Raises:
        ModelError: the expression is not a number, or not differentiable.
    """
    mask = counting.mask
    vector = output.axes[loss.axis]
    places = loss.of_places(output.axes)
    given: dict[Input, Expr] = {output: output, target: target}
    weight = mask if loss.entries else None
    if weight is not None:
        given[weight] = rename(weight, output.axes)
    # Of one place first, then along one axis of places after the other; the last axis comes first.
    of_one = {symbol: replace(symbol, slots=(vector,)) for symbol in given}
    own = of_one[weight] if weight else None
    value = _of_vector(loss, (of_one[output], of_one[target]), own, counting.positive)
    wanted = _wanted(loss, of_one[target], vector, counting)
    if wanted is not of_one[target]:
        value = substitute(value, {of_one[target]: wanted})
    for number in reversed(range(len(places))):
        at = {one: replace(one, slots=(*places[number:], vector)) for one in given}
        before = {symbol: replace(symbol, slots=(*places[number + 1 :], vector)) for symbol in given}
        table = {before[symbol]: at[symbol] for symbol in given}
        value = along(value, places[number], partial(_looked_up, table))
    if places or (mask is not None and weight is None):
        count = prod(axis.entries for axis in places) if loss.places == "mean" else 1
        factors: list[Operand] = [(spread(value, places), places)]
        if mask is not None and weight is None:
            factors.append((mask, places or mask.axes))
        value = scale(Fraction(1, count), einsum(factors, ()))
        moved = {replace(s, slots=(*places, vector)): _as_is(e, places, vector) for s, e in given.items()}
        value = substitute(value, moved)
    elif weight is not None:
        value = substitute(value, {of_one[weight]: given[weight]})
    return value


def _of_vector(loss: LossSpec, pair: tuple[Input, Input], mask: Input | None, positive: Input | None) -> Expr:
    """The loss of a vector and its target; that of targets of one may count by an entry's number."""
    function = loss.function
    if positive is None:
        return build_loss(function.expression, *pair, function.parameters, mask)
    axes = pair[0].axes
    weight = rename(positive, axes)
    weights = mask, weight if mask is None else hadamard(weight, mask)
    parts = zip(loss_parts(function.name, loss.reduction), weights, strict=True)
    return total((build_loss(tree, *pair, (), own) for tree, own in parts), ())


def _wanted(loss: LossSpec, target: Input, vector: Axis, counting: Counting) -> Expr:
    """The target as the loss has it: a part of the class at all classes, and classes by their weights."""
    value: Expr = target
    if loss.smoothing:
        value = _smoothed(target, vector, loss.smoothing)
    if counting.weights is not None:
        value = einsum([(value, (vector,)), (counting.weights, (vector,))], (vector,))
    return value


def _smoothed(target: Input, vector: Axis, smoothing: float) -> Expr:
    """A part of the class at all classes, the rest at the class itself."""
    part = Fraction(repr(smoothing))
    shared = einsum([(target, (vector,))], ())
    return add([(1 - part, target), (part / vector.entries, spread(shared, (vector,)))], (vector,))


def _looked_up(table: Mapping[Input, Input], symbol: Input) -> Expr:
    return table.get(symbol, symbol)


def _as_is(value: Expr, places: tuple[Axis, ...], vector: Axis) -> Expr:
    """What is given, with the axis of vectors last."""
    return einsum([(value, value.axes)], (*places, vector))
