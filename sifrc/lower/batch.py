"""From one sample to a batch: the sample axis is added to everything that has a value per sample.

Tensors shaped like parameters, and whatever else has no value per sample, become the mean over the
batch (``mean`` is one over its size). Sums over samples are contractions, so that a mean of outer
products is one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

from sifrc.derive.system import Equation, System
from sifrc.ir import (
    SAMPLE,
    Add,
    Axis,
    Delta,
    Einsum,
    Expr,
    Input,
    LogSumExp,
    Map,
    Reduce,
    Role,
    Solve,
    Spectral,
    Sylvester,
)
from sifrc.ir.build import add, einsum, mapped, transpose
from sifrc.ir.traverse import postorder

__all__ = ["MEAN", "batch_equation", "batch_system", "over_samples"]

MEAN = Input("mean", None, (), Role.HYPERPARAMETER)
"""One over the batch size."""


def over_samples(expr: Expr) -> Expr:
    """The expression for every sample of a batch: axes (sample, …) where it depends on the sample."""
    done: dict[str, Expr] = {}
    for node in postorder(expr):
        done[node.key] = _batched(node, lambda child: done[child.key])
    return done[expr.key]


def batch_symbol(symbol: Input) -> Input:
    """The symbol with a sample axis, if it has a value per sample."""
    if not symbol.role.per_sample:
        return symbol
    return Input(symbol.family, symbol.index, (SAMPLE, *symbol.slots), symbol.role)


def batch_equation(equation: Equation) -> Equation:
    """The equation for a batch; a symbol without a value per sample gets the mean."""
    value = over_samples(equation.value)
    symbol = batch_symbol(equation.symbol)
    per_sample = symbol.role.per_sample
    value = transpose(_spread(value), symbol.axes) if per_sample else mean_over_samples(value)
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


def _depends(expr: Expr) -> bool:
    return SAMPLE in expr.axes


def _spread(expr: Expr) -> Expr:
    """The same for every sample, with the axis in front."""
    return expr if _depends(expr) else einsum([(expr, expr.axes)], (SAMPLE, *expr.axes))


def _first(expr: Expr, axes: tuple[Axis, ...]) -> Expr:
    return transpose(_spread(expr), (SAMPLE, *axes))


@singledispatch
def _batched(node: Expr, new: Callable[[Expr], Expr]) -> Expr:
    raise TypeError(f"no batch rule for {type(node).__name__}")


@_batched.register
def _(node: Input, new: Callable[[Expr], Expr]) -> Expr:
    return batch_symbol(node)


@_batched.register
def _(node: Delta, new: Callable[[Expr], Expr]) -> Expr:
    return node


@_batched.register
def _(node: Einsum, new: Callable[[Expr], Expr]) -> Expr:
    operands = [
        (new(expr), (SAMPLE, *labels) if _depends(new(expr)) else labels) for expr, labels in node.operands
    ]
    depends = any(SAMPLE in labels for _, labels in operands)
    return einsum(operands, (SAMPLE, *node.out) if depends else node.out)


@_batched.register
def _(node: Add, new: Callable[[Expr], Expr]) -> Expr:
    terms = [(factor, new(term)) for factor, term in node.terms]
    if not any(_depends(term) for _, term in terms):
        return add(terms, node.out)
    return add([(factor, _first(term, node.out)) for factor, term in terms], (SAMPLE, *node.out))


@_batched.register
def _(node: Map, new: Callable[[Expr], Expr]) -> Expr:
    operands = [
        (new(expr), (SAMPLE, *labels) if _depends(new(expr)) else labels) for expr, labels in node.operands
    ]
    depends = any(SAMPLE in labels for _, labels in operands)
    return mapped(node.function, node.orders, operands, (SAMPLE, *node.out) if depends else node.out)


@_batched.register
def _(node: LogSumExp, new: Callable[[Expr], Expr]) -> Expr:
    return LogSumExp(new(node.operand), node.over)


@_batched.register
def _(node: Reduce, new: Callable[[Expr], Expr]) -> Expr:
    return Reduce(new(node.operand), node.over, node.kind)


@_batched.register
def _(node: Solve, new: Callable[[Expr], Expr]) -> Expr:
    matrix, rhs = new(node.matrix), new(node.rhs)
    if _depends(matrix) or _depends(rhs):
        return Solve(_first(matrix, node.matrix.axes), _first(rhs, node.rhs.axes), node.checked)
    return Solve(matrix, rhs, node.checked)


@_batched.register
def _(node: Spectral, new: Callable[[Expr], Expr]) -> Expr:
    return Spectral(new(node.matrix), node.kind)


@_batched.register
def _(node: Sylvester, new: Callable[[Expr], Expr]) -> Expr:
    return Sylvester(new(node.left), new(node.right), new(node.rhs))
