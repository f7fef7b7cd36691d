"""Scalar functions of real arguments: derivatives of any order, stable forms, code.

Example:
    >>> from sifrc.scalar import argument_symbol, print_code, ScalarFunction
    >>> import sympy
    >>> x = argument_symbol("x")
    >>> f = ScalarFunction("custom", ("x",), sympy.log(1 + sympy.exp(x)))
    >>> print_code(f.value_form((1,)), "numba").text
    '_sigmoid(x)'
"""

from sifrc.scalar.analysis import Slope, is_zero, piecewise_affine, slope_vanishing
from sifrc.scalar.evaluate import EvaluationDialect, constant, evaluate
from sifrc.scalar.function import (
    ABS,
    EXP,
    IDENTITY,
    LOG,
    POWER_OF_TWO,
    QUOTIENT,
    RECIPROCAL,
    SIGN,
    SQRT,
    SQUARE,
    ScalarFunction,
    argument_symbol,
    elementary,
    exact,
    parameter_symbol,
    power,
)
from sifrc.scalar.fused import TIMES_FIRST
from sifrc.scalar.helpers import called_helpers, helpers
from sifrc.scalar.notation import latex, unicode
from sifrc.scalar.printing import Code, Dialect, print_code, torch_form
from sifrc.scalar.sharing import share
from sifrc.scalar.stable import stabilize
from sifrc.scalar.tree import FUNCTIONS, scalar_from_tree, tree_to_sympy

__all__ = [
    "ABS",
    "EXP",
    "FUNCTIONS",
    "IDENTITY",
    "LOG",
    "POWER_OF_TWO",
    "QUOTIENT",
    "RECIPROCAL",
    "SIGN",
    "SQRT",
    "SQUARE",
    "TIMES_FIRST",
    "Code",
    "Dialect",
    "EvaluationDialect",
    "ScalarFunction",
    "Slope",
    "argument_symbol",
    "called_helpers",
    "constant",
    "elementary",
    "evaluate",
    "exact",
    "helpers",
    "is_zero",
    "latex",
    "parameter_symbol",
    "piecewise_affine",
    "power",
    "print_code",
    "scalar_from_tree",
    "share",
    "slope_vanishing",
    "stabilize",
    "torch_form",
    "tree_to_sympy",
    "unicode",
]
