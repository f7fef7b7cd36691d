"""Ordering keys that do not depend on which layer an expression belongs to.

Digests order operands canonically but arbitrarily: equal equations of two layers may come out in
different orders. Where the order shows (temporaries, printed sums) it follows these keys instead,
in which the indices of inputs are relative to the layer.
"""

from __future__ import annotations

from fractions import Fraction
from functools import singledispatch

from sifrc.ir.axes import Axis
from sifrc.ir.nodes import Add, Affine, AlongAxis, Delta, Einsum, Expr, Input, Map, Operand
from sifrc.ir.ordering import Product, canonical_order, numbered

__all__ = ["ordered_operands", "ordered_terms", "relative_key"]


def relative_key(expr: Expr, layer: int | None) -> str:
    """A text that orders expressions in the same way at every layer."""
    return _key(expr, layer or 0)


def ordered_terms(expr: Add, layer: int | None) -> list[tuple[Fraction, Expr]]:
    """Terms of a sum in relative order; products of the same factors by how their labels join these."""
    keys = [(relative_key(term, layer), factor) for factor, term in expr.terms]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    if len(set(keys)) < len(keys):
        order.sort(key=lambda n: (*keys[n], _joints(expr.terms[n][1], layer)))
    return [expr.terms[n] for n in order]


def ordered_operands(expr: Einsum, layer: int | None) -> list[Operand]:
    """Factors of a product in relative order; those that are alike by what their labels join them to."""
    keys = [_operand_key(operand, expr.out, layer or 0) for operand in expr.operands]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    if len(set(keys)) < len(keys):
        numbers, labels = numbered(expr.out, (labels for _, labels in expr.operands))
        product = Product(
            keys=keys,
            labels=labels,
            fixed={number: f"{number:04}" for number in range(len(expr.out))},
            kinds={number: str(axis.size) for axis, number in numbers.items()},
        )
        order = canonical_order(product)
    return [expr.operands[position] for position in order]


def _joints(term: Expr, layer: int | None) -> tuple[tuple[int, ...], ...]:
    """The labels of the factors of a product, in order, as numbers: those of its axes come first."""
    if not isinstance(term, Einsum):
        return ()
    return tuple(numbered(term.out, (labels for _, labels in ordered_operands(term, layer)))[1])


def _labels(labels: tuple[Axis, ...], out: tuple[Axis, ...]) -> str:
    return ",".join(str(out.index(label)) if label in out else "#" for label in labels)


def _operand_key(operand: Operand, out: tuple[Axis, ...], layer: int) -> str:
    return f"{_key(operand[0], layer)}[{_labels(operand[1], out)}]"


@singledispatch
def _key(expr: Expr, layer: int) -> str:
    inside = ";".join(_key(child, layer) for child in expr.children())
    return f"{type(expr).__name__}({inside})"


@_key.register
def _(expr: Input, layer: int) -> str:
    return expr.family if expr.index is None else f"{expr.family}{expr.index - layer:+d}"


@_key.register
def _(expr: Delta, layer: int) -> str:
    return "Delta"


@_key.register
def _(expr: Affine, layer: int) -> str:
    # Layers whose axes are joined are alike whatever the sizes are.
    return f"Affine{len(expr.sizes)}" + ("" if expr.joins else f"{expr.coefficients}{expr.offset}")


@_key.register
def _(expr: Einsum, layer: int) -> str:
    inside = sorted(_operand_key(operand, expr.out, layer) for operand in expr.operands)
    return f"Einsum{len(expr.out)}({';'.join(inside)})"


@_key.register
def _(expr: Add, layer: int) -> str:
    inside = sorted(f"{factor}*{_key(term, layer)}" for factor, term in expr.terms)
    return f"Add({';'.join(inside)})"


@_key.register
def _(expr: Map, layer: int) -> str:
    inside = ";".join(_operand_key(operand, expr.out, layer) for operand in expr.operands)
    return f"{expr.function.name}{expr.orders}{expr.function.parameters}({inside})"


@_key.register
def _(expr: AlongAxis, layer: int) -> str:
    return f"{type(expr).__name__}{expr.operand.axes.index(expr.over)}({_key(expr.operand, layer)})"
