"""Large arrays that are made and read within one phase, some rows at a time.

Attention's scores are made, go through a softmax and are multiplied with values: the states on both sides are
small, and what is between them is large. Where all large arrays that hang together have an axis along which
their entries do not meet (each row of the scores is by itself), the equations between the small ones are
written once for each block of that axis: with block after block, no more than the rows of one are there. What
is read of them is put together again where the axis stays, and added up where it is summed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

from sifrc.catalogue.phase import Phase
from sifrc.derive.recurrence import Name, name_of
from sifrc.derive.system import Equation
from sifrc.ir import Add, Affine, Axis, Einsum, Expr, Input, LogSoftmax, Map, Operand
from sifrc.ir.build import add, einsum, mapped, total
from sifrc.ir.traverse import inputs_of

__all__ = ["in_row_blocks"]

Bound: TypeAlias = Mapping[Axis, Axis | None]
"""Axis of an inner expression -> that of the whole that it is; None if it is summed, or its entries meet."""


_MARK = "~block"


class _Meets(Exception):
    """Entries along the axis meet, or the expression has a form for which there is no rule."""


def in_row_blocks(phase: Phase, large: frozenset[Name], count: int) -> Phase:
    """The phase with its large arrays in blocks of rows.

    Args:
        phase: whose equations make all large arrays that they read.
        large: their names.
        count: of the blocks.
    """
    equations = list(phase.system.equations)
    tried: set[Name] = set()
    while first := next((e for e in equations if name_of(e.symbol) in large - tried), None):
        tried.add(name_of(first.symbol))
        axes = [axis for axis in first.symbol.axes if not axis.is_sample and axis.entries >= count]
        for axis in sorted(axes, key=lambda axis: -axis.entries):
            try:
                rows = _hanging_together(equations, large, first.symbol, axis)
                equations = _divided(equations, rows, count)
            except _Meets:
                continue
            tried |= set(rows)
            break
    return replace(phase, system=replace(phase.system, equations=tuple(equations)))


def _hanging_together(
    equations: Sequence[Equation], large: frozenset[Name], seed: Input, axis: Axis
) -> dict[Name, int]:
    """The position of the axis in each of the large arrays that are made of each other."""
    defined = {name_of(e.symbol): e for e in equations if name_of(e.symbol) in large}
    rows = {name_of(seed): seed.axes.index(axis)}
    while True:
        before = len(rows)
        for name, equation in defined.items():
            whole = equation.symbol.axes
            value = equation.value
            for read, bound in _reads(value, dict(zip(value.axes, whole, strict=True))):
                source = name_of(read)
                if source not in defined:
                    continue
                if source in rows:
                    at = bound[rows[source]]
                    if at is None or rows.setdefault(name, whole.index(at)) != whole.index(at):
                        raise _Meets
                elif name in rows:
                    slots = [slot for slot, to in enumerate(bound) if to is whole[rows[name]]]
                    if len(slots) != 1:
                        raise _Meets
                    rows[source] = slots[0]
        if len(rows) == before:
            return rows


def _reads(expr: Expr, bound: Bound) -> Iterator[tuple[Input, tuple[Axis | None, ...]]]:
    """The symbols that an expression reads, each with what its axes are of the whole."""
    if isinstance(expr, Input):
        yield expr, tuple(bound[axis] for axis in expr.axes)
    elif isinstance(expr, Add):
        for _, term in expr.terms:
            yield from _reads(term, bound)
    elif isinstance(expr, Einsum | Map):
        for operand, labels in expr.operands:
            inner = {axis: bound.get(label) for axis, label in zip(operand.axes, labels, strict=True)}
            yield from _reads(operand, inner)
    elif isinstance(expr, LogSoftmax):
        yield from _reads(expr.operand, {**bound, expr.over: None})
    elif inputs_of(expr):
        raise _Meets


def _divided(equations: Sequence[Equation], rows: Mapping[Name, int], count: int) -> list[Equation]:
    """The equations with those of some large arrays, and of what reads them, once for each block."""
    inner = [e for e in equations if name_of(e.symbol) in rows]
    readers = [e for e in equations if e not in inner and _holds(e.value, rows)]
    # Arrays over groups of parameters hold those that have begun, in windows of their own.
    if not readers or any(axis.is_group for e in readers for axis in e.symbol.axes):
        raise _Meets
    size = inner[0].symbol.axes[rows[name_of(inner[0].symbol)]].entries
    edges = [size * number // count for number in range(count + 1)]
    blocks = [_Block(rows, n, start, stop - start) for n, (start, stop) in enumerate(pairwise(edges), 1)]
    made: list[Equation] = []
    parts: dict[tuple[str, str], list[Expr]] = {}
    for block in blocks:
        for equation in inner:
            own = equation.symbol.axes[rows[name_of(equation.symbol)]]
            value = block.rows_of(equation.value, own)
            made.append(Equation(block.symbol(equation.symbol), value, inner[0].layer, equation.source))
        for equation in readers:
            for number, term in enumerate(_terms(equation.value, rows)):
                axis, symbol = _kept(term, rows), equation.symbol
                value = block.sum_of(term) if axis is None else block.rows_of(term, axis)
                family = f"{symbol.family}{_MARK}{number * count + block.number}"
                part = Input(family, symbol.index, value.axes, symbol.role)
                made.append(Equation(part, value, inner[0].layer, equation.source))
                put = part if axis is None else block.put(part, axis)
                parts.setdefault((symbol.key, term.key), []).append(put)
    places = {name_of(e.symbol): position for position, e in enumerate(equations)}
    needed = [places[name] for e in made for name in map(name_of, inputs_of(e.value)) if name in places]
    position = max(places[name_of(inner[0].symbol)], *(place + 1 for place in needed))
    if position > min(places[name_of(e.symbol)] for e in readers):
        raise _Meets
    found: list[Equation] = []
    for place, equation in enumerate(equations):
        if place == position:
            found += made
        if equation in readers:
            value, key = equation.value, equation.symbol.key
            terms = value.terms if isinstance(value, Add) else ((Fraction(1), value),)
            whole = [
                (factor, total(parts[key, term.key], term.axes) if (key, term.key) in parts else term)
                for factor, term in terms
            ]
            found.append(replace(equation, value=add(whole, value.axes)))
        elif equation not in inner:
            found.append(equation)
    return found


def _holds(expr: Expr, rows: Mapping[Name, int]) -> bool:
    """Whether it reads one of the large arrays."""
    return any(name_of(symbol) in rows for symbol in inputs_of(expr))


def _terms(value: Expr, rows: Mapping[Name, int]) -> list[Expr]:
    """The terms of a sum that read large arrays."""
    terms = [term for _, term in value.terms] if isinstance(value, Add) else [value]
    return [term for term in terms if _holds(term, rows)]


def _kept(expr: Expr, rows: Mapping[Name, int]) -> Axis | None:
    """The axis of an expression that the rows of the large arrays are in it; None if they are summed."""
    reads = _reads(expr, {axis: axis for axis in expr.axes})
    found = {bound[rows[name_of(read)]] for read, bound in reads if name_of(read) in rows}
    if len(found) != 1:
        raise _Meets
    return found.pop()


@dataclass(frozen=True)
class _Block:
    """Some of the rows.

    Args:
        rows: position of their axis in each of the large arrays.
        number: of the block, from 1.
        start, size: the first row, and how many.
    """

    rows: Mapping[Name, int]
    number: int
    start: int
    size: int

    def part(self, axis: Axis) -> Axis:
        """The axis of the rows."""
        return replace(axis, size=self.size)

    def symbol(self, symbol: Input) -> Input:
        """The rows of a large array."""
        at = self.rows[name_of(symbol)]
        axes = tuple(self.part(axis) if n == at else axis for n, axis in enumerate(symbol.axes))
        return Input(f"{symbol.family}{_MARK}{self.number}", symbol.index, axes, symbol.role)

    def put(self, part: Input, axis: Axis) -> Expr:
        """The rows at their place among all."""
        relation = Affine((axis.entries, self.size), (1, -1), self.start), (axis, self.part(axis))
        axes = tuple(axis if own is self.part(axis) else own for own in part.axes)
        return einsum([relation, (part, part.axes)], axes)

    def rows_of(self, expr: Expr, axis: Axis) -> Expr:
        """The entries of an expression at the rows, which are along an axis of it."""
        if axis not in expr.axes:
            raise _Meets
        axes = tuple(self.part(axis) if own is axis else own for own in expr.axes)
        match expr:
            case Input() if name_of(expr) in self.rows:
                if expr.axes[self.rows[name_of(expr)]] is not axis:
                    raise _Meets
                return self.symbol(expr)
            case Input():
                relation = Affine((axis.entries, self.size), (1, -1), self.start), (axis, self.part(axis))
                return einsum([relation, (expr, expr.axes)], axes)
            case Add():
                return add([(factor, self.rows_of(term, axis)) for factor, term in expr.terms], axes)
            case Einsum():
                return einsum([self._operand(operand, axis) for operand in expr.operands], axes)
            case Map():
                operands = tuple(self._operand(operand, axis) for operand in expr.operands)
                return mapped(expr.function, expr.orders, operands, axes)
            case LogSoftmax() if expr.over is not axis:
                return replace(expr, operand=self.rows_of(expr.operand, axis))
        raise _Meets

    def _operand(self, operand: Operand, label: Axis) -> Operand:
        """A factor at the rows of a label."""
        expr, labels = operand
        if label not in labels:
            if _holds(expr, self.rows):
                raise _Meets
            return operand
        if labels.count(label) > 1:
            raise _Meets
        at = labels.index(label)
        own = tuple(self.part(label) if each is label else each for each in labels)
        if isinstance(expr, Affine):
            sizes = tuple(self.size if n == at else size for n, size in enumerate(expr.sizes))
            return Affine(sizes, expr.coefficients, expr.offset - expr.coefficients[at] * self.start), own
        return self.rows_of(expr, expr.axes[at]), own

    def sum_of(self, expr: Expr) -> Expr:
        """What the rows contribute to an expression in which they are summed."""
        if isinstance(expr, Add) and all(_holds(term, self.rows) for _, term in expr.terms):
            return add([(factor, self.sum_of(term)) for factor, term in expr.terms], expr.axes)
        if not isinstance(expr, Einsum):
            raise _Meets
        held = [(operand, labels) for operand, labels in expr.operands if _holds(operand, self.rows)]
        kept = [_kept(operand, self.rows) for operand, _ in held]
        along = {
            None if axis is None else labels[operand.axes.index(axis)]
            for (operand, labels), axis in zip(held, kept, strict=True)
        }
        if along == {None} and len(held) == 1:
            inner = held[0][0]
            return einsum(
                [(self.sum_of(e) if e is inner else e, labels) for e, labels in expr.operands], expr.out
            )
        label = along.pop()
        if along or label is None or label in expr.out:
            raise _Meets
        return einsum([self._operand(operand, label) for operand in expr.operands], expr.out)
