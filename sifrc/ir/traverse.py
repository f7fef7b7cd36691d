"""Walks over expression graphs: each shared node is visited once, without recursion limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import singledispatch
from typing import Any

from sifrc.ir.axes import Axis
from sifrc.ir.build import add, einsum, mapped, rename
from sifrc.ir.linear import LinearSolve
from sifrc.ir.nodes import Add, Compound, Einsum, Expr, Input, Map, postorder

__all__ = ["count_nodes", "inputs_of", "last_layer", "postorder", "rebuild", "rewrite", "substitute"]


def inputs_of(*roots: Expr) -> tuple[Input, ...]:
    """The inputs that the roots depend on, in order of first use."""
    if len(roots) == 1:
        return roots[0].inputs
    return tuple(dict.fromkeys(symbol for root in roots for symbol in root.inputs))


def last_layer(expr: Expr) -> int:
    """The largest index of a symbol that has a value for each sample; 0 without one."""
    found = (s.index for s in inputs_of(expr) if s.role.per_sample and s.index is not None)
    return max(found, default=0)


def count_nodes(*roots: Expr) -> int:
    """Number of distinct nodes."""
    return len(postorder(*roots))


def rebuild(node: Expr, new: Callable[[Expr], Expr]) -> Expr:
    """The node over new children, itself where none changed; every child keeps its axes."""
    if all(new(child) is child for child in node.children()):
        return node
    return _rebuild(node, new)


@singledispatch
def _rebuild(node: Expr, new: Callable[[Expr], Expr]) -> Expr:
    raise TypeError(f"no rebuild rule for {type(node).__name__}")


@_rebuild.register
def _(node: Einsum, new: Callable[[Expr], Expr]) -> Expr:
    return einsum([(new(expr), labels) for expr, labels in node.operands], node.out)


@_rebuild.register
def _(node: Add, new: Callable[[Expr], Expr]) -> Expr:
    return add([(factor, new(expr)) for factor, expr in node.terms], node.out)


@_rebuild.register
def _(node: Map, new: Callable[[Expr], Expr]) -> Expr:
    operands = tuple((new(expr), labels) for expr, labels in node.operands)
    return mapped(node.function, node.orders, operands, node.out)


@_rebuild.register
def _(node: Compound, new: Callable[[Expr], Expr]) -> Expr:
    changed: dict[str, Any] = {k: new(value) for k, value in vars(node).items() if isinstance(value, Expr)}
    return replace(node, **changed)


@_rebuild.register
def _(node: LinearSolve, new: Callable[[Expr], Expr]) -> Expr:
    return replace(
        node,
        products=tuple(new(product) for product in node.products),
        rhs=tuple(new(rhs) for rhs in node.rhs),
    )


def rewrite(roots: Iterable[Expr], rule: Callable[[Expr], Expr | None]) -> list[Expr]:
    """Rebuild the graph bottom-up; ``rule`` may replace a (rebuilt) node by one with the same axes."""
    roots = list(roots)
    done: dict[str, Expr] = {}
    for node in postorder(*roots):
        built = rebuild(node, lambda child: done[child.key])
        replaced = rule(built)
        result = built if replaced is None else replaced
        if set(result.axes) != set(node.axes):
            raise TypeError(f"a rewrite changed the axes of {node!r}")
        done[node.key] = result
    return [done[root.key] for root in roots]


def substitute(expr: Expr, table: Mapping[Input, Expr] | Mapping[Input, Input]) -> Expr:
    """Replace inputs by expressions over the same axes, all at once (not again inside the new ones)."""
    order = postorder(expr)
    by_key = {
        symbol.key: rename(table[symbol], _match(symbol, table[symbol]))
        for symbol in order
        if isinstance(symbol, Input) and symbol in table
    }
    if not by_key:
        return expr
    done: dict[str, Expr] = {}
    for node in order:
        replacement = by_key.get(node.key)
        done[node.key] = replacement if replacement is not None else rebuild(node, lambda c: done[c.key])
    return done[expr.key]


def _match(symbol: Input, value: Expr) -> tuple[Axis, ...]:
    if len(symbol.axes) != len(value.axes) or not all(
        a.fits(b) for a, b in zip(symbol.axes, value.axes, strict=True)
    ):
        raise TypeError(f"{symbol.name} cannot be replaced: axes differ")
    return symbol.axes
