"""Recursions to loops over steps: what a step needs of the one before; all else is of all steps at once.

Whatever an equation has of symbols that are not of the recursion becomes an array over all steps, computed
before the loop: products of weights with inputs, slopes, second derivatives. What is left is an equation of
one step, over arrays of that step and arrays that the step before has left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import singledispatchmethod
from typing import TypeAlias

from sifrc.derive.recurrence import Bound, Name, Recursion, is_shift, name_of, shifted_labels
from sifrc.derive.system import Equation
from sifrc.errors import DerivationError
from sifrc.ir import Add, Affine, Axis, Einsum, Expr, Input, Map, Operand, Role
from sifrc.ir.build import add, einsum, mapped, transpose
from sifrc.ir.nodes import AlongAxis
from sifrc.ir.normal import expand
from sifrc.ir.traverse import inputs_of
from sifrc.lower.products import contracted

__all__ = ["Split", "split"]

Named: TypeAlias = Callable[[Input, str, tuple[Axis, ...]], Input]
"""A new array: the quantity that it is made for, a word for what it is, its axes."""


@dataclass
class Split:
    """A recursion as equations of all steps, and equations of one.

    Args:
        recursion: what is taken apart.
        named: makes symbols.
        given: equations over all steps, which do not refer to the recursion.
        steps: equations of one step, in order.
        slices: symbol of one step -> the array over all steps that it is of, and the slot of the steps.
        carried: pairs of a symbol of one step and what stands for it in the next one, in order.
        stored: symbol of one step -> the symbol of the recursion.
    """

    recursion: Recursion
    named: Named
    given: list[Equation] = field(default_factory=list)
    steps: list[Equation] = field(default_factory=list)
    slices: dict[Input, tuple[Input, int]] = field(default_factory=dict)
    carried: list[tuple[Input, Input]] = field(default_factory=list)
    stored: dict[Input, Input] = field(default_factory=dict)
    _now: dict[Name, Input] = field(default_factory=dict)
    _arrays: dict[Expr, Input] = field(default_factory=dict)
    _before: dict[tuple[Input, int], Input] = field(default_factory=dict)
    _left: dict[Expr, Input] = field(default_factory=dict)
    _after: list[Equation] = field(default_factory=list)
    _equation: Equation | None = None
    _varies: bool = False
    _count: dict[tuple[Input, str], int] = field(default_factory=dict)

    def run(self) -> None:
        """Take the equations apart."""
        self._varies = any(_of_vector(equation.value) for equation in self.recursion.equations)
        for equation in self.recursion.equations:
            symbol, slot = equation.symbol, self.recursion.slots[name_of(equation.symbol)]
            now = self.named(symbol, "now", (*symbol.axes[:slot], *symbol.axes[slot + 1 :]))
            self._now[name_of(symbol)] = now
            self.stored[now] = symbol
        for equation in self.recursion.equations:
            self._equation = equation
            step = equation.symbol.axes[self.recursion.slots[name_of(equation.symbol)]]
            value = self._step(_ordered(equation.value), {step: 0})
            self.steps.append(replace(equation, symbol=self._now[name_of(equation.symbol)], value=value))
        self.steps += self._after

    def with_groups(self, extent: int) -> None:
        """Let the arrays over groups that the steps read and write hold so many."""
        symbols = {*self._now.values(), *self.stored.values(), *self.slices, *self._before.values()}
        symbols |= {array for array, _ in self.slices.values()} | {e.symbol for e in self.steps}
        table = {symbol: _resized(symbol, extent) for symbol in symbols}
        self.slices = {table[part]: (table[array], slot) for part, (array, slot) in self.slices.items()}
        self.carried = [(table[now], table[before]) for now, before in self.carried]
        self.stored = {table[now]: table[symbol] for now, symbol in self.stored.items()}
        self.steps = [
            replace(e, symbol=table[e.symbol], value=_over_groups(e.value, extent, table)) for e in self.steps
        ]

    # -- expressions of one step

    def _depends(self, expr: Expr) -> bool:
        return any(name_of(symbol) in self._now for symbol in inputs_of(expr))

    def _step(self, expr: Expr, bound: Bound) -> Expr:
        """The expression at one step, without the axes that are bound to it."""
        return self._dependent(expr, bound) if self._depends(expr) else self._given(expr, bound)

    def _given(self, expr: Expr, bound: Bound) -> Expr:
        """Something that the recursion does not change: an entry of an array over all steps."""
        at = [axis for axis in expr.axes if axis in bound]
        if isinstance(expr, Einsum) and at:
            carried = {label for _, labels in expr.operands for label in labels}
            if not carried & set(at):
                return self._given(einsum(expr.operands, _without(expr.out, at)), {})
        if not at:
            return expr if isinstance(expr, Input) or not inputs_of(expr) else self._array(expr)
        # Arrays over groups hold those that have begun: all that a step reads hold the same ones.
        grouped = any(axis.is_group for axis in expr.axes)
        whole = isinstance(expr, Input) and not grouped and not expr.role.of_classes
        symbol = expr if isinstance(expr, Input) and whole else self._array(expr)
        (axis,) = at
        slot = symbol.axes.index(axis)
        found = Input(f"{symbol.family}|", symbol.index, _without(symbol.axes, at), symbol.role)
        self.slices[found] = symbol, slot
        return found

    def _array(self, expr: Expr) -> Input:
        """An array over all steps."""
        expr = transpose(expr, _leading_first(expr.axes))
        if expr not in self._arrays:
            assert self._equation is not None
            # What no vector changes has families of its own: products compute it once for all vectors.
            fixed = self._varies and not _of_vector(expr)
            symbol = self._new("factor" if fixed else "given", expr.axes)
            self._arrays[expr] = symbol
            terms = expr.terms if isinstance(expr, Add) else ((Fraction(1), expr),)
            value = add([(factor, self._with_factors(term)) for factor, term in terms], expr.axes)
            self.given.append(Equation(symbol, value, self._equation.layer, "definition"))
        return self._arrays[expr]

    def _with_factors(self, term: Expr) -> Expr:
        """A product of entries with what no vector changes in one array."""
        flat = expand(term, lambda node: isinstance(node, Einsum) and _of_vector(node))
        if flat is not term and isinstance(flat, Einsum):
            return self._with_factors(flat)
        if not isinstance(term, Einsum) or not _of_vector(term):
            return term
        own = [op for op in term.operands if not isinstance(op[0], Affine) and not _of_vector(op[0])]
        if not own or (len(own) == 1 and isinstance(own[0][0], Input)):
            return term
        related = {label for operand, each in term.operands if isinstance(operand, Affine) for label in each}
        part = _with_relations(own, term.operands, term.out)
        rest = [op for op in term.operands if op not in part]
        factor, labels = _product(part, term.operands, term.out)
        if not {*contracted(term)} <= related or not {*labels} <= {
            label for _, each in rest for label in each
        }:
            return term  # no product of entries, or one of arrays that are shorter
        symbol = self._array(factor)
        return einsum([*rest, (symbol, symbol.axes)], term.out)

    def _new(self, word: str, axes: tuple[Axis, ...]) -> Input:
        assert self._equation is not None
        owner = self._equation.symbol
        number = self._count[owner, word] = self._count.get((owner, word), 0) + 1
        return self.named(owner, f"{word}{number}", axes)

    def _from_before(self, now: Input, distance: int) -> Input:
        """What a symbol of one step was some steps before."""
        if distance == 0:
            return now
        if (now, distance) not in self._before:
            later = self._from_before(now, distance - 1)
            word = "before" if distance == 1 else f"before{distance}"
            owner = self.stored.get(now)
            found = self.named(now if owner is None else owner, word, now.axes)
            self._before[now, distance] = found
            # The oldest first: each takes the place of the next.
            self.carried.insert(0, (later, found))
        return self._before[now, distance]

    @singledispatchmethod
    def _dependent(self, expr: Expr, bound: Bound) -> Expr:
        raise DerivationError(f"{type(expr).__name__} is not computed step by step")

    @_dependent.register
    def _(self, expr: Input, bound: Bound) -> Expr:
        return self._now[name_of(expr)]

    @_dependent.register
    def _(self, expr: Add, bound: Bound) -> Expr:
        own = [(factor, term) for factor, term in expr.terms if self._depends(term)]
        given = [(factor, term) for factor, term in expr.terms if not self._depends(term)]
        if len(given) > 1:
            given = [(Fraction(1), add(given, expr.out))]
        terms = [(factor, self._step(term, bound)) for factor, term in (*own, *given)]
        return add(terms, _without(expr.out, bound))

    @_dependent.register
    def _(self, expr: Map, bound: Bound) -> Expr:
        operands = [
            (self._step(operand, _inner(operand, labels, bound)), _without(labels, bound))
            for operand, labels in expr.operands
        ]
        return mapped(expr.function, expr.orders, operands, _without(expr.out, bound))

    @_dependent.register
    def _(self, expr: AlongAxis, bound: Bound) -> Expr:
        return replace(expr, operand=self._step(expr.operand, bound))

    @_dependent.register
    def _(self, expr: Einsum, bound: Bound) -> Expr:
        at = shifted_labels(expr.operands, {a: d for a, d in bound.items() if a in expr.out})
        shifts = [op for op in expr.operands if is_shift(op[0]) and set(op[1]) <= set(at)]
        operands = [op for op in expr.operands if op not in shifts]
        found: list[Operand] = []
        for label in [label for label, distance in at.items() if distance]:
            own = _with_relations([op for op in operands if label in op[1]], operands, expr.out)
            if not own:
                continue
            operands = [op for op in operands if op not in own]
            needed = {*expr.out, *(each for _, labels in operands for each in labels)}
            out = tuple(dict.fromkeys(each for _, labels in own for each in labels if each in needed))
            if any(self._depends(operand) for operand, _ in own):
                found.append((self._left_behind(own, label, out, abs(at[label])), out))
            else:
                # Read at another step as a whole, before the loop.
                (shift,) = [op for op in shifts if label in op[1]]
                (now,) = set(shift[1]) - {label}
                operands.append((einsum([shift, *own], (now, *out)), (now, *out)))
        # Labels of what an earlier step has are not summed within the others.
        kept = tuple(dict.fromkeys((*expr.out, *(each for _, labels in found for each in labels))))
        operands = self._together(operands, kept, at)
        found += [
            (operand, labels)
            if isinstance(operand, Affine) and not set(labels) & set(at)
            else (self._step(operand, _inner(operand, labels, at)), _without(labels, at))
            for operand, labels in operands
        ]
        return einsum(found, _without(expr.out, at))

    def _left_behind(self, own: Sequence[Operand], label: Axis, out: tuple[Axis, ...], distance: int) -> Expr:
        """A product of what an earlier step has: computed there, and carried on to this one."""
        if len(own) == 1 and isinstance(own[0][0], Input) and _without(own[0][1], (label,)) == out:
            return self._from_before(self._now[name_of(own[0][0])], distance)
        product = einsum(own, (label, *out))
        if product not in self._left:
            now = self._new("product", out)
            self._left[product] = now
            assert self._equation is not None
            value = self._step(product, {label: 0})
            self._after.append(Equation(now, value, self._equation.layer, "definition"))
        return self._from_before(self._left[product], distance)

    def _together(self, operands: Sequence[Operand], out: tuple[Axis, ...], at: Bound) -> list[Operand]:
        """Given factors that have an entry for each step as one, where it is no larger than the largest."""
        rest = list(operands)
        parts: list[list[Operand]] = []
        for operand in operands:
            expr, labels = operand
            if operand in rest and set(labels) & set(at) and not self._depends(expr):
                part = _with_relations([operand], rest, out)
                rest = [other for other in rest if other not in part]
                parts.append(part)
        if not parts:
            return rest
        sizes = [set(_kept(part, operands, out)) for part in parts]
        largest = max(sizes, key=len)
        joined = [op for part, labels in zip(parts, sizes, strict=True) if labels <= largest for op in part]
        apart = [part for part, labels in zip(parts, sizes, strict=True) if not labels <= largest]
        return rest + [_product(part, operands, out) for part in (joined, *apart)]


def _of_vector(expr: Expr) -> bool:
    return any(symbol.role in (Role.TANGENT, Role.DIRECTION) for symbol in inputs_of(expr))


def split(recursion: Recursion, named: Named) -> Split:
    """A recursion as equations of all steps, and equations of one."""
    found = Split(recursion, named)
    found.run()
    return found


def _leading_first(axes: Iterable[Axis]) -> tuple[Axis, ...]:
    """The axes in their order, but those of groups and of samples first."""
    return tuple(sorted(axes, key=lambda axis: (not axis.is_group, not axis.is_sample)))


def _ordered(value: Expr) -> Expr:
    """A sum with its axes in another order as a sum in that order."""
    if isinstance(value, Einsum) and len(value.operands) == 1:
        ((inner, labels),) = value.operands
        if isinstance(inner, Add) and set(labels) == set(value.out):
            return add([(factor, _moved(term, labels, value.out)) for factor, term in inner.terms], value.out)
    return value


def _moved(term: Expr, labels: Sequence[Axis], out: tuple[Axis, ...]) -> Expr:
    """A term with its axes under other names and in another order; a product is made in that order."""
    if not isinstance(term, Einsum):
        return einsum([(term, tuple(labels))], out)
    table = dict(zip(term.out, labels, strict=True))
    return einsum([(e, tuple(table.get(label, label) for label in own)) for e, own in term.operands], out)


def _without(axes: Iterable[Axis], left_out: Iterable[Axis]) -> tuple[Axis, ...]:
    out = set(left_out)
    return tuple(axis for axis in axes if axis not in out)


def _inner(operand: Expr, labels: Sequence[Axis], bound: Bound) -> dict[Axis, int]:
    """The bound axes of an operand by its own names."""
    return {own: bound[label] for own, label in zip(operand.axes, labels, strict=True) if label in bound}


def _with_relations(
    own: Sequence[Operand], operands: Sequence[Operand], out: tuple[Axis, ...]
) -> list[Operand]:
    """Some factors, with the relations between a label that nothing else has and others."""
    found = list(own)
    for operand in operands:
        expr, labels = operand
        if not isinstance(expr, Affine) or operand in found:
            continue
        others = {label for op in operands if op not in found and op != operand for label in op[1]}
        mine = {label for _, ls in found for label in ls}
        if set(labels) & mine - others - set(out):
            found.append(operand)
    return found


def _kept(part: Sequence[Operand], operands: Sequence[Operand], out: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Labels of some factors of a product that are needed outside of them: groups and samples first."""
    needed = {*out, *(label for op in operands if op not in part for label in op[1])}
    found = dict.fromkeys(label for _, labels in part for label in labels if label in needed)
    order = {axis: number for number, axis in enumerate(out)}
    return tuple(sorted(found, key=lambda a: (not a.is_group, not a.is_sample, order.get(a, len(order)))))


def _product(part: Sequence[Operand], operands: Sequence[Operand], out: tuple[Axis, ...]) -> Operand:
    """Some factors of a product as one."""
    kept = _kept(part, operands, out)
    if len(part) == 1 and isinstance(part[0][0], Input) and set(part[0][1]) == set(kept):
        return part[0]
    return einsum(part, kept), kept


def _sized(axes: Iterable[Axis], extent: int) -> tuple[Axis, ...]:
    """The axes with so many groups."""
    return tuple(replace(axis, size=extent) if axis.is_group else axis for axis in axes)


def _resized(symbol: Input, extent: int) -> Input:
    return replace(symbol, slots=_sized(symbol.slots, extent))


def _over_groups(expr: Expr, extent: int, table: Mapping[Input, Input]) -> Expr:
    """An expression over the first groups."""
    match expr:
        case Input():
            return table.get(expr, expr)
        case Add(terms=terms):
            found = [(factor, _over_groups(term, extent, table)) for factor, term in terms]
            return add(found, _sized(expr.out, extent))
        case Einsum(operands=operands):
            return einsum(_operands_over(operands, extent, table), _sized(expr.out, extent))
        case Map(operands=operands):
            parts = _operands_over(operands, extent, table)
            return mapped(expr.function, expr.orders, parts, _sized(expr.out, extent))
        case AlongAxis():
            return replace(expr, operand=_over_groups(expr.operand, extent, table))
    return expr


def _operands_over(operands: Sequence[Operand], extent: int, table: Mapping[Input, Input]) -> list[Operand]:
    return [(_over_groups(expr, extent, table), _sized(labels, extent)) for expr, labels in operands]
