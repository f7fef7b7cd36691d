"""Level 1: a small network expanded to scalars, against SymPy's own differentiation.

Activations, and losses with branches, become opaque functions f, f', f'', …, so that both sides are
rational in finitely many unknowns. Equality is decided in exact rational arithmetic with random values for
the unknowns: a wrong identity passes with a probability below 1e-5. Constants that are not rational enter
with 120 digits, and equality is then one of 100.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import sympy
from sympy import Piecewise, Symbol

from sifrc.derive.derived import Derived
from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import Arithmetic, Array
from sifrc.scalar import evaluate, primitives
from sifrc.scalar.function import ScalarFunction
from sifrc.verify.oracles.network import all_inputs, parameter_shapes
from sifrc.verify.precise.systems import SampleSystems

__all__ = ["Expansion"]

_RANGE = 10**6
_DIGITS, _AGREED = 120, 100
"""Of a comparison at many digits: how many, and how many of them agree."""


class _Opaque(sympy.Function):  # type: ignore[misc]
    """Base of the opaque functions."""


class _SympyArithmetic:
    """Object arrays of SymPy expressions."""

    def __init__(self, activations: frozenset[ScalarFunction]) -> None:
        self._activations = activations
        self._classes: dict[tuple[ScalarFunction, tuple[int, ...]], type[_Opaque]] = {}

    def array(self, values: Any) -> Array:
        return np.asarray(np.frompyfunc(_exact, 1, 1)(np.asarray(values, dtype=object)), dtype=object)

    def rational(self, value: Fraction) -> Any:
        return sympy.Rational(value.numerator, value.denominator)

    def apply(
        self, function: ScalarFunction, orders: tuple[int, ...], arguments: Mapping[str, Array]
    ) -> Array:
        form, symbols = function.value_form(orders), function.argument_symbols

        def plain(*values: Any) -> Any:
            return form.xreplace(dict(zip(symbols, values, strict=True)))

        if function in self._activations or function.value_form((0,) * len(orders)).has(
            Piecewise, primitives.absolute, primitives.signum
        ):
            known = function not in self._activations

            def call(*values: Any) -> Any:
                # Of numbers alone, as the entries of a fixed table or of a mask, it is one.
                given = known and all(value.is_number for value in values)
                return plain(*values) if given else self.opaque(function, orders, values)
        else:
            call = plain
        if not function.arguments:
            return np.asarray(function.value_form(orders), dtype=object)
        columns = [arguments[name] for name in function.arguments]
        return np.asarray(np.frompyfunc(call, len(columns), 1)(*columns), dtype=object)

    def opaque(self, function: ScalarFunction, orders: tuple[int, ...], values: tuple[Any, ...]) -> Any:
        """A derivative of an opaque function; constant derivatives and exp-like ones are known as such."""
        form = function.value_form(orders)
        if form.is_number:
            return form
        if function.derivative(orders) == function.derivative((0,) * len(orders)):
            orders = (0,) * len(orders)
        return self._class(function, orders)(*values)

    def _class(self, function: ScalarFunction, orders: tuple[int, ...]) -> type[_Opaque]:
        if (function, orders) not in self._classes:

            def fdiff(node: Any, argindex: int = 1) -> Any:
                higher = tuple(order + (i == argindex - 1) for i, order in enumerate(orders))
                return self.opaque(function, higher, node.args)

            name = f"f{len(self._classes)}"
            self._classes[function, orders] = type(name, (_Opaque,), {"fdiff": fdiff, "nargs": len(orders)})
        return self._classes[function, orders]

    def log_sum_exp(self, values: Array, axis: int) -> Array:
        total = np.sum(np.frompyfunc(sympy.exp, 1, 1)(values), axis=axis)
        return np.asarray(np.frompyfunc(sympy.log, 1, 1)(total), dtype=object)

    def log_softmax(self, values: Array, axis: int) -> Array:
        total = np.sum(np.frompyfunc(sympy.exp, 1, 1)(values), axis=axis, keepdims=True)
        return np.asarray(values - np.frompyfunc(sympy.log, 1, 1)(total), dtype=object)

    def maximum(self, values: Array, axis: int) -> Array:
        raise VerificationError("a maximum is not expanded")

    def solve(self, matrix: Array, rhs: Array) -> Array:
        raise VerificationError("a linear system is not expanded")

    def cubic_newton(self, matrix: Array, rhs: Array, third: Array, strength: Array, unbounded: str) -> Array:
        raise VerificationError("a cubic model is not expanded")

    def spectral(self, matrix: Array, kind: str) -> Array:
        raise VerificationError("a spectral function is not expanded")


def _exact(value: Any) -> sympy.Expr:
    if isinstance(value, sympy.Expr):
        return value
    return sympy.Rational(value if isinstance(value, str) else int(value))


class Expansion:
    """A model expanded to scalars, with symbols for every entry.

    Args:
        derived: of a small network; its sizes set the cost.
    """

    def __init__(self, derived: Derived) -> None:
        model = derived.model
        activations = frozenset(c.activation for c in model.constraints if c.activation is not None)
        arithmetic: Arithmetic = _SympyArithmetic(activations)
        shapes = parameter_shapes(model.spec)
        self._params = {name: _symbols(name, shape) for name, shape in shapes.items()}
        self._vector = {name: _symbols(f"v.{name}", shape) for name, shape in shapes.items()}
        masks = {model.spec.loss.mask, *(layer.inputs[-1] for layer in model.spec.layers if layer.mask)}
        given = [
            1 - np.arange(source.size).reshape(source.shape) % 2
            if source.name in masks
            else np.zeros(source.shape, dtype=int)
            if source.classes
            else _symbols("x" if source is model.spec.input else source.name, source.shape)
            for source in model.spec.inputs
        ]
        # Of numbers that layers draw, every second one is zero and the others are one.
        drawn = all_inputs(model.spec)[len(given) :]
        given += [np.arange(source.size).reshape(source.shape) % 2 for source in drawn]
        sample: Any = given[0]
        if given[1:]:
            sample = np.concatenate([part.reshape(-1) for part in given])
        sizes = tuple(axis.entries for axis in model.target.axes)
        target: Any = _symbols("t", sizes)
        if model.spec.loss.targets == "classes":
            target = np.zeros(sizes[:-1], dtype=int)
        if model.spec.regularization.kind == "spectral":
            raise VerificationError("λ is a value of the sample (spectral) and is not expanded")
        self._systems = SampleSystems(derived, self._params, sample, target, arithmetic)
        self._objective = self._systems.objective()
        self._derivatives = [sympy.diff(self._objective, symbol) for symbol in self._flat(self._params)]

    def gradient(self) -> bool:
        """Whether the derived gradient is SymPy's."""
        derived = self._flat(self._systems.gradient())
        return all(equal(a, b) for a, b in zip(derived, self._derivatives, strict=True))

    def hessian_vector_product(self) -> bool:
        """Whether the derived Hessian–vector product is SymPy's, at one entry of every parameter.

        SymPy's second derivatives are what costs; the entries of a tensor share their derivation. The
        entry is off the diagonal, so that a transposition shows.
        """
        derived = self._systems.hessian_vector_product(self._vector)
        pairs = zip(self._derivatives, self._flat(self._vector), strict=True)
        slope = sum((derivative * move for derivative, move in pairs), sympy.S.Zero)
        return all(
            equal(derived[name][_corner(symbols)], sympy.diff(slope, symbols[_corner(symbols)]))
            for name, symbols in self._params.items()
        )

    def block_hessian(self) -> bool:
        """Whether the derived blocks are SymPy's second derivatives by biases and weights.

        All entries of the blocks of the biases, and of each weight's block one far from the diagonal.
        """
        blocks = self._systems.blocks()
        slopes = dict(zip(self._flat(self._params), self._derivatives, strict=True))
        pairs = []
        for name, block in blocks.items():
            symbols, order = self._params[name], self._params[name].ndim
            ends = [((0,) * order, (-1,) * order)]
            if order == 1:
                ends = [((i,), (j,)) for i in range(len(symbols)) for j in range(i + 1)]
            pairs += [(block[(*i, *j)], slopes[symbols[i]], symbols[j]) for i, j in ends]
        return all(equal(entry, sympy.diff(slope, symbol)) for entry, slope, symbol in pairs)

    def _flat(self, tensors: Mapping[str, Array]) -> list[Any]:
        return [entry for name in self._params for entry in tensors[name].ravel()]


def _corner(tensor: Array) -> tuple[int, ...]:
    return (0,) * (tensor.ndim - 1) + (-1,)


def _symbols(name: str, shape: tuple[int, ...]) -> Array:
    result = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        result[index] = Symbol(f"{name}{list(index)}", real=True)
    return result


def equal(left: Any, right: Any, points: int = 2) -> bool:
    """Whether two expressions agree exactly at random rational points.

    Functions are independent unknowns there. What differs by an identity between them, as |x| and √(x²), is
    compared at many digits.

    Example:
        >>> x = Symbol("x", real=True)
        >>> equal((x + 1) ** 2, x**2 + 2 * x + 1), equal(sympy.exp(2 * x), sympy.exp(x))
        (True, False)
        >>> equal(sympy.sign(x), x / sympy.sqrt(x**2)), equal(sympy.sign(x), x / sympy.sqrt(x**2 + 1))
        (True, False)
    """
    if left == right:
        return True
    if all(_agree(_Unknowns(point), left, right) for point in range(points)):
        return True
    with mpmath.workdps(_DIGITS):
        return all(_agree(_Numbers(point), left, right) for point in range(points))


def _agree(unknowns: _Values, left: Any, right: Any) -> bool:
    """Whether both have one value, to rounding where it is rounded."""
    first, second = unknowns.value(left), unknowns.value(right)
    allowed = max(abs(first), abs(second)) / 10**_AGREED if unknowns.rounded else 0
    return bool(abs(first - second) <= allowed)


class _Values:
    """What expressions come to at a random point, each part of them once."""

    rounded = False
    """Whether the values are rounded."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._atoms: dict[Any, Any] = {}
        self._known: dict[Any, Any] = {}

    def value(self, node: Any) -> Any:
        if node not in self._known:
            self._known[node] = self._compute(node)
        return self._known[node]

    def _compute(self, node: Any) -> Any:
        raise NotImplementedError


class _Numbers(_Values):
    """Values at many digits; functions without a definition have random values."""

    rounded = True

    def _compute(self, node: Any) -> Any:
        if node.is_Number or node.is_NumberSymbol:
            return mpmath.mpmathify(node.evalf(_DIGITS))
        values = [self.value(argument) for argument in node.args]
        if node.is_Add:
            return mpmath.fsum(values)
        if node.is_Mul:
            return mpmath.fprod(values)
        if node.is_Pow:
            return mpmath.power(*values)
        name, known = node.func.__name__, {"Abs": abs, "sign": mpmath.sign}
        if node.is_Function and name in known:
            return known[name](values[0])
        if node.is_Function and isinstance(getattr(sympy, name, None), type) and len(values) == 1:
            return getattr(mpmath, name)(values[0])
        key = (name, *(mpmath.nstr(v, _DIGITS // 2) for v in values)) if values else node
        return self._atoms.setdefault(key, mpmath.mpf(self._random.randint(-_RANGE, _RANGE)) / _RANGE)


def _fraction(value: mpmath.mpf) -> Fraction:
    sign, mantissa, exponent, _ = value._mpf_
    size: Fraction = Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
    return -size if sign else size


class _Unknowns(_Values):
    """Random rational values; rounded once there is a constant that is not rational."""

    def _atom(self, key: Any) -> Fraction:
        if key not in self._atoms:
            self._atoms[key] = Fraction(self._random.randint(1, _RANGE), self._random.randint(1, _RANGE))
        found: Fraction = self._atoms[key]
        return found

    def _compute(self, node: Any) -> Fraction:
        if node.is_Rational:
            return Fraction(int(node.p), int(node.q))
        if node.is_Add:
            return sum(map(self.value, node.args), Fraction(0))
        if node.is_Mul:
            return math.prod(map(self.value, node.args), start=Fraction(1))
        if node.is_Pow and node.exp.is_Integer:
            base: Fraction = self.value(node.base)
            return base ** int(node.exp)
        if node.is_number:
            self.rounded = True
            with mpmath.workdps(_DIGITS):
                return _fraction(evaluate(node, {}, "mpmath"))
        if isinstance(node, sympy.exp):
            return self._exponential(node.args[0])
        return self._atom((node.func.__name__, *map(self.value, node.args)) if node.args else node)

    def _exponential(self, argument: Any) -> Fraction:
        """exp of a sum is the product of the exponentials of its terms."""
        product = Fraction(1)
        for term in sympy.Add.make_args(sympy.expand(argument)):
            coefficient, rest = term.as_coeff_Mul()
            power = int(coefficient) if coefficient.is_Integer else 1
            product *= self._atom(("exp", rest if coefficient.is_Integer else term)) ** power
        return product
