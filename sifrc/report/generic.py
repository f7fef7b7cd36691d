"""Equal up to a shift of all layer indices: the test behind equations for generic k.

The key of an expression has the structure of it, with the indices of inputs relative to a layer and
axes replaced by their positions. Sizes do not enter: layers of different widths have one equation.
Scalar functions compare by what they compute, with their parameter values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch
from hashlib import blake2b
from typing import TypeAlias, TypeGuard

import sympy

from sifrc.derive.groups import OWNER
from sifrc.ir import (
    Add,
    Affine,
    AlongAxis,
    Axis,
    CubicNewton,
    Delta,
    Einsum,
    Expr,
    Input,
    LinearSolve,
    Map,
    Operand,
    Role,
    Solve,
    Spectral,
    Sylvester,
)
from sifrc.ir.ordering import Product, canonical_order, numbered
from sifrc.ir.traverse import postorder
from sifrc.model.draws import OTHERS
from sifrc.model.tables import TABLES
from sifrc.scalar import ScalarFunction

__all__ = ["generic_key", "is_shared"]

Keys: TypeAlias = Callable[[Expr], str]


def generic_key(expr: Expr, layer: int, shared: frozenset[int] = frozenset()) -> str:
    """A text that two expressions share when one is the other with all indices shifted.

    Args:
        expr: any expression.
        layer: the layer that indices are counted from.
        shared: numbers of parameters that several layers use: they are the same for all of these.

    Example:
        >>> from sifrc.ir import Role
        >>> from sifrc.ir.build import inner
        >>> def x(k): return Input("x", k, (Axis(f"fc{k}", 3),), Role.STATE)
        >>> generic_key(inner(x(1), x(2)), 1) == generic_key(inner(x(4), x(5)), 4)
        True
        >>> generic_key(inner(x(1), x(2)), 1) == generic_key(inner(x(4), x(4)), 4)
        False
    """
    done: dict[str, str] = {}
    for node in postorder(expr):
        if is_shared(node, shared):
            text = f"Input {node.family} of {node.index} {len(node.axes)}"
        else:
            text = _key(node, layer, lambda child: done[child.key])
        done[node.key] = _digest(text)
    return done[expr.key]


def is_shared(node: Expr, shared: frozenset[int]) -> TypeGuard[Input]:
    """Whether its number is no layer's: of an input, a table, a parameter that several layers use.

    Also what is shaped like such a parameter, or says which group owns it.
    """
    if isinstance(node, Input) and node.family in (OTHERS, TABLES):
        return True
    if not isinstance(node, Input) or node.index not in shared:
        return False
    return node.role in (Role.PARAMETER, Role.DIRECTION) or node.family in OWNER.values()


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _function(function: ScalarFunction) -> str:
    bound = function.bound()
    return f"{bound.arguments}{sympy.srepr(bound.expression)}"


@singledispatch
def _key(node: Expr, layer: int, keys: Keys) -> str:
    raise TypeError(f"no rule for {type(node).__name__}")


@_key.register
def _(node: Input, layer: int, keys: Keys) -> str:
    index = "" if node.index is None else f"{node.index - layer:+d}"
    return f"Input {node.family}{index} {len(node.axes)}"


@_key.register
def _(node: Affine, layer: int, keys: Keys) -> str:
    return f"Affine {len(node.sizes)}" + ("" if node.joins else f" {node.coefficients} {node.offset}")


@_key.register
def _(node: Add, layer: int, keys: Keys) -> str:
    return f"Add {len(node.out)} {sorted(f'{factor}*{keys(term)}' for factor, term in node.terms)}"


@_key.register
def _(node: Einsum, layer: int, keys: Keys) -> str:
    return f"Einsum {len(node.out)} {_product(node.operands, node.out, keys)}"


@_key.register
def _(node: Map, layer: int, keys: Keys) -> str:
    positions = {axis: position for position, axis in enumerate(node.out)}
    operands = [(keys(expr), [positions[label] for label in labels]) for expr, labels in node.operands]
    return f"Map {_function(node.function)} {node.orders} {len(node.out)} {operands}"


@_key.register
def _(node: AlongAxis, layer: int, keys: Keys) -> str:
    return f"{node.word} {node.operand.axes.index(node.over)} {keys(node.operand)}"


@_key.register
def _(node: Delta | Solve | Spectral | Sylvester | CubicNewton, layer: int, keys: Keys) -> str:
    how = node.kind if isinstance(node, Spectral) else getattr(node, "unbounded", "")
    return f"{type(node).__name__} {how} {[keys(child) for child in node.children()]}"


@_key.register
def _(node: LinearSolve, layer: int, keys: Keys) -> str:
    parts = [keys(part) for part in (*node.products, *node.rhs)]
    return f"LinearSolve {node.method} {node.component} {parts}"


def _product(operands: Sequence[Operand], out: tuple[Axis, ...], keys: Keys) -> str:
    """Operands in an order, and contracted labels under names, that do not depend on the layer."""
    numbers, by_number = numbered(out, (labels for _, labels in operands))
    product = Product(
        keys=[keys(expr) for expr, _ in operands],
        labels=by_number,
        fixed={number: f"o{number}" for number in range(len(out))},
        kinds={number: "p" if axis.is_sample else "c" for axis, number in numbers.items()},
    )
    names = dict(product.fixed)
    parts = []
    for position in canonical_order(product):
        for number in product.labels[position]:
            names.setdefault(number, f"#{len(names)}")
        slots = ",".join([names[number] for number in product.labels[position]])
        parts.append(f"{product.keys[position]}[{slots}]")
    return " ".join(parts)
