"""Functions that Torch computes in one pass stand where an expression is that function."""

from __future__ import annotations

import pytest
import sympy
import torch

from sifrc.scalar import helpers, print_code
from sifrc.scalar.fused import fused
from sifrc.scalar.primitives import erfc, expm1
from sifrc.scalar.through import through_value

X, Y, S = sympy.symbols("x y s", real=True)
GELU = X * erfc(-X / sympy.sqrt(2)) / 2
ELU = sympy.Piecewise((X, X > 0), (expm1(X), True))
CASES = {
    "elu": (ELU, "torch.nn.functional.elu(x)"),
    "slope of elu": (ELU.diff(X), "torch.exp(torch.clamp(x, max=0.0))"),
    "through its value": (through_value(ELU.diff(X), ELU, X), "torch.clamp(x, max=0.0) + 1.0"),
    "half of a slope": (
        Y * sympy.Piecewise((0, X > 0), (X + 1, True)),
        "_where_not_positive(y*(x + 1.0), x)",
    ),
    "other half": (
        Y * sympy.Piecewise((X + 1, X > 0), (0, True)),
        "torch.ops.aten.threshold_backward(y*(x + 1.0), x, 0.0)",
    ),
    "slope of relu": (
        sympy.Piecewise((1, X > 0), (0, True)),
        "torch.ops.aten.threshold_backward(torch.ones_like(x), x, 0.0)",
    ),
    "gelu": (GELU, "torch.nn.functional.gelu(x)"),
    "slope of gelu": (GELU.diff(X), "torch.ops.aten.gelu_backward(torch.ones_like(x), x)"),
    "times a slope of gelu": (Y * GELU.diff(X), "torch.ops.aten.gelu_backward(y, x)"),
    "slope of tanh, through its value": (
        -2 * X * Y * through_value(sympy.tanh(X).diff(X), sympy.tanh(X), X),
        "-2.0*torch.ops.aten.tanh_backward(x*y, x)",
    ),
    "times a slope of elu": (
        Y * through_value(ELU.diff(X), ELU, X),
        "torch.ops.aten.elu_backward(y, 1.0, 1.0, 1.0, True, x)",
    ),
    "root": (-1 / sympy.sqrt(X**2 + 1), "-torch.rsqrt(x**2 + 1.0)"),
}
LABELS = {"x": ("p", "i"), "y": ("p", "i")}


@pytest.mark.parametrize("name", CASES)
def test_text_and_values(name: str) -> None:
    """Against the expression as it was, at numbers on both sides of zero and at zero."""
    expression, text = CASES[name]
    code = print_code(expression, "torch", tensors=LABELS, single=True)
    assert code.text == text
    x = torch.tensor([[-40.0, -3.0, -0.5, -0.0, 0.0], [1e-30, 0.25, 2.0, 7.0, 90.0]], dtype=torch.float64)
    y = torch.linspace(-2.0, 3.0, 10, dtype=torch.float64).view(2, 5)
    scope = {"torch": torch, "Tensor": torch.Tensor, "x": x, "y": y}
    exec(helpers("torch", code.helpers), scope)
    expected = [
        float(expression.subs({X: sympy.Float(a), Y: sympy.Float(b)}).evalf(30))
        for a, b in zip(x.flatten().tolist(), y.flatten().tolist(), strict=True)
    ]
    torch.testing.assert_close(
        eval(code.text, scope), torch.tensor(expected, dtype=x.dtype).view(2, 5), rtol=1e-14, atol=1e-14
    )


def test_numbers_have_no_slopes() -> None:
    """1 − s² of a number is computed once, not for each entry."""
    assert print_code(Y * (1 - S**2), "torch", tensors=LABELS).text == "(1.0 - s**2)*y"


def test_gelu_keeps_its_digits_in_double_precision() -> None:
    """1 + erf(x/√2) has none of x = −30."""
    assert "erfc" in print_code(GELU, "torch", tensors=LABELS).text


def test_a_slope_of_gelu_is_not_repeated_along_an_axis() -> None:
    """Torch's function wants tensors of one shape."""
    labels = {"x": ("i",), "y": ("p", "i")}
    text = print_code(Y * GELU.diff(X), "torch", tensors=labels, single=True).text
    assert text == "torch.ops.aten.gelu_backward(torch.ones_like(x), x)*y"


@pytest.mark.parametrize(
    "choice",
    [
        sympy.Piecewise((1, X > 0), (X + 2, True)),
        sympy.Piecewise((0, X >= 0), (X + 1, True)),
        sympy.Piecewise((0, X > 0), (Y, True)),
        sympy.Piecewise((X, X > 0), (-expm1(X), X < -1), (0, True)),
    ],
)
def test_other_choices_stay(choice: sympy.Expr) -> None:
    """Branches that do not meet; that differ at zero; that are no NaN where x is; three of them."""
    assert fused(choice, LABELS).has(sympy.Piecewise)


def test_a_power_through_a_power() -> None:
    """And no power that is not a whole one of the value."""
    root = 1 / sympy.sqrt(X + 1)
    assert through_value(root.diff(X, 2), root, S) == sympy.Rational(3, 4) * S**5
    assert through_value((X**2).diff(X), X**2, S) is None
