"""Notation as LaTeX, with the commands of amsmath only."""

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
from sifrc.report.symbols import symbol_latex
from sifrc.scalar import latex as scalar_latex

__all__ = ["latex", "range_latex", "term_codes"]

_CONSTANTS = {"ones": r"\mathbf{1}", "identity": "I"}


def latex(layout: Layout, naming: Naming = NUMBERS) -> str:
    """The notation as LaTeX, for math mode.

    Example:
        >>> print(latex(Product((Transpose(Symbol("W", 2)), Symbol("y", 2))), Naming("k", 1)))
        W_{k+1}^{\\top} \\, y_{k+1}
    """
    return _latex(layout, naming)


def range_latex(words: str) -> str:
    """A range written by :func:`~sifrc.report.indices.range_text` in LaTeX.

    Example:
        >>> print(range_latex("k = 1..n−1"))
        k = 1, \\dots, n-1
    """
    return words.replace("−", "-").replace("..", r", \dots, ").replace("…", r"\dots")


def term_codes(layout: Layout, naming: Naming) -> list[str]:
    """The terms of a sum, each with its sign, where a long line may be broken; else one piece."""
    if isinstance(layout, Equal):
        first, *rest = layout.parts
        return [*term_codes(first, naming), *(f"= {_latex(part, naming)}" for part in rest)]
    return _STYLE.terms(layout, naming) if isinstance(layout, Sum) else [_latex(layout, naming)]


def _number(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    if value.denominator > 10_000:
        return f"{float(value):.6g}"
    return rf"\tfrac{{{value.numerator}}}{{{value.denominator}}}"


def _raised(layout: Layout, naming: Naming) -> str:
    """What can take an exponent: TeX refuses a second one without braces around the first."""
    body = _within(layout, naming, ATOM_LEVEL)
    return f"{{{body}}}" if isinstance(layout, Symbol | Scalar) and "^" in body else body


def _index(index: int, naming: Naming) -> str:
    return naming.text(index).replace("−", "-")


@singledispatch
def _latex(layout: Layout, naming: Naming) -> str:
    return _STYLE.by_pattern(layout, naming)


_STYLE = Style(
    name="LaTeX",
    write=_latex,
    brackets=r"\left( {} \right)",
    number=_number,
    minus="-",
    times=r" \, ",
    patterns=MappingProxyType(
        {
            Diagonal: r"\operatorname{{diag}}\left( {operand} \right)",
            Inner: r"\left\langle {left}, {right} \right\rangle",
            CubeRoot: r"\left| {operand} \right|^{{1/3}}",
            Mean: r"\operatorname{{mean}}_{{p}}\left( {operand} \right)",
            Derivative: r"\frac{{\partial {of}}}{{\partial {by}}}",
            Solved: r"{rhs} \quad \text{{for }} {unknown} \text{{ by {by}}}",
        }
    ),
)
_within = _STYLE.within


@_latex.register
def _(layout: Symbol, naming: Naming) -> str:
    code = symbol_latex(layout.family)
    own = NUMBERS if layout.fixed else naming
    return code if layout.index is None else f"{code}_{{{_index(layout.index, own)}}}"


@_latex.register
def _(layout: Constant, naming: Naming) -> str:
    return _CONSTANTS.get(layout.name, layout.name)


@_latex.register
def _(layout: Function, naming: Naming) -> str:
    primes = "'" * layout.order if layout.order <= 3 else f"^{{({layout.order})}}"
    return f"F_{{{_index(layout.index, naming)}}}{primes}({_latex(layout.argument, naming)})"


@_latex.register
def _(layout: Named, naming: Naming) -> str:
    arguments = ", ".join(_latex(argument, naming) for argument in layout.arguments)
    name = layout.name.replace(" ", r"\ ")
    return rf"\operatorname{{{name}}}\left( {arguments} \right)"


@_latex.register
def _(layout: Scalar, naming: Naming) -> str:
    table = {name: f"{{{_within(argument, naming, ATOM_LEVEL)}}}" for name, argument in layout.arguments}
    symbols = {
        symbol: sympy.Symbol(table[symbol.name], real=True)
        for symbol in layout.expression.free_symbols
        if symbol.name in table
    }
    return scalar_latex(layout.expression.xreplace(symbols))


@_latex.register
def _(layout: Sum, naming: Naming) -> str:
    return " ".join(term_codes(layout, naming))


@_latex.register
def _(layout: Product, naming: Naming) -> str:
    return r" \, ".join(_within(factor, naming, PRODUCT_LEVEL) for factor in layout.factors)


@_latex.register
def _(layout: Hadamard, naming: Naming) -> str:
    return r" \circ ".join(_within(factor, naming, ATOM_LEVEL) for factor in layout.factors)


@_latex.register
def _(layout: Quotient, naming: Naming) -> str:
    if layout.entrywise:
        above = _within(layout.numerator, naming, PRODUCT_LEVEL)
        return rf"{above} \oslash {_within(layout.denominator, naming, ATOM_LEVEL)}"
    return rf"\frac{{{_latex(layout.numerator, naming)}}}{{{_latex(layout.denominator, naming)}}}"


@_latex.register
def _(layout: Transpose | Inverse, naming: Naming) -> str:
    mark = r"\top" if isinstance(layout, Transpose) else "-1"
    return f"{_raised(layout.operand, naming)}^{{{mark}}}"


@_latex.register
def _(layout: Norm, naming: Naming) -> str:
    mark = {"2": "", "squared": "^{2}", "cubed": "^{3}", "max": r"_{\infty}"}[layout.kind]
    return rf"\left\| {_latex(layout.operand, naming)} \right\|{mark}"


@_latex.register
def _(layout: Total, naming: Naming) -> str:
    members = range_latex(range_text(layout.members, naming.at if naming.letter == "n" else None))
    return rf"\sum_{{{members}}} {_within(layout.body, Naming('k', layout.anchor), PRODUCT_LEVEL)}"


@_latex.register
def _(layout: Contraction, naming: Naming) -> str:
    return rf"\sum_{{{', '.join(layout.labels)}}} {_within(layout.body, naming, PRODUCT_LEVEL)}"


@_latex.register
def _(layout: Indexed, naming: Naming) -> str:
    return rf"\left[ {_latex(layout.operand, naming)} \right]_{{{' '.join(layout.labels)}}}"


@_latex.register
def _(layout: Equal, naming: Naming) -> str:
    return " = ".join(_latex(part, naming) for part in layout.parts)


@_latex.register
def _(layout: Minimiser, naming: Naming) -> str:
    unknown, body = _latex(layout.unknown, naming), _latex(layout.body, naming)
    return rf"\operatorname*{{arg\,min}}_{{{unknown}}} {body}"
