"""Formulas as operations on one new tensor: a sum of products without a tensor for each of its parts.

A new tensor costs more than what is computed in it, where it is large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import sympy
from sympy import Add, Expr, Mul, Pow, Symbol

from sifrc.scalar import TIMES_FIRST

__all__ = ["Operand", "added_in_place", "in_place", "written_into"]


class Operand(Protocol):
    """What is known of a symbol: see :class:`sifrc.backends.torch_eager.expressions.Entry`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of its dimensions."""

    @property
    def is_float(self) -> bool:
        """Whether it is a Python number."""

    @property
    def computed(self) -> bool:
        """Whether it is a tensor that nothing else has."""

    @property
    def taken(self) -> bool:
        """Whether it is a tensor that nobody needs afterwards."""


@dataclass(frozen=True)
class _Chain:
    """How a formula is printed.

    Args:
        labels: of the result.
        operands: what the symbols are.
        printed: source text of an expression.
    """

    labels: frozenset[str]
    operands: Mapping[str, Operand]
    printed: Callable[[Expr], str]

    def number(self, term: Expr) -> tuple[Expr, Expr]:
        """A product as a Python number times the rest."""
        tensors = [s for s in term.free_symbols if not self.operands[s.name].is_float]
        found: tuple[Expr, Expr] = (
            term.as_independent(*tensors, as_Add=False) if tensors else (term, sympy.S.One)
        )
        return found

    def covers(self, expr: Expr) -> bool:
        """Whether the tensor has all labels of the result."""
        return self.labels <= {label for s in expr.free_symbols for label in self.operands[s.name].labels}

    def is_new(self, expr: Expr) -> bool:
        """Whether the text makes a tensor that nothing else has."""
        if isinstance(expr, Symbol):
            return self.operands[expr.name].computed or self.operands[expr.name].taken
        return bool(expr.free_symbols)

    def is_taken(self, expr: Expr) -> bool:
        """Whether it is an array that the result may stand in the place of."""
        return isinstance(expr, Symbol) and self.operands[expr.name].taken and self.covers(expr)

    def product(self, term: Expr, out: str = "") -> tuple[str, int]:
        """Text of a tensor that holds a product, and the number of operations in place; '' for none.

        Args:
            term: the product.
            out: where it belongs; a new tensor otherwise, or where no operation of Torch writes there.
        """
        number, rest = self.number(term)
        above = [f for f in Mul.make_args(rest) if not _is_divisor(f)]
        below = [1 / f for f in Mul.make_args(rest) if _is_divisor(f)]
        few = [factor for factor in above if not self.covers(factor)]
        if not self.covers(Mul(*few)):  # their product is small: one time through all entries for them
            above = [factor for factor in above if factor not in few] + ([Mul(*few)] if few else [])
        # What is computed and has all entries holds the product; first, an array that nobody needs then.
        above.sort(key=lambda factor: isinstance(factor, Symbol) or not self.covers(factor))
        above.sort(key=lambda factor: not self.is_taken(factor))
        start, factors, inner = sympy.S.One, list(above), 0
        while factors and not (start != 1 and self.covers(start) and self.is_new(start)):
            start *= factors.pop(0)
        if not (self.covers(start) and self.is_new(start)) or start.is_number:
            return "", 0
        text = self.sum(start)[0] if isinstance(start, Add) else ""
        if not text:
            if isinstance(start, Mul | Add | Pow):
                text = f"({self.printed(start)})"
            else:
                text, inner = self.function(start)
            if out and isinstance(start, Mul) and len(start.args) == 2 and not start.args[0].is_number:
                text = f"torch.mul({', '.join(map(self.printed, start.args))}, out={out})"
            elif out and isinstance(start, TIMES_FIRST) and text.startswith("torch.ops.aten."):
                name, _, arguments = text.partition("(")
                text = f"{name}.grad_input({arguments[:-1]}, grad_input={out})"
        text += "".join(f".mul_({self.printed(factor)})" for factor in factors)
        text += "".join(f".div_({self.printed(factor)})" for factor in below)
        count = inner + len(factors) + len(below)
        if number == 1:
            return text, count
        return text + (".neg_()" if number == -1 else f".mul_({self.printed(number)})"), count + 1

    def function(self, start: Expr) -> tuple[str, int]:
        """Text of an expression; of a function that is something times a product, with a chain for that."""
        text, count = self.product(start.args[0]) if isinstance(start, TIMES_FIRST) else ("", 0)
        if count == 0:
            return self.printed(start), 0
        first = Symbol("first_argument", real=True)
        return self.printed(start.func(first, *start.args[1:])).replace(first.name, text), count

    def sum(self, value: Expr, out: str = "") -> tuple[str, int]:
        """Text of a tensor that holds a sum, and the number of operations in place; '' for none."""
        terms = value.as_ordered_terms()
        if len(terms) == 1:
            return self.product(value, out)
        starts = [(text, count, term) for term in terms for text, count in [self.product(term)] if text]
        if sum(not term.is_number for term in terms) < 2 and not any(count == 0 for _, count, _ in starts):
            return "", 0
        if starts:
            first = [found for found in starts if any(map(self.is_taken, Mul.make_args(found[2])))]
            _, count, start = min(first or starts, key=lambda found: found[1])
            text = self.product(start, out)[0]
            rest = [term for term in terms if term != start]
        else:
            start, count, rest = Add(*terms[:2]), 0, terms[2:]
            text = f"({self.printed(start)})"
            if out and all(isinstance(term, Symbol) for term in start.args):
                text = f"torch.add({', '.join(map(self.printed, start.args))}, out={out})"
            elif not rest:
                return "", 0
            if not self.covers(start):
                return "", 0
        few = [term for term in rest if not self.covers(term) and not term.is_number]
        if len(few) > 1 and not self.covers(Add(*few)):  # their sum is small too
            rest = [term for term in rest if term not in few]
            text += f".add_({self.printed(Add(*few))})"
            count += 1
        return text + "".join(map(self.added, rest)), count + len(rest)

    def added(self, term: Expr) -> str:
        """The call that adds a term to a tensor."""
        number, rest = self.number(term)
        factors = sorted(Mul.make_args(rest), key=self.covers)
        # Of factors that have not all entries themselves, ``addcmul_`` takes each entry by itself.
        if len(factors) == 1 or any(map(_is_divisor, factors)) or not any(map(self.covers, factors)):
            name, value = ("sub_", -number) if number.could_extract_minus_sign() else ("add_", number)
            alpha = "" if value == 1 else f", alpha={self.printed(value)}"
            return f".{name}({self.printed(rest)}{alpha})"
        first = Mul(*factors[:-1])
        text = self.product(first)[0] if len(factors) > 3 else ""
        value = "" if number == 1 else f", value={self.printed(number)}"
        return f".addcmul_({text or self.printed(first)}, {self.printed(factors[-1])}{value})"


def _is_divisor(factor: Expr) -> bool:
    return isinstance(factor, Pow) and factor.exp.could_extract_minus_sign()


def in_place(
    value: Expr, labels: tuple[str, ...], operands: Mapping[str, Operand], printed: Callable[[Expr], str]
) -> str | None:
    """Source text of the formula as a chain of operations on one tensor; None where that is no shorter.

    Args:
        value: the formula.
        labels: of the result.
        operands: what its symbols are.
        printed: source text of an expression.
    """
    text, count = _Chain(frozenset(labels), operands, printed).sum(value) if labels else ("", 0)
    return text if count > 0 else None


def added_in_place(
    term: Expr, labels: tuple[str, ...], operands: Mapping[str, Operand], printed: Callable[[Expr], str]
) -> str | None:
    """Source text of the call that adds a product of tensors to a tensor; None for any other term.

    Args:
        term: which is added.
        labels: of the tensor.
        operands: what the symbols of the term are.
        printed: source text of an expression.
    """
    chain = _Chain(frozenset(labels), operands, printed)
    factors = Mul.make_args(chain.number(term)[1])
    return None if len(factors) < 2 or any(map(_is_divisor, factors)) else chain.added(term)


def written_into(
    out: str,
    value: Expr,
    labels: tuple[str, ...],
    operands: Mapping[str, Operand],
    printed: Callable[[Expr], str],
) -> str | None:
    """Source text of a statement that computes a formula in a tensor that it does not read; None for none.

    Args:
        out: source text of the tensor.
        value: the formula.
        labels: of the tensor.
        operands: what the symbols of the formula are.
        printed: source text of an expression.
    """
    text, _ = _Chain(frozenset(labels), operands, printed).sum(value, out) if labels else ("", 0)
    return text if f"out={out})" in text or f"grad_input={out})" in text else None
