"""Functions a user expression may call: data shared by the parser and the scalar stage.

A function may have a ``definition``: an expression in its own arguments, in the language of
:mod:`sifrc.spec.parser`. The built-in activations are these definitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

__all__ = [
    "LOSS_FUNCTIONS",
    "NOT_DIFFERENTIABLE",
    "SCALAR_FUNCTIONS",
    "SYNONYMS",
    "Function",
    "FunctionKind",
]

FunctionKind: TypeAlias = Literal["elementwise", "condition", "reduction", "vector"]


@dataclass(frozen=True)
class Function:
    """One callable name of the expression language.

    Args:
        name: the name users write.
        arguments: argument names, in order; their number is the arity.
        kind: ``elementwise`` (numbers, or vectors entry by entry), ``condition`` (``where``: a
            comparison and two branches, elementwise), ``reduction`` (vectors to a number),
            ``vector`` (vector to vector).
        summary: one line of documentation.
        definition: expression in ``arguments``, or None for a primitive.

    Example:
        >>> SCALAR_FUNCTIONS["leaky_relu"].definition
        'where(x > 0, x, slope*x)'
    """

    name: str
    arguments: tuple[str, ...]
    kind: FunctionKind
    summary: str
    definition: str | None = None

    @property
    def arity(self) -> int:
        """Number of arguments."""
        return len(self.arguments)

    @property
    def usage(self) -> str:
        """How a call looks, e.g. ``where(condition, a, b)``."""
        return f"{self.name}({', '.join(self.arguments)})"


def _table(*functions: Function) -> Mapping[str, Function]:
    return MappingProxyType({function.name: function for function in functions})


def _elementwise(name: str, summary: str, *arguments: str, definition: str | None = None) -> Function:
    return Function(name, arguments or ("x",), "elementwise", summary, definition)


SCALAR_FUNCTIONS: Mapping[str, Function] = _table(
    _elementwise("abs", "absolute value; slope 0 at 0"),
    _elementwise("asinh", "inverse hyperbolic sine"),
    _elementwise("atan", "inverse tangent"),
    _elementwise("cos", "cosine"),
    _elementwise("cosh", "hyperbolic cosine"),
    _elementwise("erf", "error function"),
    _elementwise("exp", "exponential"),
    _elementwise("expm1", "exp(x) - 1, exact near 0"),
    _elementwise("log", "natural logarithm"),
    _elementwise("log1p", "log(1 + x), exact near 0"),
    _elementwise("sigmoid", "1/(1 + exp(-x))"),
    _elementwise("sin", "sine"),
    _elementwise("sinh", "hyperbolic sine"),
    _elementwise("softplus", "log(1 + exp(x)) without overflow"),
    _elementwise("sqrt", "square root"),
    _elementwise("tan", "tangent"),
    _elementwise("tanh", "hyperbolic tangent"),
    Function("where", ("condition", "a", "b"), "condition", "a where the comparison holds, else b"),
    _elementwise("square", "x times x", definition="x**2"),
    _elementwise("max", "the larger of two", "a", "b"),
    _elementwise("min", "the smaller of two", "a", "b"),
    # Written this way round, NaN comes out as NaN.
    _elementwise("relu", "positive part; slope 0 at 0", definition="where(x <= 0, 0, x)"),
    _elementwise("leaky_relu", "x, or slope*x below 0", "x", "slope", definition="where(x > 0, x, slope*x)"),
    _elementwise(
        "elu",
        "x, or alpha*(exp(x) - 1) below 0",
        "x",
        "alpha",
        definition="where(x > 0, x, alpha*expm1(x))",
    ),
    _elementwise(
        "selu",
        "self-normalising scaled elu",
        # The constants of Klambauer et al. 2017, as PyTorch has them.
        definition="1.0507009873554804934193349852946"
        "*where(x > 0, x, 1.6732632423543772848170429916717*expm1(x))",
    ),
    _elementwise("gelu", "x times the normal distribution function", definition="x*(1 + erf(x/sqrt(2)))/2"),
    _elementwise("silu", "x*sigmoid(x)", definition="x*sigmoid(x)"),
    _elementwise("mish", "x*tanh(softplus(x))", definition="x*tanh(softplus(x))"),
)
"""Functions of numbers: all that an activation may call."""

LOSS_FUNCTIONS: Mapping[str, Function] = MappingProxyType(
    {
        **SCALAR_FUNCTIONS,
        **_table(
            Function("sum", ("v",), "reduction", "sum of the entries"),
            Function("mean", ("v",), "reduction", "mean of the entries"),
            Function("dot", ("a", "b"), "reduction", "inner product of two vectors"),
            Function("logsumexp", ("v",), "reduction", "log of the sum of exponentials, no overflow"),
            Function("softmax", ("v",), "vector", "exponentials, scaled to sum 1"),
            Function("log_softmax", ("v",), "vector", "logarithm of softmax, no overflow"),
        ),
    }
)
"""Functions of numbers and vectors: all that a loss may call."""

NOT_DIFFERENTIABLE: Mapping[str, str] = MappingProxyType(
    {
        "argmax": "use softmax(v), its smooth form",
        "argmin": "use softmax(-v), its smooth form",
        "ceil": "use x itself, or a smooth function",
        "floor": "use x itself, or a smooth function",
        "heaviside": "use sigmoid(k*x) with a large k",
        "mod": "use sin or cos for something periodic",
        "rint": "use x itself, or a smooth function",
        "round": "use x itself, or a smooth function",
        "sgn": "use tanh(k*x) with a large k",
        "sign": "use tanh(k*x) with a large k",
        "signum": "use tanh(k*x) with a large k",
        "step": "use sigmoid(k*x) with a large k",
        "trunc": "use x itself, or a smooth function",
    }
)
"""Names that people know and that have no useful derivative, with what to write instead."""

SYNONYMS: Mapping[str, str] = MappingProxyType(
    {
        "arcsinh": "asinh",
        "arctan": "atan",
        "fabs": "abs",
        "inner": "dot",
        "ln": "log",
        "logistic": "sigmoid",
        "lse": "logsumexp",
        "maximum": "max",
        "minimum": "min",
        "swish": "silu",
    }
)
"""Names from elsewhere and ours for the same thing, for suggestions only."""
