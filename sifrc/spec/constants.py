"""Values of constant sub-expressions, for the limits of the language."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from sifrc.spec.expression import (
    ARITHMETIC,
    COMPARISONS,
    Binary,
    Call,
    Compare,
    Expression,
    Name,
    Negative,
    Number,
)

__all__ = ["constant_value"]

_NONE: Mapping[str, float] = MappingProxyType({})


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


_FUNCTIONS: Mapping[str, Callable[..., float]] = MappingProxyType(
    {name: getattr(math, name) for name in ("asinh", "atan", "cos", "cosh", "erf", "exp", "expm1")}
    | {name: getattr(math, name) for name in ("log", "log1p", "sin", "sinh", "sqrt", "tan", "tanh")}
    | {
        "abs": abs,
        "sigmoid": _sigmoid,
        "softplus": _softplus,
        "square": lambda x: x * x,
        "max": max,
        "min": min,
        "relu": lambda x: max(x, 0.0),
        "leaky_relu": lambda x, slope: x if x > 0 else slope * x,
        "elu": lambda x, alpha: x if x > 0 else alpha * math.expm1(x),
        "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x)),
        "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
        "silu": lambda x: x * _sigmoid(x),
        "mish": lambda x: x * math.tanh(_softplus(x)),
    }
)


def constant_value(expression: Expression, parameters: Mapping[str, float] = _NONE) -> float | None:
    """Value of an expression of numbers and parameters, None if anything else occurs in it.

    Args:
        expression: any expression.
        parameters: values by name.

    Raises:
        OverflowError: it is larger than any floating-point number.
        ArithmeticError: it has no finite real value.

    Example:
        >>> from sifrc.spec.parser import parse_expression
        >>> constant_value(parse_expression("1/4 + exp(0)")), constant_value(parse_expression("2*x"))
        (1.25, None)
    """
    match expression:
        case Number(value=value):
            return float(value)
        case Name(identifier=name):
            return parameters.get(name)
        case Negative(operand=operand):
            inner = constant_value(operand, parameters)
            return None if inner is None else -inner
        case Binary(operator=sign, left=left, right=right):
            a, b = constant_value(left, parameters), constant_value(right, parameters)
            return None if a is None or b is None else _combined(sign, a, b)
        case Call(function="where", arguments=(Compare() as test, chosen, otherwise)):
            a, b = constant_value(test.left, parameters), constant_value(test.right, parameters)
            if a is None or b is None:
                return None
            return constant_value(chosen if COMPARISONS[test.operator](a, b) else otherwise, parameters)
        case Call(function=function, arguments=arguments) if function in _FUNCTIONS:
            values = [constant_value(argument, parameters) for argument in arguments]
            given = [value for value in values if value is not None]
            return _called(function, given) if len(given) == len(values) else None
    return None


def _combined(sign: str, a: float, b: float) -> float:
    value = ARITHMETIC[sign](a, b)
    if isinstance(value, complex):
        raise ArithmeticError("root of a negative number")
    return float(value)


def _called(function: str, arguments: list[float]) -> float:
    try:
        value = float(_FUNCTIONS[function](*arguments))
    except ValueError:
        raise ArithmeticError(f"no value of {function}") from None
    if not math.isfinite(value):
        raise OverflowError(function)
    return value
