"""Notation as one line of Unicode text."""

from __future__ import annotations

from fractions import Fraction
from functools import singledispatch
from types import MappingProxyType

import sympy

from sifrc.report.indices import NUMBERS, Naming, range_text
from sifrc.report.layout import (
    Constant,
    Contraction,
    CubeRoot,
    Derivative,
    Diagonal,
    Equal,
    Function,
    Hadamard,
    Indexed,
    Inner,
    Inverse,
    Layout,
    Mean,
    Minimiser,
    Named,
    Norm,
    Product,
    Quotient,
    Scalar,
    Solved,
    Sum,
    Symbol,
    Total,
    Transpose,
)
from sifrc.report.style import ATOM_LEVEL, PRODUCT_LEVEL, Style
from sifrc.report.symbols import symbol_text
from sifrc.scalar import unicode

__all__ = ["number_text", "text"]

_CONSTANTS = {"ones": "𝟏", "identity": "I"}


def number_text(value: Fraction) -> str:
    """A positive rational factor, decimal where the exact form is unreadable."""
    if value.denominator == 1:
        return str(value.numerator)
    if value.denominator > 10_000:
        return f"{float(value):.6g}"
    return {Fraction(1, 2): "½", Fraction(1, 4): "¼", Fraction(3, 4): "¾"}.get(value, str(value))


def text(layout: Layout, naming: Naming = NUMBERS) -> str:
    """The notation as text.

    Args:
        layout: what to print.
        naming: how layer indices print.

    Example:
        >>> text(Product((Transpose(Symbol("W", 2)), Symbol("y", 2))), Naming("k", 1))
        'W_{k+1}ᵀ y_{k+1}'
    """
    return _text(layout, naming)


def _subscript(index: str) -> str:
    return f"_{index}" if len(index) == 1 or index.isdigit() else f"_{{{index}}}"


@singledispatch
def _text(layout: Layout, naming: Naming) -> str:
    return _STYLE.by_pattern(layout, naming)


_STYLE = Style(
    name="text",
    write=_text,
    brackets="({})",
    number=number_text,
    minus="−",
    times=" ",
    patterns=MappingProxyType(
        {
            Diagonal: "diag({operand})",
            Inner: "⟨{left}, {right}⟩",
            CubeRoot: "|{operand}|^⅓",
            Mean: "mean_p({operand})",
            Derivative: "∂{of}/∂{by}",
            Solved: "{rhs}, for {unknown} by {by}",
        }
    ),
)
_within = _STYLE.within


@_text.register
def _(layout: Symbol, naming: Naming) -> str:
    letters = symbol_text(layout.family)
    own = NUMBERS if layout.fixed else naming
    return letters if layout.index is None else letters + _subscript(own.text(layout.index))


@_text.register
def _(layout: Constant, naming: Naming) -> str:
    return _CONSTANTS.get(layout.name, layout.name)


@_text.register
def _(layout: Function, naming: Naming) -> str:
    primes = "'" * layout.order if layout.order <= 3 else f"^({layout.order})"
    return f"F{_subscript(naming.text(layout.index))}{primes}({_text(layout.argument, naming)})"


@_text.register
def _(layout: Named, naming: Naming) -> str:
    return f"{layout.name}({', '.join(_text(argument, naming) for argument in layout.arguments)})"


@_text.register
def _(layout: Scalar, naming: Naming) -> str:
    table = {name: _within(argument, naming, ATOM_LEVEL) for name, argument in layout.arguments}
    symbols = {
        symbol: sympy.Symbol(table[symbol.name], real=True)
        for symbol in layout.expression.free_symbols
        if symbol.name in table
    }
    return _single_parentheses(unicode(layout.expression.xreplace(symbols)).replace("-", "−"))


def _single_parentheses(line: str) -> str:
    """The text with ``((…))`` written ``(…)``."""
    closing: dict[int, int] = {}
    opened: list[int] = []
    for position, letter in enumerate(line):
        if letter == "(":
            opened.append(position)
        elif letter == ")" and opened:
            closing[opened.pop()] = position
    drop = {
        place
        for start, end in closing.items()
        if closing.get(start + 1) == end - 1
        for place in (start + 1, end - 1)
    }
    return "".join(letter for position, letter in enumerate(line) if position not in drop)


@_text.register
def _(layout: Sum, naming: Naming) -> str:
    return " ".join(_STYLE.terms(layout, naming))


@_text.register
def _(layout: Product, naming: Naming) -> str:
    return " ".join(_within(factor, naming, PRODUCT_LEVEL) for factor in layout.factors)


@_text.register
def _(layout: Hadamard, naming: Naming) -> str:
    return " ∘ ".join(_within(factor, naming, ATOM_LEVEL) for factor in layout.factors)


@_text.register
def _(layout: Quotient, naming: Naming) -> str:
    above = _within(layout.numerator, naming, PRODUCT_LEVEL)
    below = _within(layout.denominator, naming, ATOM_LEVEL)
    return f"{above} {'⊘' if layout.entrywise else '/'} {below}"


@_text.register
def _(layout: Transpose | Inverse, naming: Naming) -> str:
    return f"{_within(layout.operand, naming, ATOM_LEVEL)}{'ᵀ' if isinstance(layout, Transpose) else '⁻¹'}"


@_text.register
def _(layout: Norm, naming: Naming) -> str:
    mark = {"2": "", "squared": "²", "cubed": "³", "max": "_∞"}[layout.kind]
    return f"‖{_text(layout.operand, naming)}‖{mark}"


@_text.register
def _(layout: Total, naming: Naming) -> str:
    members = range_text(layout.members, naming.at if naming.letter == "n" else None).replace(" = ", "=")
    return f"Σ_{{{members}}} {_within(layout.body, Naming('k', layout.anchor), PRODUCT_LEVEL)}"


@_text.register
def _(layout: Contraction, naming: Naming) -> str:
    return f"Σ{_subscript(','.join(layout.labels))} {_within(layout.body, naming, PRODUCT_LEVEL)}"


@_text.register
def _(layout: Indexed, naming: Naming) -> str:
    return f"{_within(layout.operand, naming, ATOM_LEVEL)}[{','.join(layout.labels)}]"


@_text.register
def _(layout: Equal, naming: Naming) -> str:
    return " = ".join(_text(part, naming) for part in layout.parts)


@_text.register
def _(layout: Minimiser, naming: Naming) -> str:
    return f"argmin{_subscript(_text(layout.unknown, naming))} {_text(layout.body, naming)}"
