"""Simplified expressions are numbers where the written ones are, and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import sympy
import torch
from mpmath import mp

from sifrc.errors import ModelError
from sifrc.scalar import evaluate, helpers, piecewise_affine, print_code, scalar_from_tree
from sifrc.scalar.branches import normalize, settled, substituted, where
from sifrc.scalar.primitives import erfc, sigmoid, softplus
from sifrc.spec.parser import parse_expression

POINTS = (-3.7, -1.3, -0.6, 0.3, 0.7, 1.9)


def real(value):
    """The number, or not a number where it is complex."""
    return mp.nan if isinstance(value, mp.mpc) else value


def root(x):
    return real(mp.sqrt(x))


def log(x):
    return real(mp.log(x))


CHANGED: dict[str, Callable] = {
    "sqrt(x)**2": lambda x: root(x) ** 2,
    "exp(2*log(x))": lambda x: mp.exp(2 * log(x)),
    "0*log(x) + 1": lambda x: 0 * log(x) + 1,
    "x + log1p(x) - log1p(x)": lambda x: x + log(1 + x) - log(1 + x),
    "x**0.5*x**0.5": lambda x: root(x) * root(x),
    "x**1.5/x**0.5": lambda x: root(x) ** 3 / root(x),
    "x**a*x**b": lambda x: root(x) * root(x),
    "exp(log(x) + log(x + 3))": lambda x: mp.exp(log(x) + log(x + 3)),
    "max(x, sqrt(x))": lambda x: mp.nan if x < 0 else max(x, mp.sqrt(x)),
    "min(sqrt(x)**2, 1)": lambda x: mp.nan if x < 0 else min(x, 1),
    "where(x > 1, sqrt(x - 1.5)**2, x)": lambda x: root(x - 1.5) ** 2 if x > 1 else x,
    "where(x > 0, sqrt(x)**2, -x)": abs,
    "where(sqrt(x)**2 > -3, x, 2*x)": lambda x: x if x >= 0 else 2 * x,
    "where(log(x) < log(x) + 1, x, 2*x)": lambda x: x if x >= 0 else 2 * x,
    "leaky_relu(x, sqrt(-x)**2)": lambda x: x if x > 0 else -x * x,
    "(sqrt(x)**2)**0": lambda x: mp.mpf(1),
}


def function(text: str):
    values = (("a", 0.3), ("b", 0.7)) if "**a" in text else ()
    tree = parse_expression(text, parameters=[name for name, _ in values])
    return scalar_from_tree(tree, ("x",), values)


def same(found: float, expected: object) -> bool:
    number = float(expected)
    return math.isnan(found) if math.isnan(number) else abs(found - number) <= 1e-12 * max(1, abs(number))


@pytest.mark.parametrize("text", CHANGED)
def test_values_and_slopes_on_the_domain_as_written(text: str) -> None:
    """Values against mpmath's, slopes against differences of them, through the interpreter."""
    f, reference = function(text), CHANGED[text]
    for point in POINTS:
        with mpmath.workdps(40):
            x = mp.mpf(repr(point))
            value, step = reference(x), mp.mpf(10) ** -15
            slope = (reference(x + step) - reference(x - step)) / (2 * step)
        assert same(float(evaluate(f.value_form((0,)), {"x": point})), value), (text, point)
        assert same(float(evaluate(f.value_form((1,)), {"x": point})), slope), (text, point)
        with mpmath.workdps(40):
            precise = evaluate(f.value_form((0,)), {"x": mp.mpf(repr(point))}, "mpmath")
        assert same(float(precise), value)


@pytest.mark.parametrize("text", CHANGED)
@pytest.mark.parametrize("dialect", ["numpy", "torch", "numba"])
def test_printed_code_is_not_a_number_where_the_expression_is_not(text: str, dialect: str) -> None:
    """The same through the code of each target."""
    code = print_code(function(text).value_form((0,)), dialect, real="np.float64").text
    points = [np.float64(point) for point in POINTS]
    names = {"np": np, "torch": torch}
    if dialect == "numba":
        found = [eval(code, names, {"x": point}) for point in points]
    else:
        given = np.array(points)
        with np.errstate(invalid="ignore"):
            found = eval(code, names, {"x": torch.tensor(given) if dialect == "torch" else given})
        found = np.broadcast_to(np.asarray(found), len(points))
    for point, value in zip(POINTS, found, strict=True):
        assert same(float(value), CHANGED[text](mp.mpf(repr(point)))), (text, point)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x/x", "1"),
        ("sqrt(x**2)", "absolute(x)"),
        ("exp(log(x)/2)", "sqrt(x)"),
        ("log(exp(x))", "x"),
        ("log(1 - 1/(1 + exp(x)))", "-softplus(-x)"),
        ("log(2*x) + sqrt(x)**2", "x + log(2*x)"),
        ("max(sqrt(x), 0)", "Piecewise((0, sqrt(x) <= 0), (sqrt(x), True))"),
        ("x**c", "x**2"),
    ],
)
def test_nothing_is_added_where_nothing_was_lost(text: str, kept: str) -> None:
    """Single points do not count, and a condition that is there already is not asked for twice."""
    tree = parse_expression(text, parameters=["c"])
    values = (("c", 2.0),) if "c" in text else ()
    assert str(scalar_from_tree(tree, ("x",), values).value_form((0,))) == kept


def test_what_is_no_number_has_no_curvature() -> None:
    """Proofs look at the domain only."""
    assert piecewise_affine(function("sqrt(x)**2"))
    assert not piecewise_affine(function("exp(2*log(x))"))


def test_comparisons_stay_as_they_are_under_other_names() -> None:
    """The quantile loss: sums on both sides, which SymPy turns around for ever."""
    t, y, u, v = sympy.symbols("t y u v", real=True)
    larger = where(u <= v, v, u)
    loss = substituted(larger, {u: sympy.Rational(9, 10) * (t - y), v: (y - t) / 10})
    for ours, theirs in ((2.0, 1.0), (1.0, 2.0)):
        expected = max(0.9 * (theirs - ours), 0.1 * (ours - theirs))
        assert abs(float(loss.subs({t: theirs, y: ours})) - expected) < 1e-14
    assert settled(u < v) == (u < v)


def test_constants_are_compared() -> None:
    """Also those that SymPy does not know, and ties that it cannot decide."""
    x = sympy.Symbol("x", real=True)
    half = sympy.Rational(1, 2)
    assert settled(softplus(half) <= 1) == sympy.true
    assert settled(sigmoid(sympy.S.One) > erfc(half)) == sympy.true
    assert settled(sympy.log(4) <= 2 * sympy.log(2)) == sympy.true
    assert settled(sympy.log(4) < 2 * sympy.log(2)) == sympy.false
    assert sympy.Max(x, softplus(half)).subs(x, 2) == 2
    assert abs(float(softplus(half).evalf()) - math.log1p(math.exp(0.5))) < 1e-15


def test_a_branch_that_divides_by_zero_is_an_error_of_ours() -> None:
    """As is a condition of too many cases, which ends."""
    with pytest.raises(ModelError, match="not a finite real number"):
        function("where(1/relu(x) > x, x, 1)")
    nested = "x"
    for number in range(6):
        nested = f"max(min({nested}, x*{number + 2}), x**{number + 2})"
    with pytest.raises(ModelError, match="too many cases"):
        function(nested)


@pytest.mark.parametrize(
    "text", ["leaky_relu(x, slope)", "elu(x, slope)", "slope*relu(-x) + relu(x)", "relu(x)"]
)
@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_what_is_not_a_number_stays_none_whatever_a_parameter_is(text: str, slope: float) -> None:
    """Also where a branch is a number for the values of the parameters, in the function and its code."""
    tree = parse_expression(text, parameters=("slope",))
    function = scalar_from_tree(tree, ("x",), [("slope", slope)])
    value = function.value_form((0,))
    x = function.argument_symbols[0]
    assert np.isnan(evaluate(value, {x.name: np.array([np.nan])}, "numpy")).all()
    code = print_code(value, "torch", names={x.name: "x"}).text
    assert torch.isnan(eval(code, {"torch": torch, "x": torch.tensor([torch.nan])})).all()
    found = evaluate(value, {x.name: np.array([-1.5, 2.0])}, "numpy")
    wanted = {
        "elu(x, slope)": slope * np.expm1(-1.5),
        "slope*relu(-x) + relu(x)": slope * 1.5,
        "relu(x)": 0.0,
    }
    np.testing.assert_allclose(found, [wanted.get(text, -1.5 * slope), 2.0], rtol=1e-15)


STABLE: dict[str, Callable] = {
    "1/(2 + 3*exp(x))": lambda x: 1 / (2 + 3 * mp.exp(x)),
    "(4 + 3*exp(2*x))**-2": lambda x: (4 + 3 * mp.exp(2 * x)) ** -2,
    "log(3*exp(x)/(1 + exp(-2*x)))": lambda x: mp.log(3) + x - mp.log(1 + mp.exp(-2 * x)),
    "log(5*exp(x**2)*sigmoid(x)**3)": lambda x: mp.log(5) + x**2 - 3 * mp.log(1 + mp.exp(-x)),
}
"""Rewritten, so that nothing overflows; the numbers in them are not one."""


@pytest.mark.parametrize("text", STABLE)
def test_stable_forms_have_the_numbers_of_what_was_written(text: str) -> None:
    """Values and slopes at forty digits."""
    f, reference = function(text), STABLE[text]
    with mpmath.workdps(40):
        for point in POINTS:
            x, step = mp.mpf(repr(point)), mp.mpf(10) ** -15
            slope = (reference(x + step) - reference(x - step)) / (2 * step)
            for order, expected in ((0, reference(x)), (1, slope)):
                found = evaluate(f.value_form((order,)), {"x": x}, "mpmath")
                assert abs(found - expected) <= mp.mpf(10) ** -20 * (1 + abs(expected)), (text, point)


def test_all_arguments_of_a_maximum_count() -> None:
    """SymPy's own maxima and minima, of any number of arguments, become comparisons."""
    x = sympy.Symbol("x", real=True)
    for sympys, plain in ((sympy.Max, max), (sympy.Min, min)):
        for arguments in ((x, 2 * x + 1), (x, 2 * x + 1, sympy.Integer(2)), (x**2, 1 - x, x)):
            found = normalize(sympys(*arguments))
            assert not found.has(sympy.Max, sympy.Min)
            for point in POINTS:
                expected = plain(float(argument.subs(x, point)) for argument in arguments)
                assert float(evaluate(found, {"x": point})) == pytest.approx(expected, rel=1e-14)


def test_what_a_sigmoid_takes_of_an_exponential_does_not_overflow() -> None:
    """exp(−4x) alone is too large at −200, the product is not."""
    form = function("exp(-4*x)*sigmoid(x)").value_form((0,))
    for point in (-200.0, -3.0, 3.0, 200.0):
        found = float(evaluate(form, {"x": point}))
        with mpmath.workdps(40):
            expected = float(mp.exp(-4 * point) / (1 + mp.exp(-point)))
        assert found == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("text", ["abs(x)", "where(abs(x) <= 1, x*x/2, abs(x) - 1/2)"])
def test_the_sign_of_what_is_not_a_number_is_none(text: str) -> None:
    """``torch.sign`` makes 0 of it, and a gradient would be a number."""
    value = scalar_from_tree(parse_expression(text), ("x",), ()).value_form((1,))
    code = print_code(value, "torch")
    names = {"torch": torch, "Tensor": torch.Tensor}
    exec(helpers("torch", code.helpers), names)
    found = eval(code.text, {**names, "x": torch.tensor([torch.nan, -3.0, 0.5, 0.0], dtype=torch.float64)})
    assert torch.isnan(found[0]) and found[1] == -1 and found[3] == 0
    assert np.isnan(evaluate(value, {"x": np.array([np.nan])}, "numpy")).all()
