"""Recursions without what no step needs of another one: that is of all steps at once, after the loop.

Adjoints and tangents of a step are linear in each other. One that its readers multiply entry by entry is put
into them, so that its factors meet theirs, and products of what the recursion does not change are arrays over
all steps, made before the loop. Parts of arrays, a gate of the pre-activations say, go the same way into
whatever reads them. What is put into its readers follows from the rest, after the last step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

from sifrc.derive.recurrence import Name, Reads, Recursion, Unbound, name_of, shifted_labels
from sifrc.derive.system import Equation
from sifrc.ir import Affine, Axis, Einsum, Expr, Input, Operand
from sifrc.ir.build import add, einsum, rename
from sifrc.ir.normal import expand, operands_of, terms_of
from sifrc.ir.traverse import inputs_of, substitute

__all__ = ["Feedback", "feedback"]

Terms: TypeAlias = list[tuple[Fraction, Expr]]


@dataclass(frozen=True)
class Feedback:
    """A recursion in two parts.

    Args:
        recursion: what steps need of each other.
        defined: its equations as they were before others were put into them.
        after: equations of what was put into others, in order; they read the steps that they define.
    """

    recursion: Recursion
    defined: tuple[Equation, ...]
    after: tuple[Equation, ...]


def feedback(recursion: Recursion) -> Feedback:
    """Take out of a recursion what no step needs of another one, where a step has no more to do then.

    Example:
        >>> from sifrc.derive.recurrence import recursions
        >>> from sifrc.ir import Role
        >>> from sifrc.ir.build import hadamard, total
        >>> t, s, i = Axis("step", 4), Axis("before", 4), Axis("h", 2)
        >>> a, b, x, y = [Input(letter, 1, (t, i), Role.ADJOINT) for letter in "abxy"]
        >>> before = einsum([(Affine((4, 4), (1, -1), -1), (s, t)), (b, (s, i))], (t, i))
        >>> values = hadamard(x, before), total([x, hadamard(y, a)], (t, i))
        >>> (both,) = recursions([Equation(s, value, 1, "") for s, value in zip((a, b), values)])
        >>> parts = feedback(both)
        >>> [e.symbol.name for e in parts.recursion.equations], [e.symbol.name for e in parts.after]
        (['b[1]'], ['a[1]'])
    """
    found = _Values(recursion)
    for equation in recursion.equations:
        found.put_into_readers(name_of(equation.symbol))
    kept = [e for e in recursion.equations if name_of(e.symbol) in found.values]
    return Feedback(
        replace(recursion, equations=tuple(replace(e, value=found.values[name_of(e.symbol)]) for e in kept)),
        tuple(kept),
        tuple(e for e in recursion.equations if name_of(e.symbol) not in found.values),
    )


class _Values:
    """Values of the symbols of a recursion, in the order of a step, while some are put into others."""

    def __init__(self, recursion: Recursion) -> None:
        self.values: dict[Name, Expr] = {name_of(e.symbol): e.value for e in recursion.equations}
        self._symbols = {name_of(e.symbol): e.symbol for e in recursion.equations}
        self._slots = recursion.slots
        self._members = frozenset(self.values)

    def put_into_readers(self, name: Name) -> None:
        """Put a value into all that read it, if they read it at the same step and have no more terms then."""
        value, step = self.values[name], self._step(name)
        readers = [other for other in self.values if self._reads(self.values[other], {name})]
        if not readers or not all(self._at_this_step(other, name) for other in readers):
            return
        new: dict[Name, Expr] = {}
        if self._is_part(value, step):
            new = {other: self._with(self.values[other], name) for other in readers}
        else:
            own = self._placed(self._terms(value), step)
            if own is None:
                return
            terms = sum(self._reads(term, self._members) for _, term in own)
            reading = 0
            for other in readers:
                parts, at = self._terms(self.values[other]), self._step(other)
                where = [part for part in parts if self._reads(part[1], {name})]
                inside = [(f * g, t) for f, term in where for g, t in self._terms(self._with(term, name))]
                old, found = self._placed(where, at), self._placed(inside, at)
                if old is None or found is None:
                    return
                reading += len(where)
                rest = [part for part in parts if part not in where]
                new[other] = add([*rest, *found], self.values[other].axes)
            if terms * reading > terms + reading:
                return
        self.values |= new
        del self.values[name]

    def _step(self, name: Name) -> Axis:
        return self._symbols[name].axes[self._slots[name]]

    def _reads(self, expr: Expr, names: Iterable[Name]) -> bool:
        return any(name_of(symbol) in names for symbol in inputs_of(expr))

    def _at_this_step(self, reader: Name, name: Name) -> bool:
        try:
            found = list(Reads(frozenset({name})).of(self.values[reader], {self._step(reader): 0}))
        except Unbound:
            return False
        return reader != name and not any(distance for _, _, distance in found)

    def _is_part(self, value: Expr, step: Axis) -> bool:
        """Whether it is another symbol of the recursion, or neighbouring entries of it."""
        operands = operands_of(value)
        own = [operand for operand, _ in operands if not isinstance(operand, Affine)]
        if len(own) != 1 or not isinstance(own[0], Input) or not self._reads(own[0], self._members):
            return False
        placed = self._product(value, step)
        if placed is None:
            return False
        # Not one with zeros beside it.
        relations = [labels for operand, labels in operands_of(placed) if isinstance(operand, Affine)]
        return all(label == step or label not in value.axes for label, _ in relations)

    def _with(self, expr: Expr, name: Name) -> Expr:
        """An expression with the value of a symbol in place of it."""
        read = [symbol for symbol in inputs_of(expr) if name_of(symbol) == name]
        return substitute(expr, {symbol: rename(self.values[name], symbol.axes) for symbol in read})

    def _terms(self, value: Expr) -> Terms:
        """The terms of an expression; what the recursion does not change is not taken apart."""
        return list(terms_of(expand(value, lambda node: self._reads(node, self._members))))

    def _placed(self, terms: Terms, step: Axis) -> Terms | None:
        """Products of one symbol with given factors, entry by entry; None if a term is another thing."""
        found: Terms = []
        for factor, term in terms:
            if self._reads(term, self._members):
                placed = self._product(term, step)
                if placed is None:
                    return None
                found.append((factor, placed))
            else:
                placed = _over_shortest(term, self._steps_of(term, step))
                found.append((factor, term if placed is None else placed))
        return found

    def _product(self, term: Expr, step: Axis) -> Expr | None:
        """A term with each factor over the axes that all of them have, or None.

        One is chosen among labels that are at a fixed distance from each other. Each factor is read at a
        distance from that one, so that their product needs no array that is longer.
        """
        if isinstance(term, Input):
            return term
        changed = [operand for operand, _ in operands_of(term) if self._reads(operand, self._members)]
        if len(changed) != 1 or not isinstance(changed[0], Input):
            return None
        return _over_shortest(term, self._steps_of(term, step))

    def _steps_of(self, term: Expr, step: Axis) -> set[Axis]:
        """Labels of a product that are a step."""
        return {*shifted_labels(operands_of(term), {step: 0})}


def _over_shortest(term: Expr, steps: set[Axis]) -> Expr | None:
    """A product of entries at distances from the shortest of related axes; None if it is none."""
    if not isinstance(term, Einsum):
        return None
    relations = [op for op in term.operands if isinstance(op[0], Affine) and not set(op[1]) <= steps]
    others = [op for op in term.operands if op not in relations]
    at = _positions(relations, {label for _, labels in term.operands for label in labels} - steps)
    if at is None:
        return None
    outside = [at[label][0] for label in term.out if label in at]
    carried = {at[label][0] for _, labels in others for label in labels if label in at}
    if len(set(outside)) < len(outside) or not carried <= set(outside):
        return None
    found: list[Operand] = []
    for operand, labels in others:
        own: list[Axis] = []
        relating: list[Operand] = []
        for label in labels:
            first, distance = at.get(label, (label, 0))
            if label != first:
                label = Axis(f"entry {len(found)}.{len(own)}", label.size)
                relating.append((_relation(label, first, distance), (label, first)))
            own.append(label)
        found += [(operand, tuple(own)), *relating]
    for label in term.out:
        first, distance = at.get(label, (label, 0))
        if label != first:
            found.append((_relation(label, first, distance), (label, first)))
    return einsum(found, term.out)


def _positions(relations: Sequence[Operand], labels: set[Axis]) -> Mapping[Axis, tuple[Axis, int]] | None:
    """Each label as the shortest that is related to it and the distance; None where there is none."""
    near: dict[Axis, dict[Axis, int]] = {label: {} for label in labels}
    for relation, (first, *rest) in relations:
        assert isinstance(relation, Affine)
        if len(rest) != 1 or {*relation.coefficients} != {1, -1} or not {first, *rest} <= labels:
            return None
        distance = relation.offset * relation.coefficients[0]
        near[first][rest[0]], near[rest[0]][first] = -distance, distance
    found: dict[Axis, tuple[Axis, int]] = {}
    for start in sorted(labels, key=lambda axis: axis.place):
        if start in found:
            continue
        at, waiting = {start: 0}, [start]
        while waiting:
            label = waiting.pop()
            for other, distance in near[label].items():
                if other not in at:
                    waiting.append(other)
                if at.setdefault(other, at[label] + distance) != at[label] + distance:
                    return None
        shortest = min(at, key=lambda axis: (_entries(axis), axis.place))
        for label, position in at.items():
            distance = position - at[shortest]
            if label != shortest and not 0 <= distance <= _entries(label) - _entries(shortest):
                return None
            found[label] = (shortest, distance)
    return found


def _relation(label: Axis, first: Axis, distance: int) -> Affine:
    """Where an index is another one plus a distance."""
    return Affine((label.entries, first.entries), (1, -1), distance)


def _entries(axis: Axis) -> int:
    return 0 if axis.size is None else axis.size
