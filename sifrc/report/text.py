"""Notation as one line of Unicode text."""

from __future__ import annotations

from fractions import Fraction
from functools import singledispatch

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
from sifrc.report.symbols import symbol_text
from sifrc.scalar import unicode

__all__ = ["SUM_LEVEL", "level_of", "number_text", "text"]

SUM_LEVEL, HADAMARD_LEVEL, PRODUCT_LEVEL, ATOM_LEVEL = range(4)

_CONSTANTS = {"ones": "𝟏", "identity": "I"}


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


def _within(layout: Layout, naming: Naming, level: int) -> str:
    body = _text(layout, naming)
    return body if level_of(layout) >= level else f"({body})"


def _subscript(index: str) -> str:
    return f"_{index}" if len(index) == 1 or index.isdigit() else f"_{{{index}}}"


@singledispatch
def _text(layout: Layout, naming: Naming) -> str:
    raise TypeError(f"no text for {type(layout).__name__}")


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
    out = ""
    for factor, term in layout.terms:
        out += (" − " if factor < 0 else " + ") if out else ("−" if factor < 0 else "")
        size = abs(factor)
        body = _within(term, naming, HADAMARD_LEVEL if size == 1 else PRODUCT_LEVEL)
        if size == 1:
            out += body
        elif isinstance(term, Constant) and term.name == "1":
            out += number_text(size)
        else:
            out += f"{number_text(size)} {body}"
    return out


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
def _(layout: Transpose, naming: Naming) -> str:
    return f"{_within(layout.operand, naming, ATOM_LEVEL)}ᵀ"


@_text.register
def _(layout: Inverse, naming: Naming) -> str:
    return f"{_within(layout.operand, naming, ATOM_LEVEL)}⁻¹"


@_text.register
def _(layout: Diagonal, naming: Naming) -> str:
    return f"diag({_text(layout.operand, naming)})"


@_text.register
def _(layout: Inner, naming: Naming) -> str:
    return f"⟨{_text(layout.left, naming)}, {_text(layout.right, naming)}⟩"


@_text.register
def _(layout: Norm, naming: Naming) -> str:
    mark = {"2": "", "squared": "²", "cubed": "³", "max": "_∞"}[layout.kind]
    return f"‖{_text(layout.operand, naming)}‖{mark}"


@_text.register
def _(layout: CubeRoot, naming: Naming) -> str:
    return f"|{_text(layout.operand, naming)}|^⅓"


@_text.register
def _(layout: Mean, naming: Naming) -> str:
    return f"mean_p({_text(layout.operand, naming)})"


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
def _(layout: Derivative, naming: Naming) -> str:
    return f"∂{_text(layout.of, naming)}/∂{_text(layout.by, naming)}"


@_text.register
def _(layout: Equal, naming: Naming) -> str:
    return " = ".join(_text(part, naming) for part in layout.parts)


@_text.register
def _(layout: Solved, naming: Naming) -> str:
    return f"{_text(layout.rhs, naming)}, for {_text(layout.unknown, naming)} by {layout.by}"


@_text.register
def _(layout: Minimiser, naming: Naming) -> str:
    return f"argmin{_subscript(_text(layout.unknown, naming))} {_text(layout.body, naming)}"
