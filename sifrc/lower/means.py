"""Systems of a step in two: means over the samples of a batch, and what is made of them.

``θ − lr·mean`` is the mean and what is made of it; a product of samples' factors with a mean of the same
system is the mean of the former and its product with the latter, as small as the choice of factors makes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import combinations
from math import prod

from sifrc.derive.recurrence import Name, name_of
from sifrc.derive.system import Equation
from sifrc.ir import Add, Axis, Einsum, Expr, Input, Map, Operand, Role
from sifrc.ir.build import add, einsum
from sifrc.ir.normal import operands_of, terms_of
from sifrc.ir.traverse import inputs_of, substitute
from sifrc.lower.batch import MEAN

__all__ = ["COUPLED", "MARK", "Apart", "Coupled", "is_affine", "of_samples", "reads"]

COUPLED = (
    "values of a sample depend on means over its batch that are made with them, as in batch norm while "
    "training (in: {})"
)
MARK = "·"
"""In names of means: before their number, after the family that they are for."""
_MANY = 10
"""Constant factors of a product all of whose subsets are looked at."""


class Coupled(ValueError):
    """Samples act on each other, so that a batch cannot be taken in parts."""


def of_samples(value: Expr) -> bool:
    """Whether an expression has a value of each sample in it, or a mean over them."""
    return any(symbol is MEAN or symbol.role.per_sample for symbol in inputs_of(value))


def is_affine(value: Expr, names: Collection[Name]) -> bool:
    """Whether the weighted mean of the values is the value of the weighted means of some symbols."""
    if isinstance(value, Input):
        return True
    if isinstance(value, Add):
        return all(is_affine(term, names) for _, term in value.terms)
    if not reads(value, names):
        return True
    if isinstance(value, Map):
        places = [number for number, (expr, _) in enumerate(value.operands) if reads(expr, names)]
        twice = tuple(order + 2 * (number in places) for number, order in enumerate(value.orders))
        if len(places) != 1 or value.function.value_form(twice) != 0:
            return False
    elif not isinstance(value, Einsum):
        return False
    own = [expr for expr, _ in value.operands if reads(expr, names)]
    others = [expr for expr, _ in value.operands if not reads(expr, names)]
    return len(own) == 1 and is_affine(own[0], names) and not any(map(of_samples, others))


def reads(value: Expr, names: Collection[Name]) -> bool:
    return any(name_of(symbol) in names for symbol in inputs_of(value))


def _by_numbers(
    terms: Iterable[tuple[Fraction, Expr]],
) -> dict[tuple[Expr, ...], list[tuple[Fraction, Expr]]]:
    """Terms without the numbers that all samples have in common, as a step size, by these."""
    found: dict[tuple[Expr, ...], list[tuple[Fraction, Expr]]] = {}
    for factor, term in terms:
        operands = operands_of(term)
        numbers = tuple(expr for expr, labels in operands if not labels and not of_samples(expr))
        others = [op for op in operands if op[1] or of_samples(op[0])]
        found.setdefault(numbers, []).append((factor, einsum(others, term.axes)))
    return found


@dataclass
class Apart:
    """A system in two: means over samples, and what is made of them.

    Args:
        title: of the system, for errors.
        in_place: families that the step overwrites.
        each, once: the equations of both.
        late: names of what is made of means.
        made: names of the means.
        inlined: values of a sample that depend on them, which stand in their readers.
    """

    title: str
    in_place: frozenset[str]
    each: list[Equation] = field(default_factory=list)
    once: list[Equation] = field(default_factory=list)
    late: set[Name] = field(default_factory=set)
    made: set[Name] = field(default_factory=set)
    inlined: dict[Input, Expr] = field(default_factory=dict)

    def split(self, equations: Iterable[Equation]) -> tuple[list[Equation], list[Equation], frozenset[Name]]:
        """Equations of each batch and of the means, and the names of these."""
        for equation in equations:
            value = substitute(equation.value, self.inlined) if self.inlined else equation.value
            symbol = equation.symbol
            if symbol.role.per_sample and reads(value, self.late | self.made):
                self.inlined[symbol] = value
            elif symbol.role.per_sample:
                self.each.append(replace(equation, value=value))
            else:
                self._mean(replace(equation, value=value))
        return self.each, self.once, frozenset(self.made)

    def _mean(self, equation: Equation) -> None:
        """The equation of a value without samples."""
        symbol, value = equation.symbol, equation.value
        late = self.late | self.made
        if not of_samples(value):
            self.once.append(equation)
            if reads(value, late) or symbol.family in self.in_place:
                self.late.add(name_of(symbol))
            else:
                self.each.append(equation)
            return
        whole: list[tuple[Fraction, Expr]] = []
        rest: list[tuple[Fraction, Expr]] = []
        for factor, term in terms_of(value):
            if not of_samples(term):
                rest.append((factor, term))
            elif not reads(term, late):
                whole.append((factor, term))
            else:
                inside, outside = self._factors(term, late)
                rest.append((factor, einsum([self._named(equation, *inside), *outside], term.axes)))
        if not rest and symbol.family not in self.in_place:
            self.each.append(equation)
            self.made.add(name_of(symbol))
            return
        for numbers, terms in _by_numbers(whole).items():
            mean = self._named(equation, add(terms, symbol.axes), symbol.axes)
            rest.append((Fraction(1), einsum([mean, *((number, ()) for number in numbers)], symbol.axes)))
        self.once.append(replace(equation, value=add(rest, symbol.axes)))
        self.late.add(name_of(symbol))

    def _named(self, equation: Equation, value: Expr, labels: tuple[Axis, ...]) -> Operand:
        """A symbol of its own for a mean."""
        symbol = equation.symbol
        known = next((each.symbol for each in self.each if each.value is value), None)
        if known is not None:
            return known, labels
        own = f"{symbol.family}{MARK}"
        number = 1 + sum(index == symbol.index and family.startswith(own) for family, index in self.made)
        mean = Input(f"{symbol.family}{MARK}{number}", symbol.index, value.axes, Role.DIRECTION)
        self.each.append(Equation(mean, value, equation.layer, equation.source))
        self.made.add(name_of(mean))
        return mean, labels

    def _factors(
        self, term: Expr, late: Collection[Name]
    ) -> tuple[tuple[Expr, tuple[Axis, ...]], list[Operand]]:
        """A product as the mean of some of its factors, with its labels, and the others."""
        operands = list(operands_of(term))
        own = [op for op in operands if of_samples(op[0])]
        others = [op for op in operands if not of_samples(op[0])]
        if any(reads(expr, late) for expr, _ in own):
            raise Coupled(COUPLED.format(self.title))
        free = [op for op in others if not reads(op[0], late)]
        fixed = [op for op in others if reads(op[0], late)]
        subsets = (
            chosen
            for count in range(len(free) + 1 if len(free) <= _MANY else 1)
            for chosen in combinations(range(len(free)), count)
        )

        def labels(chosen: tuple[int, ...]) -> tuple[Axis, ...]:
            inside = [*own, *(free[n] for n in chosen)]
            outside = [*fixed, *(op for n, op in enumerate(free) if n not in chosen)]
            read = {label for _, slots in outside for label in slots} | set(term.axes)
            found = dict.fromkeys(label for _, slots in inside for label in slots if not label.is_sample)
            return tuple(label for label in found if label in read)

        best = min(subsets, key=lambda chosen: prod(axis.entries for axis in labels(chosen)))
        kept = labels(best)
        value = einsum([*own, *(free[n] for n in best)], kept)
        return (value, kept), [*fixed, *(op for n, op in enumerate(free) if n not in best)]
