"""Numerical value of an expression, on float64 arrays or on object arrays of mpmath numbers.

This is the reference meaning of the nodes, used by verification; it is not fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sifrc.ir.axes import Axis
from sifrc.ir.nodes import Add, Delta, Einsum, Expr, Input, LogSumExp, Map, Reduce, Solve
from sifrc.ir.traverse import postorder
from sifrc.scalar.evaluation import Arithmetic

__all__ = ["evaluate"]

Array: TypeAlias = npt.NDArray[Any]


class _Context:
    def __init__(self, arithmetic: Arithmetic, values: dict[str, Array], samples: int) -> None:
        self.arithmetic = arithmetic
        self.values = values
        self.samples = samples

    def size(self, axis: Axis) -> int:
        return self.samples if axis.size is None else axis.size

    def value(self, expr: Expr) -> Array:
        return self.values[expr.key]


def evaluate(
    roots: Mapping[str, Expr],
    inputs: Mapping[Input, Array],
    arithmetic: Arithmetic,
    samples: int = 1,
) -> dict[str, Array]:
    """Values of the expressions.

    Args:
        roots: name -> expression.
        inputs: value of every input, shaped like its axes.
        arithmetic: float64 or mpmath, see :mod:`sifrc.scalar.evaluation`.
        samples: size of the batch axis.

    Raises:
        KeyError: an input has no value.
    """
    values = {symbol.key: np.asarray(value) for symbol, value in inputs.items()}
    context = _Context(arithmetic, values, samples)
    for node in postorder(*roots.values()):
        if node.key not in values:
            values[node.key] = _evaluate(node, context)
    return {name: values[root.key] for name, root in roots.items()}


@singledispatch
def _evaluate(node: Expr, context: _Context) -> Array:
    raise TypeError(f"no evaluation rule for {type(node).__name__}")


@_evaluate.register
def _(node: Input, context: _Context) -> Array:
    raise KeyError(f"no value for {node.name}")


@_evaluate.register
def _(node: Delta, context: _Context) -> Array:
    return context.arithmetic.array(np.eye(context.size(node.left)))


@_evaluate.register
def _(node: Add, context: _Context) -> Array:
    shape = tuple(context.size(a) for a in node.out)
    result = context.arithmetic.array(np.zeros(shape))
    for factor, term in node.terms:
        result = result + context.arithmetic.rational(factor) * context.value(term)
    return np.asarray(result)


@_evaluate.register
def _(node: Einsum, context: _Context) -> Array:
    numbers: dict[Axis, int] = {}
    arguments: list[Any] = []
    for expr, labels in node.operands:
        arguments += [context.value(expr), [numbers.setdefault(a, len(numbers)) for a in labels]]
    carried = [a for a in node.out if a in numbers]
    one = context.arithmetic.array(np.ones(()))
    product = np.einsum(*arguments, [numbers[a] for a in carried]) if arguments else one
    product = np.asarray(product).reshape([context.size(a) if a in numbers else 1 for a in node.out])
    return np.broadcast_to(product, [context.size(a) for a in node.out])


@_evaluate.register
def _(node: Map, context: _Context) -> Array:
    shape = [context.size(a) for a in node.out]
    arguments = {}
    for name, (expr, labels) in zip(node.function.arguments, node.operands, strict=True):
        value = np.transpose(context.value(expr), [labels.index(a) for a in node.out if a in labels])
        value = value.reshape([context.size(a) if a in labels else 1 for a in node.out])
        arguments[name] = np.broadcast_to(value, shape)
    return context.arithmetic.apply(node.function.value_form(node.orders), arguments)


def _along(node: LogSumExp | Reduce) -> int:
    return node.operand.axes.index(node.over)


@_evaluate.register
def _(node: LogSumExp, context: _Context) -> Array:
    value, axis = context.value(node.operand), _along(node)
    largest = np.max(value, axis=axis, keepdims=True)
    total = np.sum(context.arithmetic.exp(value - largest), axis=axis)
    return np.asarray(np.squeeze(largest, axis=axis) + context.arithmetic.log(total))


@_evaluate.register
def _(node: Reduce, context: _Context) -> Array:
    return np.asarray(np.max(context.value(node.operand), axis=_along(node)))


@_evaluate.register
def _(node: Solve, context: _Context) -> Array:
    solve: Callable[[Array, Array], Array] = context.arithmetic.solve
    return solve(context.value(node.matrix), context.value(node.rhs))
