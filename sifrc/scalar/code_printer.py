"""What the printers of all dialects share: constants folded, products and quotients, no unknown function."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import sympy
from sympy import Add, Expr, Mul, Piecewise, Pow, Symbol
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

from sifrc.errors import BackendError
from sifrc.scalar.evaluate import constant
from sifrc.scalar.fused import Tensors
from sifrc.scalar.guards import guard_branches

__all__ = ["CodePrinter", "VectorPrinter"]


class CodePrinter(StrPrinter):  # type: ignore[misc]
    """What the dialects share: constants folded, products and quotients, no unknown function."""

    functions: ClassVar[Mapping[str, str]]
    nan: ClassVar[str] = "np.nan"
    conjunction: ClassVar[str] = "and"
    disjunction: ClassVar[str] = "or"
    helpers_by_function: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init__(
        self,
        names: Mapping[str, str],
        real: str,
        tensors: Tensors = MappingProxyType({}),
        single: bool = False,
    ) -> None:
        super().__init__()
        self.names = names
        self.tensors = tensors
        self.real = real
        self.single = single
        self.used: set[str] = set()

    def literal(self, value: float) -> str:
        return repr(value)

    def no_number(self) -> str:
        """What stands for the value of what has none."""
        return self.nan

    def helper(self, name: str) -> str:
        self.used.add(name)
        return name

    def prepare(self, expression: Expr) -> Expr:
        return expression

    def ordered(self, operands: list[Expr]) -> list[Expr]:
        """Factors or terms in the order in which they are computed."""
        return operands

    def _print(self, expr: Expr, **kwargs: object) -> str:
        if isinstance(expr, Expr) and expr.is_number:
            value = constant(expr)
            if math.isnan(value):
                return self.no_number()
            return ("-" if value < 0 else "") + self.literal(abs(value))
        return str(super()._print(expr, **kwargs))

    def _print_Symbol(self, expr: Symbol) -> str:
        return self.names.get(expr.name, expr.name)

    def _print_Function(self, expr: sympy.Function) -> str:
        name = type(expr).__name__
        arguments = ", ".join(self._print(argument) for argument in expr.args)
        return f"{self.function(name)}({arguments})"

    def function(self, name: str) -> str:
        """What is called for a function."""
        if name in self.helpers_by_function:
            return self.helper(self.helpers_by_function[name])
        if name in self.functions:
            return self.functions[name]
        raise BackendError(f"no code for the function '{name}'")

    def _print_quotient(self, expr: sympy.Function) -> str:
        above, below = expr.args
        return f"({self.parenthesize(above, PRECEDENCE['Mul'])}/{self._atom(below)})"

    def _print_undefined(self, expr: sympy.Function) -> str:
        """Not a number, of the dtype and shape that a function of the arguments has."""
        texts = [self.parenthesize(argument, PRECEDENCE["Add"]) for argument in expr.args]
        return f"{texts[0] if len(texts) == 1 else '(' + ' + '.join(texts) + ')'}*{self.nan}"

    def _print_Abs(self, expr: sympy.Abs) -> str:
        """What SymPy makes of the root of a square."""
        return f"{self.function('absolute')}({self._print(expr.args[0])})"

    # StrPrinter has methods of its own for these; they are plain functions here.
    _print_exp = _print_Function
    _print_log = _print_Function

    def emptyPrinter(self, expr: object) -> str:
        raise BackendError(f"no code for '{type(expr).__name__}'")

    def _print_Add(self, expr: Add, order: object = None) -> str:
        text = ""
        for term in self.ordered(expr.as_ordered_terms()):
            printed = self._print(term)
            sign, body = ("-", printed[1:]) if printed.startswith("-") else ("+", printed)
            text = f"{text} {sign} {body}" if text else printed
        return text

    def _print_Mul(self, expr: Mul) -> str:
        numbers = [factor for factor in expr.args if factor.is_number]
        above: list[Expr] = []
        below: list[Expr] = []
        for factor in expr.args:
            if factor.is_number:
                continue
            exponent = factor.as_base_exp()[1]
            inverted = not isinstance(factor, sympy.exp) and exponent.could_extract_minus_sign()
            (below if inverted else above).append(1 / factor if inverted else factor)
        value = constant(Mul(*numbers))
        sign = "-" if value < 0 else ""
        parts = [self.parenthesize(factor, PRECEDENCE["Mul"]) for factor in self.ordered(above)]
        if abs(value) != 1 or not parts:
            parts.insert(0, self.literal(abs(value)))
        text = sign + "*".join(parts)
        if not below:
            return text
        below = self.ordered(below)
        denominator = "*".join(self.parenthesize(factor, PRECEDENCE["Mul"]) for factor in below)
        return f"{text}/({denominator})" if len(below) > 1 else f"{text}/{self._atom(below[0])}"

    def _atom(self, expr: Expr) -> str:
        """The text, in parentheses unless it binds tighter than any operator."""
        text = self._print(expr)
        return text if isinstance(expr, (Symbol, sympy.Function)) else f"({text})"

    def _print_Pow(self, expr: Pow, rational: bool = False) -> str:
        base, exponent = expr.args
        if exponent.could_extract_minus_sign():
            return f"{self.literal(1.0)}/{self._atom(1 / expr)}"
        if exponent == sympy.S.Half:
            return f"{self.functions['sqrt']}({self._print(base)})"
        if exponent.is_Integer:
            return self.integer_power(base, int(exponent))
        power = self._print(exponent) if exponent.is_number else self._atom(exponent)
        return f"{self._atom(base)}**{power}"

    def integer_power(self, base: Expr, exponent: int) -> str:
        return f"{self._atom(base)}**{exponent}"

    def _print_And(self, expr: sympy.And) -> str:
        return f" {self.conjunction} ".join(f"({self._print(argument)})" for argument in expr.args)

    def _print_Or(self, expr: sympy.Or) -> str:
        return f" {self.disjunction} ".join(f"({self._print(argument)})" for argument in expr.args)

    def _print_Relational(self, expr: Relational) -> str:
        return f"{self._print(expr.lhs)} {expr.rel_op} {self._print(expr.rhs)}"

    def _print_Piecewise(self, expr: Piecewise) -> str:
        (last, always) = expr.args[-1]
        if always != sympy.true:
            raise BackendError("a piecewise expression has no last branch for the remaining cases")
        text = self._print(last)
        number = last.is_number
        for branch, condition in reversed(expr.args[:-1]):
            text = self.choice(condition, branch, text, constant=number)
            number = False
        return text

    def choice(self, condition: Boolean, branch: Expr, otherwise: str, *, constant: bool) -> str:
        raise NotImplementedError


class VectorPrinter(CodePrinter):
    """Arrays: both branches of a choice are computed, so they are guarded first."""

    module: ClassVar[str]

    def prepare(self, expression: Expr) -> Expr:
        return guard_branches(expression)

    def ordered(self, operands: list[Expr]) -> list[Expr]:
        """What has fewer axes first: small arrays with each other, and once with large ones."""
        by_axes = iter(sorted((o for o in operands if not o.is_number), key=lambda o: len(self.axes_of(o))))
        return [operand if operand.is_number else next(by_axes) for operand in operands]

    def axes_of(self, operand: Expr) -> set[str]:
        """Labels of the axes that an operand has."""
        return {label for symbol in operand.free_symbols for label in self.tensors.get(symbol.name, ())}

    conjunction, disjunction = "&", "|"

    def _print_Not(self, expr: sympy.Not) -> str:
        return f"~({self._print(expr.args[0])})"

    def _print_ITE(self, expr: sympy.ITE) -> str:
        """A condition by cases, as SymPy makes of a comparison with a clamped argument."""
        condition, chosen, otherwise = (f"({self._print(argument)})" for argument in expr.args)
        if expr.args[1] in (sympy.true, sympy.false):
            return f"{condition} | {otherwise}" if expr.args[1] else f"~{condition} & {otherwise}"
        if expr.args[2] in (sympy.true, sympy.false):
            return f"~{condition} | {chosen}" if expr.args[2] else f"{condition} & {chosen}"
        return f"({condition} & {chosen}) | (~{condition} & {otherwise})"

    def choice(self, condition: Boolean, branch: Expr, otherwise: str, *, constant: bool) -> str:
        if constant and branch.is_number:
            # Two bare numbers would give the default dtype instead of the argument's.
            like = min((self._print(s) for s in condition.free_symbols), default="x")
            otherwise = f"{self.module}.full_like({like}, {otherwise})"
        return f"{self.module}.where({self._print(condition)}, {self._print(branch)}, {otherwise})"
