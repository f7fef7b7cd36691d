"""Numbers in formulas over tensors: they are multiplied with each other first, and every tensor has one.

A number here is one in Python or a tensor without dimensions. In ``a * x * b`` with two of them, x is gone
through twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sympy import Add, Expr, Mul, S, Symbol

__all__ = ["number_of", "numbers_first"]


def number_of(term: Expr, numbers: frozenset[str]) -> tuple[Expr, Expr]:
    """A product as a number times the rest.

    Args:
        term: product over symbols.
        numbers: names of the symbols that are numbers.
    """
    tensors = [symbol for symbol in term.free_symbols if symbol.name not in numbers]
    number, rest = term.as_independent(*tensors, as_Add=False) if tensors else (term, S.One)
    return number, rest


def numbers_first(
    value: Expr,
    numbers: frozenset[str],
    zero_dimensional: Mapping[str, object],
    named: Callable[[Expr], Symbol],
) -> Expr:
    """The formula with one number for each tensor.

    Args:
        value: formula.
        numbers: names of the symbols that are numbers.
        zero_dimensional: those of them that are tensors.
        named: gives a number that has to be computed a symbol of its own.
    """

    def scaled(number: Expr, rest: Expr) -> Expr:
        if isinstance(number, Mul) and number.could_extract_minus_sign():
            return -scaled(-number, rest)
        computed = not (number.is_number or isinstance(number, Symbol))
        if computed and any(symbol.name in zero_dimensional for symbol in number.free_symbols):
            return named(number) * rest
        return number * rest

    def visit(node: Expr) -> Expr:
        if isinstance(node, Add):
            found: dict[Expr, list[Expr]] = {}
            for term in node.as_ordered_terms():
                number, rest = number_of(term, numbers)
                found.setdefault(rest, []).append(number)
            if all(rest == 1 for rest in found):
                return node
            return Add(*(Add(*n) if rest == 1 else scaled(Add(*n), visit(rest)) for rest, n in found.items()))
        if isinstance(node, Mul):
            number, rest = number_of(node, numbers)
            if rest == 1:
                return node
            factors = Mul(*(visit(factor) for factor in Mul.make_args(rest)))
            return scaled(number, factors)
        return node

    return visit(value)
