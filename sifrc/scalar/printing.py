"""Scalar expressions as code: NumPy and Torch (vectorised), Numba (one number at a time).

The printers decide nothing about the mathematics: they print the stable form they are given.
Constants are folded to one literal. In Numba every literal is wrapped in the caller's dtype cast,
because a bare literal turns float32 into float64; functions come from NumPy there, since ``math.exp``
raises on overflow where the same code runs without the JIT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import sympy
from sympy import Expr, Symbol
from sympy.logic.boolalg import Boolean

from sifrc.errors import BackendError
from sifrc.scalar.code_printer import CodePrinter, VectorPrinter
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


class NumpyPrinter(VectorPrinter):
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


class TorchPrinter(VectorPrinter):
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

    def _print_tanh_backward(self, expr: sympy.Function) -> str:
        return self._backward("tanh", expr)

    def _print_elu_backward(self, expr: sympy.Function) -> str:
        slope, y = map(self._print, expr.args)
        return f"torch.ops.aten.elu_backward({slope}, 1.0, 1.0, 1.0, True, {y})"

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


class NumbaPrinter(CodePrinter):
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
        return CodePrinter.function(self, name)


def is_single(real: str) -> bool:
    """Whether a cast is to single precision, where functions of our own stand for the C library's."""
    return real == "np.float32"


def _symbol_first(expr: Expr) -> tuple[Expr, Expr]:
    bound, value = sorted(expr.args, key=lambda argument: not argument.is_number)
    return value, bound


_PRINTERS: Mapping[Dialect, type[CodePrinter]] = MappingProxyType(
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
