"""Products with the vectors of classes, in an order with less work.

An embedding x₁ = x₀ W₁ takes a row of W₁ for each class in x₀. What multiplies all of it with another matrix
does so for every place of every sample, though there are no more results than classes: x₀ (W₁ W₂ᵀ) multiplies
each row once, and the gradient (x₀ᵀ b₂) W₂ adds up before it multiplies. Where that is less work, the product
stands in its readers in place of its symbol, and their orders are found as those of any product.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TypeAlias

from sifrc.catalogue.phase import Phase
from sifrc.derive.recurrence import Name, name_of
from sifrc.derive.system import Equation, System
from sifrc.ir import Axis, Einsum, Expr, Input, Operand, Role
from sifrc.ir.build import add, einsum, rename
from sifrc.ir.normal import expand, operands_of, terms_of
from sifrc.ir.traverse import inputs_of, substitute
from sifrc.lower.batch import batch_system
from sifrc.lower.products import contracted, multiplications

__all__ = ["of_form", "through_classes"]

Term: TypeAlias = tuple[Fraction, Expr]


def of_form(phases: Sequence[Phase], form: str) -> list[Phase]:
    """The phases that are wanted for batches, or for one sample, with the equations of that."""
    own = [phase for phase in phases if form in phase.forms]
    if form == "single":
        return own
    systems = through_classes([batch_system(phase.system) for phase in own])
    return [replace(phase, system=system) for phase, system in zip(own, systems, strict=True)]


def through_classes(systems: Sequence[System]) -> list[System]:
    """The systems of a batch with products of class vectors for their symbols, where that is less work.

    Args:
        systems: all of one form, in an order in which they may run.
    """
    result = list(systems)
    tried: set[Name] = set()
    while definition := next((e for e in _candidates(result) if name_of(e.symbol) not in tried), None):
        tried.add(name_of(definition.symbol))
        readers = [_Readers(definition) for _ in result]
        changed = [
            replace(system, equations=tuple(found.of(equation) for equation in system.equations))
            for system, found in zip(result, readers, strict=True)
        ]
        less = sum(found.after for found in readers) < sum(found.before for found in readers)
        if less and all(found.all_products for found in readers):
            result = changed
    return result


def _candidates(systems: Sequence[System]) -> Iterator[Equation]:
    """Sums of products with a vector of classes as a factor, and those that are only multiplied with one."""
    equations = [equation for system in systems for equation in system.equations]
    definitions = Counter(name_of(equation.symbol) for equation in equations)
    readers: dict[Name, list[Equation]] = {}
    for equation in equations:
        for name in dict.fromkeys(map(name_of, inputs_of(equation.value))):
            readers.setdefault(name, []).append(equation)
    for equation in equations:
        if not equation.symbol.role.per_sample or definitions[name_of(equation.symbol)] > 1:
            continue  # a mean, or what readers know under one name whichever system made it
        flat = replace(equation, value=expand(equation.value, _has_class))
        terms = [term for _, term in terms_of(flat.value)]
        products = bool(terms) and all(isinstance(term, Einsum) and contracted(term) for term in terms)
        if products and (_chooses(flat) or any(map(_adds_up, readers.get(name_of(equation.symbol), [])))):
            yield equation


def _adds_up(equation: Equation) -> bool:
    """Whether some product of it has a vector of classes as a factor."""
    terms = [term for _, term in terms_of(equation.value)]
    return any(_is_class(operand) for term in terms for operand, _ in operands_of(term))


def _chooses(equation: Equation) -> bool:
    """Whether it is a sum of products that take rows for classes."""
    return all(_is_choice(term) for _, term in terms_of(equation.value))


def _is_choice(term: Expr) -> bool:
    """Whether it is a product of a vector of classes with what has no value for each sample."""
    if not isinstance(term, Einsum):
        return False
    classes = [labels[-1] for operand, labels in term.operands if _is_class(operand)]
    rest = [operand for operand, _ in term.operands if not _is_class(operand)]
    one = len(classes) == 1 and classes[0] not in term.out and bool(rest)
    return one and not any(symbol.role.per_sample for symbol in inputs_of(*rest))


def _is_class(expr: Expr) -> bool:
    return isinstance(expr, Input) and expr.role is Role.CLASS


class _Readers:
    """What reads a symbol in one system, with the product in its place, and the work of both.

    Few systems run for one result: each is compared with the work of the symbol beside it.

    Args:
        definition: of the symbol.
    """

    def __init__(self, definition: Equation) -> None:
        self._definition = definition
        self._name = name_of(definition.symbol)
        self._own = sum(multiplications(term) for _, term in terms_of(definition.value))
        self.before = self.after = 0
        self.all_products = True

    def of(self, equation: Equation) -> Equation:
        """An equation that may read the symbol."""
        if equation is self._definition or not self._reads(equation.value):
            return equation
        value = expand(equation.value, self._reads)
        terms: list[Term] = []
        for factor, term in terms_of(value):
            if not self._reads(term):
                terms.append((factor, term))
                continue
            self.all_products &= self._is_product(term)
            if not self.all_products:
                return equation
            inside = expand(self._replaced(term), _has_class)
            self.before += multiplications(term) + (0 if self.before else self._own)
            self.after += sum(multiplications(part) for _, part in terms_of(inside))
            terms += [(factor * other, part) for other, part in terms_of(inside)]
        return replace(equation, value=add(_together(terms), equation.value.axes))

    def _reads(self, expr: Expr) -> bool:
        return any(name_of(symbol) == self._name for symbol in inputs_of(expr))

    def _is_product(self, term: Expr) -> bool:
        """Whether the symbol is a factor of it, and something is summed."""
        own = [operand for operand, _ in operands_of(term) if self._reads(operand)]
        return isinstance(term, Einsum) and bool(contracted(term)) and all(isinstance(o, Input) for o in own)

    def _replaced(self, term: Expr) -> Expr:
        read = [symbol for symbol in inputs_of(term) if name_of(symbol) == self._name]
        return substitute(term, {symbol: rename(self._definition.value, symbol.axes) for symbol in read})


def _together(terms: Sequence[Term]) -> list[Term]:
    """Terms with equal factors of classes as one, with the sum of the rows that they take."""
    rows: dict[tuple[Operand, tuple[Axis, ...], tuple[Axis, ...]], list[Term]] = {}
    found: list[Term] = []
    for factor, term in terms:
        if not _is_choice(term):
            found.append((factor, term))
            continue
        assert isinstance(term, Einsum)
        ((operand, labels),) = [op for op in term.operands if _is_class(op[0])]
        row = Axis("row", labels[-1].size)
        others = [op for op in term.operands if op[0] is not operand]
        rest = [(e, tuple(row if a == labels[-1] else a for a in ls)) for e, ls in others]
        needed = dict.fromkeys(a for _, ls in rest for a in ls)
        # Places that the rows are summed over together with the classes stay.
        own = (*term.out, *(axis for axis in labels[:-1] if axis not in term.out))
        out = (row, *(axis for axis in own if axis in needed))
        key = (operand, (*labels[:-1], row)), term.out, out
        rows.setdefault(key, []).append((factor, einsum(rest, out)))
    for (choice, out, own), parts in rows.items():
        value = add(parts, own)
        found.append((Fraction(1), einsum([choice, (value, value.axes)], out)))
    return found


def _has_class(expr: Expr) -> bool:
    return any(map(_is_class, inputs_of(expr)))
