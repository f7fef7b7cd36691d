"""Values of scalar expressions on arrays: float64 (or float32) through NumPy, any precision through mpmath.

A recursive visitor; no code is generated. ``where`` evaluates each branch only at the elements that
take it, so that an overflow in the other branch cannot happen.
"""

from __future__ import annotations

import functools
import importlib
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import singledispatchmethod
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import mpmath
import numpy as np
import sympy
from sympy import Add, Expr, Mul, Piecewise, Pow, Symbol
from sympy.logic.boolalg import ITE, And, Boolean, BooleanFalse, BooleanTrue, Not, Or

from sifrc.errors import BackendError
from sifrc.scalar import primitives as p

__all__ = ["EvaluationDialect", "constant", "evaluate"]

EvaluationDialect: TypeAlias = Literal["numpy", "mpmath"]
Array: TypeAlias = Any


def _power_of_two(x: Array) -> Array:
    x = np.asarray(x)
    inside = np.minimum(x, np.finfo(x.dtype).max)
    return np.where(x > 0, np.ldexp(x.dtype.type(0.5), np.frexp(inside)[1]), x.dtype.type(1))


def _mp_power_of_two(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.ldexp(1, int(mpmath.frexp(x)[1]) - 1) if x > 0 else mpmath.mpf(1)


def _real(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function where its value is real, and not a number elsewhere, as at poles."""

    def call(*arguments: Any) -> Any:
        try:
            value = function(*arguments)
        except ZeroDivisionError:
            return mpmath.nan
        return mpmath.nan if isinstance(value, mpmath.mpc) else value

    return call


def _special(name: str) -> Callable[[Array], Array]:
    """A function of ``scipy.special``, imported when first called: the import takes longer than most uses."""

    def call(values: Array) -> Array:
        return getattr(importlib.import_module("scipy.special"), name)(values)

    return call


def _elementwise(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
    ufunc: Callable[[Array], Array] = np.frompyfunc(function, 1, 1)
    return ufunc


_ALIKE = (sympy.exp, sympy.sin, sympy.cos, sympy.tan, sympy.sinh, sympy.cosh, sympy.tanh)
"""Functions that have the same name in SymPy, NumPy and mpmath."""

_FUNCTIONS: Mapping[str, Mapping[type[Expr], Callable[..., Array]]] = MappingProxyType(
    {
        "numpy": MappingProxyType(
            {kind: getattr(np, kind.__name__) for kind in (sympy.log, *_ALIKE)}
            | {
                sympy.asinh: np.arcsinh,
                sympy.atan: np.arctan,
                sympy.erf: _special("erf"),
                p.erfc: _special("erfc"),
                p.expm1: np.expm1,
                p.log1p: np.log1p,
                p.sigmoid: _special("expit"),
                p.softplus: lambda x: np.logaddexp(x, 0.0),
                p.absolute: np.abs,
                p.signum: np.sign,
                p.power_of_two: _power_of_two,
                p.quotient: operator.truediv,
                p.undefined: lambda *x: functools.reduce(operator.add, x) * np.nan,
            }
        ),
        "mpmath": MappingProxyType(
            {
                kind: _elementwise(getattr(mpmath, kind.__name__))
                for kind in (*_ALIKE, sympy.asinh, sympy.atan, sympy.erf)
            }
            | {
                kind: _elementwise(kind.number)
                for kind in (p.erfc, p.expm1, p.sigmoid, p.softplus, p.absolute, p.signum)
            }
            | {
                sympy.log: _elementwise(_real(mpmath.log)),
                p.log1p: _elementwise(_real(p.log1p.number)),
                p.power_of_two: _elementwise(_mp_power_of_two),
                p.quotient: operator.truediv,
                p.undefined: lambda *x: functools.reduce(operator.add, x) * mpmath.nan,
            }
        ),
    }
)

_COMPARISONS: Mapping[type[Boolean], Callable[[Any, Any], Any]] = MappingProxyType(
    {
        sympy.StrictGreaterThan: operator.gt,
        sympy.GreaterThan: operator.ge,
        sympy.StrictLessThan: operator.lt,
        sympy.LessThan: operator.le,
        sympy.Equality: operator.eq,
        sympy.Unequality: operator.ne,
    }
)


@dataclass
class _Evaluation:
    """One evaluation: arrays of one common shape by symbol name, and the values found so far."""

    values: Mapping[str, Array]
    shape: tuple[int, ...]
    dialect: EvaluationDialect
    known: dict[Expr, Array] = field(default_factory=dict)

    def __call__(self, node: Expr) -> Array:
        if node not in self.known:
            self.known[node] = self.number(node) if node.is_number else self.visit(node)
        return self.known[node]

    def number(self, node: Expr) -> Array:
        if isinstance(node, sympy.Rational):
            return node.p / node.q if self.dialect == "numpy" else mpmath.mpf(node.p) / node.q
        if self.dialect == "numpy":
            return constant(node)
        return +mpmath.pi if node is sympy.pi else mpmath.e() if node is sympy.E else self.visit(node)

    @singledispatchmethod
    def visit(self, node: Expr) -> Array:
        raise BackendError(f"cannot evaluate the function '{type(node).__name__}'")

    @visit.register
    def _symbol(self, node: Symbol) -> Array:
        if node.name not in self.values:
            raise BackendError(f"no value was given for '{node.name}'")
        return self.values[node.name]

    @visit.register
    def _add(self, node: Add) -> Array:
        return functools.reduce(operator.add, map(self, node.args))

    @visit.register
    def _mul(self, node: Mul) -> Array:
        return functools.reduce(operator.mul, map(self, node.args))

    @visit.register
    def _pow(self, node: Pow) -> Array:
        base, exponent = node.args
        if self.dialect == "mpmath" and not (exponent.is_Integer and exponent > 0):
            return np.frompyfunc(_real(operator.pow), 2, 1)(self(base), self(exponent))
        if exponent == sympy.S.NegativeOne:
            return 1 / self(base)
        if exponent.is_Integer:
            return self(base) ** int(exponent)
        return self(base) ** self(exponent)

    @visit.register
    def _function(self, node: sympy.Function) -> Array:
        function = _FUNCTIONS[self.dialect].get(node.func)
        if function is None:
            raise BackendError(f"cannot evaluate the function '{type(node).__name__}'")
        return function(*map(self, node.args))

    @visit.register
    def _piecewise(self, node: Piecewise) -> Array:
        result: Array | None = None
        free = np.ones(self.shape, dtype=bool)
        for branch, condition in node.args:
            chosen = free & self.condition(condition)
            taken = {name: value[chosen] for name, value in self.values.items()}
            inner = _Evaluation(taken, (int(np.count_nonzero(chosen)),), self.dialect)
            found = np.asarray(inner(branch), dtype=self.dtype)
            if result is None:
                result = np.zeros(self.shape, dtype=self.dtype)
            result[chosen] = found
            free &= ~chosen
        return result

    @property
    def dtype(self) -> np.dtype[Any]:
        if self.dialect == "mpmath":
            return np.dtype(object)
        return np.result_type(*self.values.values()) if self.values else np.dtype(float)

    def condition(self, node: Boolean) -> Array:
        if isinstance(node, (BooleanTrue, BooleanFalse)):
            return np.full(self.shape, bool(node))
        if isinstance(node, (And, Or)):
            join = operator.and_ if isinstance(node, And) else operator.or_
            return functools.reduce(join, map(self.condition, node.args))
        if isinstance(node, Not):
            return ~self.condition(node.args[0])
        if isinstance(node, ITE):
            return np.where(*map(self.condition, node.args))
        if type(node) not in _COMPARISONS:
            raise BackendError(f"cannot evaluate the condition '{node}'")
        left, right = node.args
        compared = np.asarray(_COMPARISONS[type(node)](self(left), self(right)), dtype=bool)
        return np.broadcast_to(compared, self.shape)


def evaluate(expression: Expr, values: Mapping[str, Array], dialect: EvaluationDialect = "numpy") -> Array:
    """The value of an expression.

    Args:
        expression: real scalar expression, parameter values put in.
        values: a number or an array for each symbol by name; shapes broadcast. For ``mpmath`` numbers
            are mpf and arrays have dtype object.
        dialect: ``numpy`` (floating arrays; float32 stays float32) or ``mpmath`` (at the precision
            that is in force, ``mpmath.workdps``).

    Returns:
        An array of the common shape; a number if all values are numbers.

    Raises:
        BackendError: a symbol without value, or an unknown function.

    Example:
        >>> from sifrc.scalar.branches import where
        >>> x = sympy.Symbol("x", real=True)
        >>> evaluate(where(x > 0, x, x / 10), {"x": np.array([-1.0, 2.0])})
        array([-0.1,  2. ])
    """
    target: type[Any] | None = object if dialect == "mpmath" else None
    arrays = {name: np.asarray(value, dtype=target) for name, value in values.items()}
    shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
    spread = {name: np.broadcast_to(array, shape) for name, array in arrays.items()}
    evaluation = _Evaluation(spread, shape, dialect)
    result = np.asarray(evaluation(expression), dtype=evaluation.dtype)
    return np.array(np.broadcast_to(result, shape))[()]


def constant(expression: Expr) -> float:
    """The float64 nearest to a constant expression.

    Example:
        >>> constant(sympy.sqrt(2) / 2)
        0.7071067811865476
    """
    with mpmath.workdps(40):
        return float(evaluate(expression, {}, "mpmath"))
