"""From the syntax tree of a user expression to a scalar function.

The visitor builds SymPy objects itself; no text is ever handed to SymPy's parser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import reduce, singledispatch
from types import MappingProxyType

import sympy
from sympy import Expr, Rational, Symbol
from sympy.logic.boolalg import Boolean

from sifrc.errors import ModelError
from sifrc.scalar import branches as b
from sifrc.scalar import primitives as p
from sifrc.scalar.domain import compared, enforced, guarded, missing, with_conditions, written
from sifrc.scalar.function import ScalarFunction, argument_symbol, check_real, exact, parameter_symbol
from sifrc.spec.expression import (
    ARITHMETIC,
    MAX_EXPONENT,
    Binary,
    Call,
    Compare,
    Expression,
    Name,
    Negative,
    Number,
)

__all__ = ["FUNCTIONS", "compare_to_sympy", "scalar_from_tree", "tree_to_sympy"]

Symbols = Mapping[str, Symbol]

_LEAKY_SLOPE = Rational(1, 100)
_SELU_ALPHA = Rational("1.6732632423543772848170429916717")
_SELU_SCALE = Rational("1.0507009873554804934193349852946")


def _relu(x: Expr) -> Expr:
    """Written so that NaN comes out as NaN; the slope at 0 is 0."""
    return b.where(x <= 0, sympy.S.Zero, x)


def _elu(x: Expr, alpha: Expr = sympy.S.One) -> Expr:
    return _relu(x) if alpha == 0 else b.where(x > 0, x, alpha * p.expm1(x))


def _leaky_relu(x: Expr, slope: Expr = _LEAKY_SLOPE) -> Expr:
    return _relu(x) if slope == 0 else b.where(x > 0, x, slope * x)


FUNCTIONS: Mapping[str, tuple[int, int | None, Callable[..., Expr]]] = MappingProxyType(
    {
        "abs": (1, 1, p.absolute),
        "asinh": (1, 1, sympy.asinh),
        "atan": (1, 1, sympy.atan),
        "cos": (1, 1, sympy.cos),
        "cosh": (1, 1, sympy.cosh),
        "elu": (1, 2, _elu),
        "erf": (1, 1, sympy.erf),
        "exp": (1, 1, sympy.exp),
        "expm1": (1, 1, p.expm1),
        "gelu": (1, 1, lambda x: x * p.erfc(-x / sympy.sqrt(2)) / 2),
        "leaky_relu": (1, 2, _leaky_relu),
        "log": (1, 1, sympy.log),
        "log1p": (1, 1, p.log1p),
        "max": (2, None, lambda *values: reduce(b.maximum, values)),
        "min": (2, None, lambda *values: reduce(b.minimum, values)),
        "mish": (1, 1, lambda x: x * sympy.tanh(p.softplus(x))),
        "relu": (1, 1, _relu),
        "selu": (1, 1, lambda x: _SELU_SCALE * _elu(x, _SELU_ALPHA)),
        "sigmoid": (1, 1, p.sigmoid),
        "silu": (1, 1, lambda x: x * p.sigmoid(x)),
        "sin": (1, 1, sympy.sin),
        "sinh": (1, 1, sympy.sinh),
        "softplus": (1, 1, p.softplus),
        "sqrt": (1, 1, sympy.sqrt),
        "square": (1, 1, lambda x: x**2),
        "tan": (1, 1, sympy.tan),
        "tanh": (1, 1, sympy.tanh),
    }
)
"""Elementwise functions by name: least and greatest number of arguments (None: any), and builder.

``where`` is not among them, because its first argument is a comparison.
"""


@singledispatch
def tree_to_sympy(node: object, symbols: Symbols) -> Expr:
    """The SymPy expression of a syntax tree.

    Args:
        node: an :data:`~sifrc.spec.expression.Expression` without comparison at its top.
        symbols: real symbols by name.

    Raises:
        ModelError: an unknown name or function, a wrong number of arguments, a function that is not
            elementwise, or a constant that is not a finite real number.
    """
    raise TypeError(f"not an expression: {type(node).__name__}")


@tree_to_sympy.register
def _(node: Number, symbols: Symbols) -> Expr:
    return Rational(node.value.numerator, node.value.denominator)


@tree_to_sympy.register
def _(node: Name, symbols: Symbols) -> Expr:
    if node.identifier not in symbols:
        raise ModelError(
            f"unknown name '{node.identifier}' in an elementwise expression",
            location=node.location,
            hint="known names: " + " ".join(sorted(symbols)),
        )
    return symbols[node.identifier]


@tree_to_sympy.register
def _(node: Negative, symbols: Symbols) -> Expr:
    return -tree_to_sympy(node.operand, symbols)


@tree_to_sympy.register
def _(node: Binary, symbols: Symbols) -> Expr:
    left, right = tree_to_sympy(node.left, symbols), tree_to_sympy(node.right, symbols)
    if node.operator == "**" and right.is_Rational and abs(right) > MAX_EXPONENT:
        raise ModelError(
            "the exponent is too large",
            location=node.right.location,
            hint=f"between -{MAX_EXPONENT} and {MAX_EXPONENT}, also where it is put together",
        )
    return _checked(ARITHMETIC[node.operator](left, right), node)


@tree_to_sympy.register
def _(node: Call, symbols: Symbols) -> Expr:
    if node.function == "where":
        if len(node.arguments) != 3:
            raise _wrong_count(node, "3")
        condition, chosen, otherwise = node.arguments
        return b.where(
            compare_to_sympy(condition, symbols),
            tree_to_sympy(chosen, symbols),
            tree_to_sympy(otherwise, symbols),
        )
    if node.function not in FUNCTIONS:
        raise ModelError(
            f"'{node.function}' is not an elementwise function",
            location=node.location,
            hint="elementwise functions: " + " ".join(sorted([*FUNCTIONS, "where"])),
        )
    least, greatest, build = FUNCTIONS[node.function]
    if len(node.arguments) < least or (greatest is not None and len(node.arguments) > greatest):
        raise _wrong_count(
            node, str(least) if least == greatest else f"{least} to {greatest or 'any number'}"
        )
    return _checked(build(*(tree_to_sympy(argument, symbols) for argument in node.arguments)), node)


@tree_to_sympy.register
def _(node: Compare, symbols: Symbols) -> Expr:
    raise ModelError(
        "a comparison is not a number",
        location=node.location,
        hint="comparisons are accepted as the first argument of where(condition, a, b)",
    )


def compare_to_sympy(node: Expression, symbols: Symbols) -> Boolean:
    """The SymPy condition of a comparison.

    Raises:
        ModelError: the node is not a comparison.
    """
    if not isinstance(node, Compare):
        raise ModelError(
            "the first argument of where must be a comparison",
            location=node.location,
            hint="write e.g. where(x > 0, x, 0)",
        )
    return compared(node, tree_to_sympy(node.left, symbols), tree_to_sympy(node.right, symbols))


def _wrong_count(node: Call, accepted: str) -> ModelError:
    return ModelError(
        f"{node.function} was given {len(node.arguments)} arguments",
        location=node.location,
        hint=f"{node.function} takes {accepted}",
    )


def _checked(expression: Expr, node: Binary | Call) -> Expr:
    try:
        return check_real(expression)
    except ModelError as error:
        raise ModelError(error.message, location=node.location, hint=error.hint) from None


def scalar_from_tree(
    tree: Expression,
    arguments: Iterable[str],
    parameters: Iterable[tuple[str, float]] = (),
    name: str = "custom",
) -> ScalarFunction:
    """The scalar function of a syntax tree.

    Args:
        tree: elementwise expression.
        arguments: names of the arguments, in order.
        parameters: names and values of the parameters.
        name: name for printing.

    Raises:
        ModelError: as :func:`tree_to_sympy`.

    Example:
        >>> f = scalar_from_tree(Call("tanh", (Name("x"),)), ["x"], name="tanh")
        >>> f.derivative((1,))
        1 - tanh(x)**2
    """
    arguments, parameters = tuple(arguments), tuple(parameters)
    symbols = {argument: argument_symbol(argument) for argument in arguments}
    symbols |= {parameter: parameter_symbol(parameter, value) for parameter, value in parameters}
    values = {parameter_symbol(parameter, value): exact(value) for parameter, value in parameters}

    def build(part: Expression) -> Expr:
        return b.normalize(tree_to_sympy(part, symbols))

    tree = with_conditions(tree, build, values)
    function = ScalarFunction(name, arguments, build(tree), parameters)
    asked = written(tree, build, values)
    if not asked:
        return function
    kept = enforced(function.value_form((0,) * len(arguments)))
    lost = tuple(u for u in asked if missing((b.substituted(u, values),), kept))
    if not lost:
        return function
    return replace(function, expression=guarded(function.expression, lost, function.argument_symbols))
