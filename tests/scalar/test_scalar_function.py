"""Conversion from syntax trees, derivatives, rewrites, analysis, printing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy
from mpmath import mp
from scalar_cases import CASES, tree

from sifrc.errors import BackendError, Location, ModelError
from sifrc.scalar import (
    ABS,
    RECIPROCAL,
    elementary,
    evaluate,
    is_zero,
    latex,
    piecewise_affine,
    power,
    print_code,
    scalar_from_tree,
    slope_vanishing,
    stabilize,
    unicode,
)
from sifrc.scalar.primitives import absolute, erfc, expm1, log1p, sigmoid, signum, softplus
from sifrc.spec.expression import Call, Name

x, y = sympy.symbols("x y", real=True)
b = sympy.Symbol("b", positive=True)


def function(text, parameters=(), arguments=("x",)):
    return scalar_from_tree(tree(text), arguments, parameters)


@pytest.mark.parametrize("name", CASES)
def test_derivatives_against_numerical_differentiation(name):
    """Orders 1..3 at 40 digits; the oracle differentiates a formula written in mpmath."""
    case = CASES[name]
    for point in ("-2.375", "-0.4", "0.3", "1.7"):
        with mp.workdps(90):
            at = mp.mpf(point)
            wants = [mp.diff(case.reference(at), at, k) if k else case.reference(at)(at) for k in range(4)]
        for order, want in enumerate(wants):
            with mp.workdps(50):
                got = evaluate(case.function().value_form((order,)), {"x": mp.mpf(point)}, "mpmath")
                assert abs(got - want) <= mp.mpf("1e-40") * (1 + abs(want)), (point, order)


RULES = {
    "softplus": (sympy.log(1 + sympy.exp(x)), softplus(x)),
    "softplus of a positive multiple": (sympy.log(1 + b * sympy.exp(x)), softplus(x + sympy.log(b))),
    "log1p of exp": (log1p(sympy.exp(x)), softplus(x)),
    "log of exp": (sympy.log(b * sympy.exp(x)), x + sympy.log(b)),
    "sigmoid": (1 / (1 + sympy.exp(x)), sigmoid(-x)),
    "sigmoid of a multiple": (1 / (1 + b * sympy.exp(x)), sigmoid(-x - sympy.log(b))),
    "exp over": (sympy.exp(x) / (1 + sympy.exp(x)), sigmoid(x)),
    "exp over square": (sympy.exp(x) / (1 + sympy.exp(x)) ** 2, sigmoid(x) * sigmoid(-x)),
    "exp(2x) over": (sympy.exp(2 * x) / (1 + sympy.exp(x)), sympy.exp(x) * sigmoid(x)),
    "log sigmoid": (sympy.log(sigmoid(x)), -softplus(-x)),
    "log of a product": (sympy.log(x * sigmoid(y) ** 2), sympy.log(x) - 2 * softplus(-y)),
    "expm1": (3 * sympy.exp(x) - 3 + y, 3 * expm1(x) + y),
    "log1p": (sympy.log(1 + x**2), log1p(x**2)),
    "tanh": (
        (sympy.exp(x) - sympy.exp(-x)) / (sympy.exp(x) + sympy.exp(-x)),
        sympy.tanh(x),
    ),
    "tanh by expm1": ((1 - sympy.exp(-2 * x)) / (1 + sympy.exp(-2 * x)), sympy.tanh(x)),
    "sinh over cosh": (sympy.sinh(x) / sympy.cosh(x) ** 2, sympy.tanh(x) / sympy.cosh(x)),
    "one minus sigmoid": (b - b * sigmoid(x), b * sigmoid(-x)),
    "centred sigmoid": (2 * sigmoid(x) - 1, sympy.tanh(x / 2)),
    "erfc": (x / 2 + x * sympy.erf(y) / 2, x * erfc(-y) / 2),
    "erfc of the other tail": (1 - sympy.erf(y), erfc(y)),
    "one plus tanh": (1 + sympy.tanh(x), 2 * sigmoid(2 * x)),
    "merged exponentials": (sympy.exp(x) * sympy.exp(-(x**2)), sympy.exp(x - x**2)),
    "merged powers": (x**b / x, x ** (b - 1)),
    "log cosh": (sympy.log(sympy.cosh(x)), x + softplus(-2 * x) - sympy.log(2)),
}


@pytest.mark.parametrize("name", RULES)
def test_rewrite(name):
    """Each rule gives the stable form, and its value at 40 digits is unchanged."""
    before, after = RULES[name]
    assert stabilize(before) == after
    with mp.workdps(50):
        values = {"x": mp.mpf("0.61"), "y": mp.mpf("-0.37"), "b": mp.mpf("1.9")}
        difference = evaluate(before, values, "mpmath") - evaluate(stabilize(before), values, "mpmath")
        assert abs(difference) < mp.mpf("1e-40")


def test_ratio_of_unequal_exponentials():
    """(3 e^x − 2 e^−x)/(5 e^x + 7 e^−x): same value, and 3/5 and −2/7 in the limits."""
    before = (3 * sympy.exp(x) - 2 * sympy.exp(-x)) / (5 * sympy.exp(x) + 7 * sympy.exp(-x))
    after = stabilize(before)
    assert not after.has(sympy.exp)
    points = np.array([-1000.0, -0.8, 0.1, 2.5, 1000.0])
    naive = evaluate(before, {"x": points[1:-1]})
    np.testing.assert_allclose(evaluate(after, {"x": points}), [-2 / 7, *naive, 3 / 5], rtol=1e-14)


def test_a_negative_coefficient_is_not_taken_for_a_positive_one():
    """log(1 + c exp(x)) with c < 0 has no softplus form."""
    assert not stabilize(sympy.log(1 - b * sympy.exp(x))).has(softplus)
    assert not function("log(1 + c*exp(x))", (("c", -0.5),)).derivative((0,)).has(softplus)


@pytest.mark.parametrize("text", ["abs(x)", "max(x, 0)", "sqrt(x**2)", "min(x, x**2)", "relu(x)*abs(x)"])
def test_no_distribution_appears(text):
    """Kinks differentiate into plain functions up to the third order."""
    for order in range(4):
        expression = function(text).derivative((order,))
        assert not expression.has(sympy.DiracDelta, sympy.Heaviside, sympy.Abs, sympy.sign, sympy.Derivative)


def test_conventions_at_kinks():
    """Slope 0 at 0 for relu, abs and max(x, 0), whichever way round; a tie takes the second operand."""
    for text in ("where(x > 0, x, 0)", "relu(x)", "abs(x)", "max(x, 0)", "max(0, x)"):
        assert evaluate(function(text).derivative((1,)), {"x": 0.0}) == 0.0
    assert evaluate(function("max(2*x, 3*x)").derivative((1,)), {"x": 0.0}) == 3.0
    assert ABS.derivative((1,)) == signum(x) and ABS.derivative((2,)) == 0


@pytest.mark.parametrize(
    "text",
    [
        "relu(x)",
        "max(x, 0)",
        "min(0, x)",
        "leaky_relu(x, 0)",
        "leaky_relu(x**3, 0)",
        "elu(x, 0)",
        "elu(x, 0.5 - 0.5)",
        "min(where(x > 0, x, 0), x)",
        "max(x, where(x > 0, x, 0))",
        "max(where(x > 0, x, 0), sin(x))",
        "min((0.25 - x)*leaky_relu(x**3, 0), 2*x/sqrt(1 + 4*x**2))",
    ],
)
def test_nan_passes_through(text: str) -> None:
    """A NaN must not be hidden by an activation: of constants that branches end in, none is the last."""
    assert np.isnan(evaluate(function(text).value_form((0,)), {"x": np.nan}))


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        ("x/softplus(-20)", lambda: mpmath.log1p(mpmath.exp(-20))),
        ("x/softplus(-700)", lambda: mpmath.log1p(mpmath.exp(-700))),
        ("x/log1p(1e-20)", lambda: mpmath.log1p(mpmath.mpf("1e-20"))),
        ("x/expm1(-1e-30)", lambda: mpmath.expm1(mpmath.mpf("-1e-30"))),
        ("x/(1 - erf(9))", lambda: mpmath.erfc(9)),
        ("x/(1 - tanh(20))", lambda: 1 - mpmath.tanh(20)),
        ("x/(exp(1e-20) - 1)", lambda: mpmath.expm1(mpmath.mpf("1e-20"))),
    ],
)
def test_small_constants_are_no_zeros(text: str, constant: Callable[[], Any]) -> None:
    """They are computed to a few digits of their own, not as what is left where others cancel."""
    with mpmath.workdps(60):
        expected = float(2 / constant())
    assert evaluate(function(text).value_form((0,)), {"x": 2.0}) == pytest.approx(expected, rel=1e-14)


def test_value_form_is_exact_and_keeps_arguments():
    """0.1 is one tenth; parameters stay symbolic only in `derivative`."""
    f = function("where(x > 0, x, a*x) + y", (("a", 0.1),), ("x", "y"))
    assert {s.name for s in f.derivative((0, 0)).free_symbols} == {"x", "y", "a"}
    assert f.value_form((1, 0)) == sympy.Piecewise((1, x > 0), (sympy.Rational(1, 10), True))
    assert f == function("where(x > 0, x, a*x) + y", (("a", 0.1),), ("x", "y"))
    assert hash(f) == hash(function("where(x > 0, x, a*x) + y", (("a", 0.1),), ("x", "y")))
    assert f != function("where(x > 0, x, a*x) + y", (("a", 0.2),), ("x", "y"))


def test_power_is_differentiable_at_zero():
    """x^p with a parameter p: no division by x."""
    f = function("x**p", (("p", 3.0),))
    assert f.value_form((1,)) == 3 * x**2
    assert not any(factor == 1 / x for factor in sympy.Mul.make_args(f.derivative((1,))))


@pytest.mark.parametrize("text", ["1/(x - x)", "log(0)", "sqrt(-1)", "x + log(-2)"])
def test_constants_must_be_real_numbers(text):
    """Infinite, undefined and complex constants are refused."""
    with pytest.raises(ModelError, match="finite real number"):
        function(text)


def test_errors_have_a_place():
    """Unknown names and functions, wrong counts and misplaced comparisons say where and what."""
    place = Location("net.yaml", 3, 5, 9)
    with pytest.raises(ModelError, match=r"softmax(.|\n)*net.yaml:3:5(.|\n)*elementwise functions: abs"):
        scalar_from_tree(Call("softmax", (Name("x"),), place), ("x",))
    with pytest.raises(ModelError, match="unknown name 'z'"):
        function("x + z")
    with pytest.raises(ModelError, match="tanh takes 1"):
        function("tanh(x, x)")
    with pytest.raises(ModelError, match="must be a comparison"):
        function("where(x, x, x)")
    with pytest.raises(ModelError, match="not a number"):
        function("1 + (x > 0)")
    with pytest.raises(ValueError, match="orders"):
        function("x").derivative((1, 1))


def test_elementary():
    """The functions the expression language needs itself."""
    assert RECIPROCAL.derivative((1,)) == -(x**-2)
    assert elementary("sqrt").derivative((1,)) == 1 / (2 * sympy.sqrt(x))
    assert power(3).derivative((2,)) == 6 * x and power(-0.5).expression == x ** sympy.Rational(-1, 2)


SLOPES = {
    "relu(x)": ("interval", True),
    "where(x > 0, x, 0.1*x)": ("never", True),
    "where(x > 0, x, -x/2)": ("never", True),
    "x": ("never", True),
    "x*(x + 1) - x**2": ("never", True),
    "max(x, -1)": ("interval", True),
    "selu(x)": ("never", False),
    "tanh(x)": ("never", False),
    "x + tanh(x)": ("never", False),
    "sigmoid(x)": ("never", False),
    "log(1 + exp(x))": ("never", False),
    "atan(x)": ("never", False),
    "gelu(x)": ("undecided", False),
    "x**3": ("undecided", False),
    "abs(x)": ("undecided", True),
}


@pytest.mark.parametrize("text", SLOPES)
def test_analysis(text):
    """Where the slope vanishes, and whether the function is piecewise affine."""
    assert (slope_vanishing(function(text)), piecewise_affine(function(text))) == SLOPES[text]


def test_zero_test_is_one_sided():
    """Proved zero on every branch, or not proved."""
    assert is_zero((x + 1) ** 2 - x**2 - 2 * x - 1)
    assert not is_zero(sympy.Piecewise((0, x > 0), (x, True)))


def test_unknown_functions_are_errors():
    """No printer and no evaluator invents code."""
    strange = sympy.Function("strange")(x)
    for dialect in ("numpy", "numba", "torch"):
        with pytest.raises(BackendError, match="strange"):
            print_code(strange, dialect)
        with pytest.raises(BackendError, match=r"besselj|Bessel"):
            print_code(sympy.besselj(0, x), dialect)
    with pytest.raises(BackendError, match="strange"):
        evaluate(strange, {"x": 1.0})


def test_printed_text():
    """Signs, quotients, powers, names and constants, as a reader expects them."""
    quotient = -3 * x**2 / (2 * (1 + x**2) ** 2) - sympy.sqrt(x)
    assert print_code(quotient, "torch").text in (
        "-torch.sqrt(x) - 1.5*x**2/((x**2 + 1.0)**2)",
        "-1.5*x**2/((x**2 + 1.0)**2) - torch.sqrt(x)",
    )
    assert print_code(x**2 - y, "numba", names={"x": "a[i]", "y": "t"}).text == "(a[i]*a[i]) - t"
    step = sympy.Piecewise((1, x > 0), (sympy.Rational(1, 10), True))
    assert print_code(step, "torch").text == "torch.where(x > 0.0, 1.0, torch.full_like(x, 0.1))"
    assert print_code(step, "numba", real="np.float32").text == (
        "(np.float32(1.0) if x > np.float32(0.0) else np.float32(0.1))"
    )


def test_notation():
    """LaTeX and one line of text."""
    assert unicode(1 - sympy.tanh(x) ** 2) == "1 - tanh(x)²"
    assert unicode(x * sigmoid(-x) + absolute(x)) == "x σ(-x) + |x|"
    assert latex(softplus(x) ** 2) == r"\operatorname{softplus}^{2}\left(x\right)"
    assert "10000" not in latex(function("selu(x)").value_form((0,)))


_PRINT_ALL = """
from scalar_cases import CASES
from sifrc.scalar import print_code, latex, unicode, share
for case in CASES.values():
    forms = [case.function().value_form((k,)) for k in range(4)]
    for form in forms:
        for dialect in ("numpy", "numba", "torch"):
            print(print_code(form, dialect))
        print(latex(form), unicode(form))
    print(share(forms), case.function().derivative((2,)))
"""


def test_same_bytes_under_any_hash_seed():
    """Everything printed is the same in fresh processes with two hash seeds."""
    here = Path(__file__).parent
    outputs = set()
    for seed in ("0", "271828"):
        path = os.pathsep.join([str(here), str(here.parent.parent)])
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": path}
        command = [sys.executable, "-c", _PRINT_ALL]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        outputs.add(result.stdout)
    assert len(outputs) == 1
