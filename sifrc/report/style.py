"""What text and LaTeX have in common: how tightly pieces bind, and patterns for those that need no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import sympy

from sifrc.report.indices import Naming
from sifrc.report.layout import (
    Constant,
    Contraction,
    Equal,
    Hadamard,
    Layout,
    Minimiser,
    Product,
    Quotient,
    Scalar,
    Sum,
    Total,
)

__all__ = ["ATOM_LEVEL", "HADAMARD_LEVEL", "PRODUCT_LEVEL", "SUM_LEVEL", "Style", "level_of"]

SUM_LEVEL, HADAMARD_LEVEL, PRODUCT_LEVEL, ATOM_LEVEL = range(4)


def level_of(layout: Layout) -> int:
    """How tightly a piece binds."""
    if isinstance(layout, Sum | Equal | Minimiser):
        return SUM_LEVEL
    if isinstance(layout, Hadamard) or (isinstance(layout, Quotient) and layout.entrywise):
        return HADAMARD_LEVEL
    if isinstance(layout, Product | Quotient | Contraction | Total):
        return PRODUCT_LEVEL
    if isinstance(layout, Scalar):
        simple = layout.expression.is_Symbol or isinstance(layout.expression, sympy.Function)
        return ATOM_LEVEL if simple else SUM_LEVEL
    return ATOM_LEVEL


@dataclass(frozen=True)
class Style:
    """A way to write notation.

    Args:
        name: of the style, for errors.
        write: writes any piece.
        brackets: pattern of what is put in parentheses.
        number: writes a positive factor.
        minus: sign.
        times: between a number and its factor.
        patterns: type of a piece with nothing but parts -> how these are put together, by their names.
    """

    name: str
    write: Callable[[Layout, Naming], str]
    brackets: str
    number: Callable[[Fraction], str]
    minus: str
    times: str
    patterns: Mapping[type[Layout], str]

    def within(self, layout: Layout, naming: Naming, level: int) -> str:
        """A piece, in parentheses where it binds less tightly than a level."""
        body = self.write(layout, naming)
        return body if level_of(layout) >= level else self.brackets.format(body)

    def by_pattern(self, layout: Layout, naming: Naming) -> str:
        """A piece by the pattern of its type."""
        if type(layout) not in self.patterns:
            raise TypeError(f"no {self.name} for {type(layout).__name__}")
        parts: dict[str, str] = {}
        for name, value in vars(layout).items():
            parts[name] = self.write(value, naming) if isinstance(value, Layout) else str(value)
        return self.patterns[type(layout)].format(**parts)

    def terms(self, layout: Sum, naming: Naming) -> list[str]:
        """The terms of a sum, each with its sign."""
        pieces: list[str] = []
        for factor, term in layout.terms:
            sign = self.minus if factor < 0 else "+" if pieces else ""
            size = abs(factor)
            body = self.within(term, naming, HADAMARD_LEVEL if size == 1 else PRODUCT_LEVEL)
            if isinstance(term, Constant) and term.name == "1":
                body = self.number(size)
            elif size != 1:
                body = f"{self.number(size)}{self.times}{body}"
            pieces.append(f"{sign} {body}" if pieces else f"{sign}{body}")
        return pieces
