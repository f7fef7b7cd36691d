"""Scalar functions under test, each with an oracle that shares no code with the package.

The oracle of a function takes the point first (to choose the branch of a kink) and gives a plain
mpmath function, which the tests differentiate numerically at high precision.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from mpmath import mp

from sifrc.scalar import ScalarFunction, scalar_from_tree
from sifrc.spec.expression import Binary, Call, Compare, Expression, Name, Negative, Number

_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
_COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}


def tree(text: str) -> Expression:
    """Syntax tree of an expression, by a converter for tests only."""

    def convert(node: ast.expr) -> Expression:
        match node:
            case ast.Constant(value=value):
                return Number(Fraction(repr(value)))
            case ast.Name(id=name):
                return Name(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Negative(convert(operand))
            case ast.BinOp(left=left, op=operator, right=right):
                return Binary(_OPERATORS[type(operator)], convert(left), convert(right))
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                return Compare(_COMPARISONS[type(operator)], convert(left), convert(right))
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return Call(name, tuple(convert(argument) for argument in arguments))
        raise AssertionError(ast.dump(node))

    return convert(ast.parse(text, mode="eval").body)


@dataclass(frozen=True)
class Case:
    name: str
    text: str
    reference: Callable[[mp.mpf], Callable[[mp.mpf], mp.mpf]]
    parameters: tuple[tuple[str, float], ...] = ()

    def function(self) -> ScalarFunction:
        return scalar_from_tree(tree(self.text), ("x",), self.parameters, self.name)


def smooth(function):
    return lambda point: function


def kink(right, left, selects=lambda x: x > 0):
    return lambda point: right if selects(point) else left


def q(text: str):
    return mp.mpf(text)


def _alpha():
    return q("1.6732632423543772848170429916717"), q("1.0507009873554804934193349852946")


CASES = {
    case.name: case
    for case in (
        Case("relu", "where(x > 0, x, 0)", kink(lambda x: x, lambda x: 0 * x)),
        Case("relu_call", "relu(x)", kink(lambda x: x, lambda x: 0 * x)),
        Case("leaky", "where(x > 0, x, a*x)", kink(lambda x: x, lambda x: x / 10), (("a", 0.1),)),
        Case(
            "elu",
            "where(x > 0, x, a*(exp(x) - 1))",
            kink(lambda x: x, lambda x: q("1.3") * (mp.exp(x) - 1)),
            (("a", 1.3),),
        ),
        Case(
            "selu",
            "selu(x)",
            kink(
                lambda x: _alpha()[1] * x,
                lambda x: _alpha()[1] * _alpha()[0] * (mp.exp(x) - 1),
            ),
        ),
        Case("gelu", "x*(1 + erf(x/sqrt(2)))/2", smooth(lambda x: x * mp.ncdf(x))),
        Case("silu", "x/(1 + exp(-x))", smooth(lambda x: x / (1 + mp.exp(-x)))),
        Case("softplus", "log(1 + exp(x))", smooth(lambda x: mp.log(1 + mp.exp(x)))),
        Case("tanh", "tanh(x)", smooth(mp.tanh)),
        Case("tanh_exp", "(exp(x) - exp(-x))/(exp(x) + exp(-x))", smooth(mp.tanh)),
        Case("tanh_exp2", "(exp(2*x) - 1)/(exp(2*x) + 1)", smooth(mp.tanh)),
        Case("sigmoid", "exp(x)/(1 + exp(x))", smooth(lambda x: 1 / (1 + mp.exp(-x)))),
        Case("sigmoid_squared", "(1 + exp(-x))**-2", smooth(lambda x: (1 + mp.exp(-x)) ** -2)),
        Case("log_sigmoid", "log(1 - 1/(1 + exp(x)))", smooth(lambda x: -mp.log(1 + mp.exp(-x)))),
        Case("log_cosh", "log(cosh(x))", smooth(lambda x: mp.log(mp.cosh(x)))),
        Case("mish", "x*tanh(softplus(x))", smooth(lambda x: x * mp.tanh(mp.log(1 + mp.exp(x))))),
        Case("sin", "sin(x)", smooth(mp.sin)),
        Case("atan", "atan(x) + asinh(x)", smooth(lambda x: mp.atan(x) + mp.asinh(x))),
        Case(
            "custom",
            "x*tanh(log(1 + b*exp(x)))",
            smooth(lambda x: x * mp.tanh(mp.log(1 + q("0.7") * mp.exp(x)))),
            (("b", 0.7),),
        ),
        Case(
            "criterion",
            "1/(1 + exp(d*(eps - x)))",
            smooth(lambda x: 1 / (1 + mp.exp(5 * (q("0.2") - x)))),
            (("d", 5.0), ("eps", 0.2)),
        ),
        Case(
            "three_exponentials",
            "log(2 + exp(x) + 3*exp(-x))",
            smooth(lambda x: mp.log(2 + mp.exp(x) + 3 * mp.exp(-x))),
        ),
        Case(
            "clipped",
            "min(max(x, -1.5), 2)",
            lambda p: lambda x: x if -1.5 < p < 2 else min(max(p, q("-1.5")), 2),
        ),
        Case(
            "log_branch",
            "where(x > 0, log(x + 1), -sqrt(-x))",
            kink(lambda x: mp.log(x + 1), lambda x: -mp.sqrt(-x)),
        ),
        Case(
            "huber",
            "where(abs(x) <= d, x**2/2, d*(abs(x) - d/2))",
            kink(lambda x: x * x / 2, lambda x: (abs(x) - 1 / q(4)) / 2, lambda x: abs(x) <= 0.5),
            (("d", 0.5),),
        ),
        Case("powers", "1/(1 + x**2)**1.5", smooth(lambda x: (1 + x * x) ** q("-1.5"))),
    )
}

POINTS = (-1000.0, -100.0, -30.0, -21.0, -1.0, 0.0, 1.0, 21.0, 30.0, 100.0, 1000.0)
ORDERS = range(4)


def reference(case: Case, point: float, order: int) -> mp.mpf:
    """Derivative of the oracle, by differences at 400 digits."""
    with mp.workdps(400):
        x = mp.mpf(point)
        if case.name == "log_branch" and point == 0:
            raise ValueError("not differentiable")
        branch = case.reference(x)
        return branch(x) if order == 0 else mp.diff(branch, x, order)


def tolerance(case: Case, want: mp.mpf, point: float, relative: float, tiny: float) -> mp.mpf:
    """Relative; absolute on the scale of the arguments' rounding where 1 − tanh² is kept as it is."""
    cancels = case.name in ("tanh", "tanh_exp", "tanh_exp2", "mish", "custom", "log_cosh")
    floor = relative * max(1.0, abs(point)) if cancels else tiny
    return max(relative * abs(want), mp.mpf(floor))
