"""Batch normalisation: each channel with the mean and the variance of all samples and places.

In training, with mean over samples and places,

    μ = mean x,  c = x − μ,  v = mean c²,  r = 1/√(v + ε),  x̂ = γ c r + β

μ, v and r are states of the whole batch: their adjoints and tangents have no value per sample, and an
equation for one is that for the mean over the samples, by the rule that parameters have. So samples that
act on each other through them have exact derivatives of the batch's objective. Evaluated, the network has the
running statistics in the place of μ and v, which are constants; a layer without such has those of the batch.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod

from sifrc.ir import Expr, Input, Operand, Role
from sifrc.ir.build import add, apply, einsum, ones, rename, scale, subtract, total
from sifrc.model.layers.building import Building
from sifrc.model.layers.norms import root
from sifrc.scalar import scalar_from_tree
from sifrc.spec.layers.batch_norm import BatchNormSpec
from sifrc.spec.parser import parse_expression

__all__ = ["batch_norm"]

_COUNT = "num_batches_tracked"
"""Slot of the number of batches, which is brought up to date after what reads it."""
_MEAN = Input("mean", None, (), Role.HYPERPARAMETER)


def batch_norm(building: Building) -> Expr:
    """γ c r + β of a layer, with the statistics of the batch or the running ones."""
    settings, axes = building.layer.settings, building.axes
    assert isinstance(settings, BatchNormSpec)
    of_batch = building.training or not settings.tracked
    products = (_of_batch if of_batch else _of_buffers)(building, settings)
    bias = None
    if settings.affine:
        owned = building.parameters()
        bias, weight = owned.bias, (owned.weight, axes[:1])
        products = [(factor, [*product, weight]) for factor, product in products]
    terms = [(Fraction(factor), einsum(product, axes)) for factor, product in products]
    if bias is not None:
        terms.append((Fraction(1), einsum([(bias, axes[:1])], axes)))
    return add(terms, axes)


def _of_buffers(building: Building, settings: BatchNormSpec) -> list[tuple[int, list[Operand]]]:
    """r x − r μ, from the running statistics: what is of channels alone is computed once for each."""
    axes, buffers = building.axes, building.buffers
    factor = apply(root(settings.epsilon), buffers["running_var"].symbol), axes[:1]
    mean = buffers["running_mean"].symbol, axes[:1]
    return [(1, [(building.source, axes), factor]), (-1, [mean, factor])]


def _of_batch(building: Building, settings: BatchNormSpec) -> list[tuple[int, list[Operand]]]:
    """c r, from the batch; a step brings the running statistics up to date."""
    source = building.source
    whole = building.inner("centred", source.axes)
    count = prod(axis.entries for axis in whole[1:])

    def mean_of(name: str, *factors: Expr) -> Expr:
        (channel,) = building.inner(name, whole[:1])
        labels = channel, *whole[1:]
        return scale(Fraction(1, count), einsum([(factor, labels) for factor in factors], (channel,)))

    running = ("running_mean", "running_var") if settings.tracked else (None, None)
    mean = building.statistic("mean", mean_of("mean", source), running=running[0])
    spread = einsum([(mean, whole[:1])], whole)
    centred = building.state("centred", subtract(rename(source, whole), spread))
    variance = building.statistic("variance", mean_of("variance", centred, centred), running=running[1])
    scales = building.inner("scale", whole[:1])
    factor = building.statistic("scale", rename(variance, scales), root(settings.epsilon))
    if settings.tracked:
        unbiased = einsum([(_unbiased(count), ()), (variance, variance.axes)], variance.axes)
        for slot, found in (("running_mean", mean), ("running_var", unbiased)):
            building.keep(slot, _moved(building, settings, slot, found))
        if settings.momentum is None:
            before = building.buffers[_COUNT].symbol
            building.keep(_COUNT, total([before, ones()], ()))
    return [(1, [(centred, building.axes), (factor, building.axes[:1])])]


def _moved(building: Building, settings: BatchNormSpec, slot: str, found: Expr) -> Expr:
    """(1 − momentum) · running + momentum · found; of a mean the momentum is one over the batches."""
    symbol = building.buffers[slot].symbol
    found = rename(found, symbol.axes)
    if settings.momentum is None:
        tree = parse_expression("1/(1 + x)")
        share = apply(scalar_from_tree(tree, ("x",), (), "share"), building.buffers[_COUNT].symbol)
        products = [einsum([(share, ()), (each, symbol.axes)], symbol.axes) for each in (found, symbol)]
        return add(
            [(Fraction(1), symbol), (Fraction(1), products[0]), (Fraction(-1), products[1])], symbol.axes
        )
    momentum = Fraction(repr(settings.momentum))
    return add([(1 - momentum, symbol), (momentum, found)], symbol.axes)


def _unbiased(count: int) -> Expr:
    """n/(n − 1) for n = count · samples, from one over the number of samples."""
    tree = parse_expression("1/(1 - x/count)", parameters=["count"])
    return apply(scalar_from_tree(tree, ("x",), (("count", float(count)),), "unbiased"), _MEAN)
