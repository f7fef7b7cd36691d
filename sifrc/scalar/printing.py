"""Scalar expressions as code: NumPy and Torch (vectorised), Numba (one number at a time).

The printers decide nothing about the mathematics: they print the stable form they are given.
Constants are folded to one literal. In Numba every literal is wrapped in the caller's dtype cast,
because a bare literal turns float32 into float64; functions come from NumPy there, since ``math.exp``
raises on overflow where the same code runs without the JIT.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, TypeAlias

import sympy
from sympy import Add, Expr, Mul, Piecewise, Pow, Symbol
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

from sifrc.errors import BackendError
from sifrc.scalar.evaluate import constant
from sifrc.scalar.fused import Tensors, fused
from sifrc.scalar.guards import guard_branches
from sifrc.scalar.single import SINGLE_FUNCTIONS

__all__ = ["Code", "Dialect", "is_single", "print_code", "torch_form"]

Dialect: TypeAlias = Literal["numpy", "numba", "cuda", "torch"]

_NUMPY_NAMES = {
    "asinh": "arcsinh",
    "atan": "arctan",
    "absolute": "abs",
    "signum": "sign",
} | {name: name for name in ("exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "expm1", "log1p")}

_HELPERS = MappingProxyType({"sigmoid": "_sigmoid", "softplus": "_softplus", "power_of_two": "_power_below"})


@dataclass(frozen=True)
class Code:
    """A printed expression.

    Args:
        text: the expression.
        helpers: names of the helper functions it calls, sorted; see
            :func:`sifrc.scalar.helpers.helpers`.
    """

    text: str
    helpers: tuple[str, ...] = ()


class _CodePrinter(StrPrinter):  # type: ignore[misc]
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
        for term in expr.as_ordered_terms():
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
        parts = [self.parenthesize(factor, PRECEDENCE["Mul"]) for factor in above]
        if abs(value) != 1 or not parts:
            parts.insert(0, self.literal(abs(value)))
        text = sign + "*".join(parts)
        if not below:
            return text
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


class _VectorPrinter(_CodePrinter):
    """Arrays: both branches of a choice are computed, so they are guarded first."""

    module: ClassVar[str]

    def prepare(self, expression: Expr) -> Expr:
        return guard_branches(expression)

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


class NumpyPrinter(_VectorPrinter):
    """Arrays of NumPy; ``special`` is ``scipy.special``."""

    module = "np"
    functions = MappingProxyType(
        {name: f"np.{code}" for name, code in _NUMPY_NAMES.items()}
        | {"sqrt": "np.sqrt", "erf": "special.erf", "erfc": "special.erfc"}
    )
    helpers_by_function = _HELPERS

    def _print_Min(self, expr: sympy.Min) -> str:
        return f"np.minimum({', '.join(map(self._print, _symbol_first(expr)))})"

    def _print_Max(self, expr: sympy.Max) -> str:
        return f"np.maximum({', '.join(map(self._print, _symbol_first(expr)))})"


class TorchPrinter(_VectorPrinter):
    """Tensors of Torch, float64, float32 and bfloat16."""

    module = "torch"
    nan = "torch.nan"
    functions = MappingProxyType(
        {name: f"torch.{name}" for name in _NUMPY_NAMES}
        | {"absolute": "torch.abs", "sqrt": "torch.sqrt"}
        | {name: f"torch.{name}" for name in ("erf", "erfc", "sigmoid", "relu", "rsqrt")}
        | {name: f"torch.nn.functional.{name}" for name in ("gelu", "leaky_relu", "silu")}
    )
    helpers_by_function = MappingProxyType(
        {"power_of_two": "_power_below", "signum": "_sign", "where_not_positive": "_where_not_positive"}
    )

    def prepare(self, expression: Expr) -> Expr:
        return torch_form(expression, self.tensors, single=self.single)

    def _print_threshold_backward(self, expr: sympy.Function) -> str:
        return self._backward("threshold", expr)

    def _print_gelu_backward(self, expr: sympy.Function) -> str:
        return self._backward("gelu", expr)

    def _print_leaky_relu_backward(self, expr: sympy.Function) -> str:
        return self._backward("leaky_relu", expr, "False")

    def _backward(self, name: str, expr: sympy.Function, *more: str) -> str:
        """A derivative times the first argument, which may be one."""
        slope, x, *rest = expr.args
        first = f"torch.ones_like({self._print(x)})" if slope == 1 else self._print(slope)
        arguments = [first, *map(self._print, (x, *rest)), *more]
        return f"torch.ops.aten.{name}_backward({', '.join(arguments)})"

    def _print_elu(self, expr: sympy.Function) -> str:
        x, slope = expr.args
        return f"torch.nn.functional.elu({', '.join(map(self._print, (x, slope) if slope != 1 else (x,)))})"

    def _print_softplus(self, expr: sympy.Function) -> str:
        """Above 40, x itself: exp(−40)/40 is below the rounding error of float64 (not so at torch's 20)."""
        return f"torch.nn.functional.softplus({self._print(expr.args[0])}, threshold=40.0)"

    def _print_Min(self, expr: sympy.Min) -> str:
        value, bound = _symbol_first(expr)
        return f"torch.clamp({self._print(value)}, max={self._print(bound)})"

    def _print_Max(self, expr: sympy.Max) -> str:
        value, bound = _symbol_first(expr)
        return f"torch.clamp({self._print(value)}, min={self._print(bound)})"


def torch_form(expression: Expr, tensors: Tensors, *, single: bool) -> Expr:
    """The expression in functions of Torch, with branches that may both be computed."""
    return fused(guard_branches(expression), tensors, single=single)


class NumbaPrinter(_CodePrinter):
    """Scalars in Numba: conditional expressions are lazy, literals carry the dtype."""

    functions = MappingProxyType(
        {name: f"np.{code}" for name, code in _NUMPY_NAMES.items()}
        | {"sqrt": "np.sqrt", "erf": "math.erf", "erfc": "math.erfc", "absolute": "abs"}
    )
    helpers_by_function = _HELPERS

    def literal(self, value: float) -> str:
        return f"{self.real}({value!r})"

    def no_number(self) -> str:
        return f"{self.real}({self.nan})"

    def _print_undefined(self, expr: sympy.Function) -> str:
        return self.no_number()

    def function(self, name: str) -> str:
        if is_single(self.real) and name in SINGLE_FUNCTIONS:
            return self.helper(SINGLE_FUNCTIONS[name])
        return super().function(name)

    def integer_power(self, base: Expr, exponent: int) -> str:
        """Products: a float32 to an integer power is a float64 or a call of pow."""
        if isinstance(base, Symbol) and exponent <= 4:
            return "(" + "*".join([self._print(base)] * exponent) + ")"
        if exponent <= 64:
            return f"{self.helper(f'_power{exponent}')}({self._print(base)})"
        return f"{self._atom(base)}**{self.literal(float(exponent))}"

    def _print_Not(self, expr: sympy.Not) -> str:
        return f"not ({self._print(expr.args[0])})"

    def _print_ITE(self, expr: sympy.ITE) -> str:
        condition, chosen, otherwise = map(self._print, expr.args)
        return f"(({chosen}) if {condition} else ({otherwise}))"

    def choice(self, condition: Boolean, branch: Expr, otherwise: str, *, constant: bool) -> str:
        return f"({self._print(branch)} if {self._print(condition)} else {otherwise})"


class CudaPrinter(NumbaPrinter):
    """Scalars in kernels: functions of the device's own library, in either precision."""

    functions = MappingProxyType(
        {name: f"math.{name}" for name in (*_NUMPY_NAMES, "sqrt", "erf", "erfc")} | {"absolute": "abs"}
    )
    helpers_by_function = MappingProxyType({**_HELPERS, "signum": "_sign"})
    nan = "math.nan"

    def function(self, name: str) -> str:
        return _CodePrinter.function(self, name)


def is_single(real: str) -> bool:
    """Whether a cast is to single precision, where functions of our own stand for the C library's."""
    return real == "np.float32"


def _symbol_first(expr: Expr) -> tuple[Expr, Expr]:
    bound, value = sorted(expr.args, key=lambda argument: not argument.is_number)
    return value, bound


_PRINTERS: Mapping[Dialect, type[_CodePrinter]] = MappingProxyType(
    {"numpy": NumpyPrinter, "numba": NumbaPrinter, "cuda": CudaPrinter, "torch": TorchPrinter}
)


def print_code(
    expression: Expr,
    dialect: Dialect,
    *,
    names: Mapping[str, str] | None = None,
    real: str = "real",
    tensors: Tensors = MappingProxyType({}),
    single: bool = False,
) -> Code:
    """An expression as code.

    Args:
        expression: real scalar expression in stable form, parameter values put in.
        dialect: ``numpy``, ``numba``, ``cuda`` or ``torch``.
        names: code for symbols by name, each a name, a subscript or in parentheses; by default a
            symbol is its own name.
        real: in Numba and CUDA, the name of the cast that wraps every literal, e.g. ``np.float32``.
        tensors: names of symbols that stand for tensors with dimensions, and not for numbers, and the labels
            of these.
        single: in Torch, whether its own functions will do where they have no digits of small values:
            ``gelu`` is right to rounding errors of its argument, which is enough in single precision.

    Raises:
        BackendError: an unknown dialect, or a function the dialect has no code for.

    Example:
        >>> x = sympy.Symbol("x", real=True)
        >>> print_code(1 - sympy.tanh(x) ** 2, "numba", names={"x": "a[i]"})
        Code(text='real(1.0) - _power2(np.tanh(a[i]))', helpers=('_power2',))
        >>> print_code(1 - sympy.tanh(x) ** 2, "torch").text
        '1.0 - torch.tanh(x)**2'
    """
    if dialect not in _PRINTERS:
        raise BackendError(
            f"unknown dialect '{dialect}'", hint="known dialects: " + " ".join(sorted(_PRINTERS))
        )
    printer = _PRINTERS[dialect](names or {}, real, tensors, single)
    text = printer.doprint(printer.prepare(expression))
    return Code(text, tuple(sorted(printer.used)))
