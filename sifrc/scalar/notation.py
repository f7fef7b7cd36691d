"""Scalar expressions for people: LaTeX, and one line of Unicode text."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import sympy
from sympy import Expr, Piecewise
from sympy.printing.latex import LatexPrinter
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

__all__ = ["latex", "unicode"]

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_GREEK = {"alpha": "α", "beta": "β", "delta": "δ", "eps": "ε", "epsilon": "ε", "lambda": "λ", "mu": "μ"}


def _decimal(value: sympy.Rational) -> str | None:
    """Six digits of a rational that nobody wants to read exactly, such as the constants of selu."""
    return f"{float(value):.6g}" if value.q > 10_000 else None


def _named(code: str) -> Callable[..., str]:
    """A printer's method for a function of one argument, with the power behind its name."""

    def method(printer: Any, expr: sympy.Function, exp: str | None = None) -> str:
        power = "" if exp is None else f"^{{{exp}}}"
        return rf"{code}{power}\left({printer._print(expr.args[0])}\right)"

    return method


class _Latex(LatexPrinter):  # type: ignore[misc]
    def _print_Mul(self, expr: sympy.Mul) -> str:
        number, rest = expr.as_coeff_Mul()
        decimal = _decimal(number)
        if decimal is None:
            return str(super()._print_Mul(expr))
        return rf"{decimal} \, {self.parenthesize(rest, PRECEDENCE['Mul'])}"

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return _decimal(expr) or str(super()._print_Rational(expr))

    _print_sigmoid = _named(r"\sigma")
    _print_softplus = _named(r"\operatorname{softplus}")
    _print_signum = _named(r"\operatorname{sign}")
    _print_erfc = _named(r"\operatorname{erfc}")

    def _print_undefined(self, expr: sympy.Function, exp: str | None = None) -> str:
        return r"\text{undefined}"

    def _print_power_of_two(self, expr: sympy.Function, exp: str | None = None) -> str:
        return rf"2^{{\left\lfloor \log_2 {self._print(expr.args[0])} \right\rfloor}}"

    def _print_quotient(self, expr: sympy.Function, exp: str | None = None) -> str:
        return rf"\frac{{{self._print(expr.args[0])}}}{{{self._print(expr.args[1])}}}"

    def _print_expm1(self, expr: sympy.Function, exp: str | None = None) -> str:
        text = rf"\left(e^{{{self._print(expr.args[0])}}} - 1\right)"
        return text if exp is None else f"{text}^{{{exp}}}"

    def _print_log1p(self, expr: sympy.Function, exp: str | None = None) -> str:
        power = "" if exp is None else f"^{{{exp}}}"
        return rf"\log{power}\left(1 + {self._print(expr.args[0])}\right)"

    def _print_absolute(self, expr: sympy.Function, exp: str | None = None) -> str:
        text = rf"\left|{{{self._print(expr.args[0])}}}\right|"
        return text if exp is None else f"{text}^{{{exp}}}"


def _written(pattern: str) -> Callable[[Any, sympy.Function], str]:
    """A printer's method for a function, its arguments in a pattern."""

    def method(printer: Any, expr: sympy.Function) -> str:
        return pattern.format(*map(printer._print, expr.args))

    return method


class _Unicode(StrPrinter):  # type: ignore[misc]
    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        name = str(expr.name)
        return _GREEK.get(name, name)

    def _print_Pi(self, expr: Expr) -> str:
        return "π"

    def _print_Mul(self, expr: sympy.Mul) -> str:
        number, rest = expr.as_coeff_Mul()
        decimal = _decimal(number)
        if decimal is None:
            return str(super()._print_Mul(expr)).replace("*", " ")
        return f"{decimal} {self.parenthesize(rest, PRECEDENCE['Mul'])}"

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return _decimal(expr) or str(super()._print_Rational(expr))

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        base, exponent = expr.args
        if exponent == sympy.S.Half:
            return f"√({self._print(base)})" if not base.is_Atom else f"√{self._print(base)}"
        if exponent.is_Integer and exponent > 1:
            text = self._print(base)
            plain = base.is_Symbol or isinstance(base, sympy.Function)
            return (text if plain else f"({text})") + str(exponent).translate(_SUPERSCRIPTS)
        return str(super()._print_Pow(expr, rational)).replace("**", "^")

    def _print_Piecewise(self, expr: Piecewise) -> str:
        parts = []
        for branch, condition in expr.args:
            test = "otherwise" if condition == sympy.true else f"if {self._print(condition)}"
            parts.append(f"{self._print(branch)} {test}")
        return "{" + "; ".join(parts) + "}"

    def _print_Relational(self, expr: sympy.Rel) -> str:
        sign = {"<=": "≤", ">=": "≥", "!=": "≠", "==": "="}.get(expr.rel_op, expr.rel_op)
        return f"{self._print(expr.lhs)} {sign} {self._print(expr.rhs)}"

    _print_sigmoid = _written("σ({})")
    _print_absolute = _written("|{}|")
    _print_undefined = _written("undefined")
    _print_signum = _written("sign({})")
    _print_power_of_two = _written("2^⌊log₂ {}⌋")
    _print_expm1 = _written("(exp({}) − 1)")
    _print_log1p = _written("log(1 + {})")

    def _print_quotient(self, expr: sympy.Function) -> str:
        above, below = (self.parenthesize(argument, PRECEDENCE["Atom"]) for argument in expr.args)
        return f"({above} / {below})"


@lru_cache(maxsize=1024)
def latex(expression: Expr) -> str:
    """The expression in LaTeX.

    Example:
        >>> from sifrc.scalar.primitives import sigmoid
        >>> print(latex(sigmoid(sympy.Symbol("x", real=True)) ** 2))
        \\sigma^{2}\\left(x\\right)
    """
    return str(_Latex().doprint(expression))


@lru_cache(maxsize=1024)
def unicode(expression: Expr) -> str:
    """The expression as one line of text.

    Example:
        >>> print(unicode(1 - sympy.tanh(sympy.Symbol("x", real=True)) ** 2))
        1 - tanh(x)²
    """
    return str(_Unicode().doprint(expression))
