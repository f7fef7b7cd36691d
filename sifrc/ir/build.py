"""Constructors that keep expressions in normal form.

Products: operands ordered canonically, rational factors pulled out, ones dropped, Kronecker deltas
removed by renaming, contracted labels named ``#0``, ``#1``, … in a canonical order; the sum of the entries
of a class vector is one. Sums: flat, equal terms merged, zeros dropped. Products are *not* distributed over
sums and shared factors stay shared: the graph stays as small as it was built. :mod:`sifrc.ir.normal` expands
where a proof needs it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache

import sympy

from sifrc.ir.axes import Axis
from sifrc.ir.nodes import Add, AxisError, Delta, Einsum, Expr, Input, Map, Operand, Role
from sifrc.ir.ordering import Product, canonical_order, contracted_names, numbered
from sifrc.scalar.branches import substituted
from sifrc.scalar.function import ScalarFunction, check_real

__all__ = [
    "add",
    "apply",
    "constant",
    "einsum",
    "hadamard",
    "identity",
    "inner",
    "mapped",
    "negative",
    "number_of",
    "ones",
    "rename",
    "scale",
    "subtract",
    "total",
    "transpose",
    "zero",
]


def zero(axes: Sequence[Axis] = ()) -> Expr:
    """The zero tensor over the axes."""
    return Add((), tuple(axes))


def ones(axes: Sequence[Axis] = ()) -> Expr:
    """The tensor of ones over the axes; without axes the number one."""
    return Einsum((), tuple(axes))


def scale(coefficient: Fraction | int, expr: Expr) -> Expr:
    """``coefficient`` times ``expr``."""
    return add([(Fraction(coefficient), expr)], expr.axes)


def negative(expr: Expr) -> Expr:
    """Minus ``expr``."""
    return scale(-1, expr)


def subtract(left: Expr, right: Expr) -> Expr:
    """``left`` − ``right``."""
    return add([(Fraction(1), left), (Fraction(-1), right)], left.axes)


def total(terms: Iterable[Expr], axes: Sequence[Axis]) -> Expr:
    """Sum of expressions over the same axes (in any order)."""
    return add([(Fraction(1), term) for term in terms], axes)


def add(terms: Iterable[tuple[Fraction, Expr]], axes: Sequence[Axis]) -> Expr:
    """Linear combination over ``axes``; terms may carry their axes in another order.

    Example:
        >>> from sifrc.ir import Axis, Input, Role
        >>> x = Input("x", 1, (Axis("fc1", 3),), Role.STATE)
        >>> subtract(x, x) is zero(x.axes)
        True
    """
    out = tuple(axes)
    merged: dict[str, tuple[Fraction, Expr]] = {}

    def collect(coefficient: Fraction, expr: Expr) -> None:
        expr = transpose(expr, out)
        if isinstance(expr, Add):
            for factor, term in expr.terms:
                collect(factor if coefficient == 1 else coefficient * factor, term)
            return
        before = merged.get(expr.key)
        merged[expr.key] = (coefficient if before is None else before[0] + coefficient, expr)

    for coefficient, term in terms:
        collect(coefficient, term)
    kept = [merged[key] for key in sorted(merged) if merged[key][0] != 0]
    if len(kept) == 1 and kept[0][0] == 1:
        return kept[0][1]
    return Add(tuple(kept), out)


def transpose(expr: Expr, axes: Sequence[Axis]) -> Expr:
    """The same tensor with its axes in another order."""
    out = tuple(axes)
    if expr.axes == out:
        return expr
    if set(expr.axes) != set(out):
        raise AxisError(f"cannot reorder {[str(a) for a in expr.axes]} to {[str(a) for a in out]}")
    return einsum([(expr, expr.axes)], out)


def rename(expr: Expr, axes: Sequence[Axis]) -> Expr:
    """The same tensor with its slots, in order, named by other axes of the same sizes."""
    out = tuple(axes)
    return expr if expr.axes == out else einsum([(expr, out)], out)


def identity(left: Sequence[Axis], right: Sequence[Axis]) -> Expr:
    """1 where the indices agree axis by axis, else 0; over the axes of both."""
    pairs = [(Delta(a, b), (a, b)) for a, b in zip(left, right, strict=True)]
    return einsum(pairs, (*left, *right))


def hadamard(*factors: Expr) -> Expr:
    """Entrywise product; the axes of the first factor, the others' are among them."""
    return einsum([(factor, factor.axes) for factor in factors], factors[0].axes)


def inner(left: Expr, right: Expr) -> Expr:
    """⟨left, right⟩ over the common axes."""
    return einsum([(left, left.axes), (right, left.axes)], ())


def apply(function: ScalarFunction, *operands: Expr, orders: Sequence[int] | None = None) -> Expr:
    """``function`` (or a derivative of it) entry by entry.

    The result has the axes of the operands together, in order of first appearance.
    """
    orders = tuple(orders) if orders is not None else (0,) * len(operands)
    out = tuple(dict.fromkeys(axis for operand in operands for axis in operand.axes))
    return mapped(function, orders, [(operand, operand.axes) for operand in operands], out)


def mapped(
    function: ScalarFunction, orders: tuple[int, ...], operands: Sequence[Operand], out: Sequence[Axis]
) -> Expr:
    """An elementwise function in normal form.

    One that is a constant becomes that constant, a derivative that is the function itself (exp) the function.

    Raises:
        ModelError: it is not a real number for any value of its arguments, as t/(y − y).
    """
    value = function.value_form(orders)
    numbers = [number_of(operand) for operand, _ in operands]
    if not value.is_number and any(number is not None for number in numbers):
        arguments = zip(function.argument_symbols, numbers, strict=True)
        known = {symbol: number for symbol, number in arguments if number is not None}
        # Where only some are known, the others stay: t/u is no number at u = 0, whatever t is.
        at = check_real(substituted(value, known))
        value = at if len(known) == len(numbers) else value
    if value.is_number:
        return constant(value, out)
    if any(orders) and function.derivative(orders) == function.derivative((0,) * len(orders)):
        orders = (0,) * len(orders)
    return Map(function, orders, tuple(operands), tuple(out))


def constant(value: sympy.Expr, axes: Sequence[Axis] = ()) -> Expr:
    """A real number, the same for all entries; one that is not rational is a function of nothing.

    Example:
        >>> constant(sympy.log(2)).function.expression
        log(2)
        >>> constant(sympy.Rational(1, 2)) is scale(Fraction(1, 2), ones())
        True
    """
    if value.is_Rational:
        return scale(_fraction(value), ones(axes))
    return einsum([(Map(ScalarFunction("constant", (), value), (), (), ()), ())], axes)


def _fraction(value: sympy.Rational) -> Fraction:
    return Fraction(int(value.p), int(value.q))


def number_of(expr: Expr) -> sympy.Expr | None:
    """The number that all entries of an expression are, or None.

    Example:
        >>> number_of(scale(2, constant(sympy.log(2)))), number_of(ones())
        (2*log(2), 1)
    """
    if isinstance(expr, Map) and not expr.operands:
        return expr.function.value_form(expr.orders)
    if isinstance(expr, Add):
        parts = [(factor, number_of(term)) for factor, term in expr.terms]
        if any(number is None for _, number in parts):
            return None
        return sympy.Add(*(sympy.Rational(f.numerator, f.denominator) * number for f, number in parts))
    if isinstance(expr, Einsum) and not any(labels for _, labels in expr.operands):
        numbers = [number_of(operand) for operand, _ in expr.operands]
        return None if None in numbers else sympy.Mul(*numbers)
    return None


def einsum(operands: Iterable[Operand], out: Sequence[Axis]) -> Expr:
    """Product of the operands, summed over the labels that ``out`` lacks, in normal form.

    Example:
        >>> from sifrc.ir import Axis, Input, Role
        >>> i, j = Axis("fc1", 3), Axis("x", 4)
        >>> w, x = Input("W", 1, (i, j), Role.PARAMETER), Input("x", 0, (j,), Role.STATE)
        >>> einsum([(w, (i, j)), (x, (j,))], (i,)) is einsum([(x, (j,)), (w, (i, j))], (i,))
        True
    """
    return _einsum(tuple(operands), tuple(out))


@lru_cache(maxsize=8192)
def _einsum(operands: tuple[Operand, ...], out: tuple[Axis, ...]) -> Expr:
    """The same, remembered: derivations build most products several times."""
    coefficient = Fraction(1)
    flat: list[Operand] = []
    broadcast: set[Axis] = set()
    stack = list(operands)[::-1]
    fresh = itertools.count()
    while stack:
        expr, labels = stack.pop()
        if isinstance(expr, Add) and len(expr.terms) == 1:
            coefficient *= expr.terms[0][0]
            stack.append((expr.terms[0][1], labels))
        elif isinstance(expr, Add) and not expr.terms:
            return zero(out)
        elif isinstance(expr, Einsum) and (len(expr.operands) <= 1 or _is_plain(expr)):
            table = dict(zip(expr.out, labels, strict=True))
            broadcast.update(table.values())
            stack += [(inner, _relabel(slots, table, fresh)) for inner, slots in expr.operands][::-1]
        else:
            flat.append((expr, labels))
    if sum(isinstance(expr, Map) and not expr.operands for expr, _ in flat) > 1:
        rational, flat = _merged_constants(flat)
        coefficient *= rational
    flat = _sum_classes(_remove_deltas(flat, out, broadcast), out, broadcast)
    carried = {label for _, labels in flat for label in labels}
    for label in broadcast - carried - set(out):  # summing over a broadcast label counts it
        if label.is_sample:
            raise AxisError("a sum over samples needs an operand that depends on the sample")
        coefficient *= label.entries
    if len(flat) == 1 and flat[0][1] == out:
        single = flat[0][0]
        product = single if single.axes == out else Einsum(((single, out),), out)
    else:
        product = Einsum(_canonical(flat, out), out)
    return product if coefficient == 1 else add([(coefficient, product)], out)


def _merged_constants(operands: list[Operand]) -> tuple[Fraction, list[Operand]]:
    """Irrational constants multiplied: a rational factor, and one constant at most among the operands."""
    constants = [expr for expr, _ in operands if isinstance(expr, Map) and not expr.operands]
    rest = [(expr, labels) for expr, labels in operands if expr not in constants]
    product = sympy.Mul(*(number_of(expr) for expr in constants))
    if product.is_Rational:
        return _fraction(product), rest
    return Fraction(1), [*rest, (constant(product), ())]


def _is_plain(expr: Einsum) -> bool:
    """Whether a nested product is scalars times one tensor, or an identity: nothing in it is shared."""
    tensors = [operand for operand, _ in expr.operands if operand.axes]
    return len(tensors) <= 1 or all(isinstance(operand, Delta) for operand in tensors)


def _relabel(
    labels: tuple[Axis, ...], table: dict[Axis, Axis], fresh: itertools.count[int]
) -> tuple[Axis, ...]:
    """Labels of a nested operand in terms of the outer product's; its own sums get fresh names."""
    for label in labels:
        if label not in table:
            table[label] = label.summed(f"~{next(fresh)}")
    return tuple(table[label] for label in labels)


def _remove_deltas(operands: list[Operand], out: tuple[Axis, ...], broadcast: set[Axis]) -> list[Operand]:
    """Replace one label of each Delta by the other; a Delta between two output axes survives.

    ``broadcast`` collects labels that may be left without an operand.
    """
    kept: list[Operand] = []
    survivors: list[Operand] = []
    rest = list(operands)
    while rest:
        expr, labels = rest.pop(0)
        if not isinstance(expr, Delta):
            kept.append((expr, labels))
            continue
        left, right = labels
        if left == right:
            broadcast.add(left)
        elif left in out and right in out:
            survivors.append((expr, labels))
        else:
            old, new = (left, right) if left not in out else (right, left)
            kept, rest, survivors = ([_swap(op, old, new) for op in ops] for ops in (kept, rest, survivors))
            broadcast.discard(old)
            broadcast.add(new)
    return kept + survivors


def _sum_classes(operands: list[Operand], out: tuple[Axis, ...], broadcast: set[Axis]) -> list[Operand]:
    """Leave out class vectors that are only summed: along their last axis one entry is 1, the others 0."""
    vectors = [operand for operand in operands if _is_class(operand[0])]
    if not vectors:
        return operands
    used = [label for _, labels in operands for label in labels]
    summed = [operand for operand in vectors if operand[1][-1] not in out and used.count(operand[1][-1]) == 1]
    for _, labels in summed:
        broadcast.discard(labels[-1])
        broadcast.update(labels[:-1])
    return [operand for operand in operands if operand not in summed]


def _is_class(expr: Expr) -> bool:
    return isinstance(expr, Input) and expr.role is Role.CLASS


def _swap(operand: Operand, old: Axis, new: Axis) -> Operand:
    expr, labels = operand
    return expr, tuple(new if label == old else label for label in labels)


def _canonical(operands: list[Operand], out: tuple[Axis, ...]) -> tuple[Operand, ...]:
    """Order operands and name contracted labels independently of how they were given."""
    numbers, by_number = numbered(out, (labels for _, labels in operands))
    product = Product(
        keys=[expr.key for expr, _ in operands],
        labels=by_number,
        fixed={number: str(axis) for number, axis in enumerate(out)},
        kinds={number: str(axis.size) for axis, number in numbers.items()},
    )
    ordered = [operands[position] for position in canonical_order(product)]
    new = dict.fromkeys(label for _, labels in ordered for label in labels if label not in out)
    names = contracted_names({number: axis.name for number, axis in enumerate(out)})
    named = {label: label.summed(name) for label, name in zip(new, names, strict=False)}
    return tuple((expr, tuple([named.get(label, label) for label in labels])) for expr, labels in ordered)
