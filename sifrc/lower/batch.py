"""From one sample to a batch: the sample axis is added to everything that has a value per sample.

Tensors shaped like parameters, and whatever else has no value per sample, become the mean over the
batch (``mean`` is one over its size). Sums over samples are contractions, so that a mean of outer
products is one matrix product.
"""

from __future__ import annotations

from sifrc.derive.system import Equation, System
from sifrc.ir import SAMPLE, Add, Einsum, Expr, Input, Role
from sifrc.ir.along import along, spread
from sifrc.ir.build import add, einsum

__all__ = ["MEAN", "batch_equation", "batch_system", "over_samples"]

MEAN = Input("mean", None, (), Role.HYPERPARAMETER)
"""One over the batch size."""


def over_samples(expr: Expr) -> Expr:
    """The expression for every sample of a batch: axes (sample, …) where it depends on the sample."""
    return along(expr, SAMPLE, _of_samples)


def batch_symbol(symbol: Input) -> Input:
    """The symbol with a sample axis, if it has a value per sample.

    The axis comes first, but for those of groups: the samples of a group lie together.
    """
    if not symbol.role.per_sample:
        return symbol
    leading = sum(axis.is_group for axis in symbol.slots)
    slots = (*symbol.slots[:leading], SAMPLE, *symbol.slots[leading:])
    return Input(symbol.family, symbol.index, slots, symbol.role)


def _of_samples(symbol: Input) -> Expr:
    """The symbol of a batch over (sample, …)."""
    batched = batch_symbol(symbol)
    return spread(batched, (SAMPLE, *symbol.slots)) if batched is not symbol else symbol


def batch_equation(equation: Equation) -> Equation:
    """The equation for a batch; a symbol without a value per sample gets the mean."""
    value = over_samples(equation.value)
    symbol = batch_symbol(equation.symbol)
    per_sample = symbol.role.per_sample
    value = spread(value, symbol.axes) if per_sample else mean_over_samples(value)
    return Equation(symbol, value, equation.layer, equation.source)


def batch_system(system: System) -> System:
    """All equations of a system for a batch."""
    return System(
        system.name, system.title, tuple(batch_equation(e) for e in system.equations), system.conditions
    )


def mean_over_samples(expr: Expr) -> Expr:
    """mean_p of a batched expression; what does not depend on the sample stays."""
    if SAMPLE not in expr.axes:
        return expr
    out = tuple(axis for axis in expr.axes if axis != SAMPLE)
    if isinstance(expr, Add):
        return add([(factor, mean_over_samples(term)) for factor, term in expr.terms], out)
    operands = expr.operands if isinstance(expr, Einsum) else ((expr, expr.axes),)
    if not any(SAMPLE in labels for _, labels in operands):
        return einsum(operands, out)
    return einsum([*operands, (MEAN, ())], out)
