"""Value of an expression in a number system: float64 arrays, or object arrays of mpmath numbers.

This is the reference meaning of the nodes, used by verification; it is not fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any, TypeAlias

import numpy as np

from sifrc.ir.arithmetic import NUMPY, Arithmetic, Array
from sifrc.ir.axes import Axis
from sifrc.ir.nodes import (
    Add,
    Affine,
    AlongAxis,
    ArgMax,
    Delta,
    Einsum,
    Expr,
    Input,
    LogSoftmax,
    LogSumExp,
    Map,
    Reduce,
)
from sifrc.ir.solvers import CubicNewton, Solve, Spectral
from sifrc.ir.traverse import postorder

__all__ = ["evaluate"]

_Factor: TypeAlias = tuple[Array, list[int]]
"""An array and the numbers of its labels."""
_AT_ONCE = 3


class _Context:
    def __init__(self, arithmetic: Arithmetic, values: dict[str, Array], samples: int) -> None:
        self.arithmetic = arithmetic
        self.values = values
        self.samples = samples

    def size(self, axis: Axis) -> int:
        return self.samples if axis.is_sample else axis.entries

    def shape(self, axes: tuple[Axis, ...]) -> tuple[int, ...]:
        return tuple(self.size(axis) for axis in axes)

    def value(self, expr: Expr) -> Array:
        return self.values[expr.key]


def evaluate(
    roots: Mapping[str, Expr],
    inputs: Mapping[Input, Any],
    arithmetic: Arithmetic = NUMPY,
    samples: int = 1,
) -> dict[str, Array]:
    """Values of the expressions.

    Args:
        roots: name -> expression.
        inputs: value of every input that occurs, shaped like its axes.
        arithmetic: the number system, :data:`~sifrc.ir.arithmetic.NUMPY` or
            :data:`~sifrc.ir.arithmetic.MPMATH`.
        samples: size of the batch axis.

    Returns:
        name -> array with one dimension for each axis of the expression.

    Raises:
        KeyError: an input has no value.
        ValueError: a value has the wrong shape.

    Example:
        >>> from sifrc.ir import Axis, Role
        >>> from sifrc.ir.build import inner
        >>> x = Input("x", 1, (Axis("fc1", 3),), Role.STATE)
        >>> float(evaluate({"norm": inner(x, x)}, {x: [1.0, 2.0, 2.0]})["norm"])
        9.0
    """
    context = _Context(arithmetic, {}, samples)
    for symbol, given in inputs.items():
        value = arithmetic.array(given)
        if value.shape != context.shape(symbol.axes):
            raise ValueError(f"{symbol.name}: expected shape {context.shape(symbol.axes)}, got {value.shape}")
        context.values[symbol.key] = value
    for node in postorder(*roots.values()):
        if node.key not in context.values:
            context.values[node.key] = _evaluate(node, context)
    return {name: context.values[root.key] for name, root in roots.items()}


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
def _(node: Affine, context: _Context) -> Array:
    terms = zip(node.coefficients, np.indices(node.sizes, sparse=True), strict=True)
    places = np.asarray(sum(c * index for c, index in terms))
    return context.arithmetic.array((places == node.offset).astype(float))


@_evaluate.register
def _(node: Add, context: _Context) -> Array:
    result = context.arithmetic.array(np.zeros(context.shape(node.out)))
    for factor, term in node.terms:
        result = result + context.arithmetic.rational(factor) * context.value(term)
    return np.asarray(result)


@_evaluate.register
def _(node: Einsum, context: _Context) -> Array:
    numbers: dict[Axis, int] = {}
    factors: list[_Factor] = []
    for expr, labels in node.operands:
        factors.append((context.value(expr), [numbers.setdefault(a, len(numbers)) for a in labels]))
    if not factors:
        return context.arithmetic.array(np.ones(context.shape(node.out)))
    carried = [numbers[axis] for axis in node.out if axis in numbers]
    product = _product(factors, carried)
    spread = product.reshape([context.size(axis) if axis in numbers else 1 for axis in node.out])
    return np.broadcast_to(spread, context.shape(node.out))


def _product(factors: list[_Factor], carried: list[int]) -> Array:
    """Two factors at a time where there are many: all at once goes through all values of all labels."""
    while len(factors) > _AT_ONCE:
        path, _ = np.einsum_path(*_flat(factors), carried, optimize="greedy")
        taken = [factors.pop(n) for n in sorted(path[1], reverse=True)]
        needed = {*carried, *(label for _, labels in factors for label in labels)}
        kept = sorted({label for _, labels in taken for label in labels} & needed)
        factors.append((np.asarray(np.einsum(*_flat(taken), kept)), kept))
    return np.asarray(np.einsum(*_flat(factors), carried))


def _flat(factors: list[_Factor]) -> list[Any]:
    return [part for factor in factors for part in factor]


@_evaluate.register
def _(node: Map, context: _Context) -> Array:
    shape = context.shape(node.out)
    arguments: dict[str, Array] = {}
    for name, (expr, labels) in zip(node.function.arguments, node.operands, strict=True):
        value = np.transpose(context.value(expr), [labels.index(axis) for axis in node.out if axis in labels])
        value = value.reshape([context.size(axis) if axis in labels else 1 for axis in node.out])
        arguments[name] = np.broadcast_to(value, shape)
    return context.arithmetic.apply(node.function, node.orders, arguments)


def _along(node: AlongAxis) -> int:
    return node.operand.axes.index(node.over)


@_evaluate.register
def _(node: LogSumExp, context: _Context) -> Array:
    return context.arithmetic.log_sum_exp(context.value(node.operand), _along(node))


@_evaluate.register
def _(node: LogSoftmax, context: _Context) -> Array:
    return context.arithmetic.log_softmax(context.value(node.operand), _along(node))


@_evaluate.register
def _(node: ArgMax, context: _Context) -> Array:
    values, axis = context.value(node.operand), _along(node)
    first = np.expand_dims(np.argmax(values, axis=axis), axis)
    shape = [1] * values.ndim
    shape[axis] = values.shape[axis]
    return context.arithmetic.array((np.arange(values.shape[axis]).reshape(shape) == first).astype(float))


@_evaluate.register
def _(node: Reduce, context: _Context) -> Array:
    values = context.value(node.operand)
    return context.arithmetic.maximum(abs(values) if node.kind == "magnitude" else values, _along(node))


def _each(function: Callable[..., Array], rank: int, *stacks: Array) -> Array:
    """Apply a function of small arrays along leading axes; ``rank``: dimensions of its result."""
    leading = stacks[-1].shape[: stacks[-1].ndim - rank]
    result = np.empty(stacks[-1].shape, dtype=stacks[-1].dtype)
    for index in np.ndindex(leading):
        result[index] = function(*(stack[index] for stack in stacks))
    return result


@_evaluate.register
def _(node: Solve, context: _Context) -> Array:
    columns = len(node.rhs.axes) - len(node.matrix.axes) + 2
    return _each(context.arithmetic.solve, columns, context.value(node.matrix), context.value(node.rhs))


@_evaluate.register
def _(node: Spectral, context: _Context) -> Array:
    return _each(lambda matrix: context.arithmetic.spectral(matrix, node.kind), 2, context.value(node.matrix))


@_evaluate.register
def _(node: CubicNewton, context: _Context) -> Array:
    matrix, rhs, third, strength = map(context.value, node.children())
    return context.arithmetic.cubic_newton(matrix, rhs, third, strength, node.unbounded)
