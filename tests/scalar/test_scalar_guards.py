"""Branches that are computed where they are not taken: nothing overflows there or leaves its domain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from sifrc.scalar import print_code, scalar_from_tree
from sifrc.spec.parser import parse_expression

POINTS = np.array([-800.0, -3.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 800.0])
BRANCHES: dict[str, Callable[[float], float]] = {
    "where(x > 1, log(x - 1), x)": lambda x: np.log(x - 1) if x > 1 else x,
    "where(x < 3, log(3 - x), x)": lambda x: np.log(3 - x) if x < 3 else x,
    "where(x > 3, where(x < 5, log((x - 3)*(5 - x)), x), x)": lambda x: (
        np.log((x - 3) * (5 - x)) if 3 < x < 5 else x
    ),
    "where(x > 2, 1/sqrt(x - 2), x)": lambda x: (x - 2) ** -0.5 if x > 2 else x,
    "where(x < 2, exp(x), x)": lambda x: np.exp(x) if x < 2 else x,
    # The first points that come to mind inside the bounds are poles.
    "where(x > 6, 1/(x - 7), x)": lambda x: 1 / (x - 7) if x > 6 else x,
    "where(x < 0.2, 1/((x + 0.8)*(x + 1.8)), x)": lambda x: 1 / ((x + 0.8) * (x + 1.8)) if x < 0.2 else x,
    "where(x > 6, where(x < 7, 1/(x - 6.5), x), x)": lambda x: 1 / (x - 6.5) if 6 < x < 7 else x,
    # A comparison of what has been guarded is a condition by cases.
    "where(x > 0.2, 1/sqrt(1 + max(x**2, x)), 2)": lambda x: (1 + max(x**2, x)) ** -0.5 if x > 0.2 else 2.0,
    "where(x < 2, where(x**2 > 2 - x, sqrt(3 - x), x), x)": lambda x: (
        (3 - x) ** 0.5 if x < 2 and x**2 > 2 - x else x
    ),
}


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("text", BRANCHES)
def test_nothing_overflows_where_a_branch_is_not_taken(text: str, order: int) -> None:
    """By NumPy, which computes all branches, at their bounds and far beyond: log(0) is as bad as log(−1)."""
    form = scalar_from_tree(parse_expression(text), ("x",), ()).value_form((order,))
    said: list[str] = []
    with np.errstate(over="call", invalid="call", divide="call", call=lambda kind, _: said.append(kind)):
        found = eval(print_code(form, "numpy", real="np.float64").text, {"np": np, "x": POINTS})
    assert not said
    if order == 0:
        np.testing.assert_allclose(found, [BRANCHES[text](x) for x in POINTS], rtol=1e-12)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("text", BRANCHES)
def test_differentiation_of_the_code_by_torch_is_finite(text: str) -> None:
    """A branch that is not taken and not finite would make NaN of the slope."""
    form = scalar_from_tree(parse_expression(text), ("x",), ()).value_form((0,))
    x = torch.tensor(POINTS, requires_grad=True)
    value = eval(print_code(form, "torch").text, {"torch": torch, "x": x})
    value.sum().backward()
    slope = [(BRANCHES[text](p + 1e-7) - BRANCHES[text](p)) / 1e-7 for p in POINTS]
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())
    inside = (np.abs(POINTS[:, None] - [1, 2, 3, 5]) > 1e-6).all(1)
    np.testing.assert_allclose(x.grad.numpy()[inside], np.array(slope)[inside], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "text", ["1/min(relu(x) - relu(-x), x)", "where(x >= 1, x, where(x <= 1, 2, log(x)))"]
)
def test_a_branch_that_is_taken_nowhere_stays(text: str) -> None:
    """There is no point inside its bounds: x < 1 and x > 1."""
    form = scalar_from_tree(parse_expression(text), ("x",), ()).value_form((0,))
    with np.errstate(all="ignore"):
        found = eval(
            print_code(form, "numpy", real="np.float64").text, {"np": np, "x": np.array([-2.0, 3.0])}
        )
    np.testing.assert_allclose(found, [-0.5, 1 / 3] if text.startswith("1") else [2.0, 3.0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("where(x >= 0, sqrt(x), 3)", 0.0),
        ("where(x < 0, 3, sqrt(x))", 0.0),
        ("where(x <= 0, sqrt(-x), 3)", 0.0),
        ("where(x >= 0, 1/sqrt(1 + x), 3)", 1.0),
        ("where(x > 0, 3, 1/sqrt(1 - x))", 1.0),
        ("where(x > 0, 1/sqrt(x), 3)", 3.0),
    ],
)
def test_a_bound_that_a_branch_reaches_is_part_of_it(text: str, expected: float) -> None:
    """At the bound itself, by both dialects."""
    form = scalar_from_tree(parse_expression(text), ("x",), ()).value_form((0,))
    found = eval(print_code(form, "numpy", real="np.float64").text, {"np": np, "x": np.zeros(1)})
    assert found == expected
    assert eval(print_code(form, "torch").text, {"torch": torch, "x": torch.zeros(1)}) == expected


@pytest.mark.parametrize(
    "text", ["max(t, y)", "max(y, t)", "min(t, 2*y)", "max(s, y)", "min(y, s)", "max(0, y)"]
)
def test_what_a_network_computes_stays_not_a_number(text: str) -> None:
    """Beside targets and parameters; a tie goes to the second, or to the number."""
    tree = parse_expression(text, variables=("y", "t"), parameters=("s",))
    function = scalar_from_tree(tree, ("y", "t"), (("s", 0.5),)).bound()
    code = print_code(function.value_form((0, 0)), "numpy", real="np.float64").text
    point = {"np": np, "y": np.array([np.nan, 1.0]), "t": np.array([0.3, -2.0])}
    found = eval(code, point)
    assert np.isnan(found[0])
    assert found[1] == eval(text, {"max": max, "min": min, "y": 1.0, "t": -2.0, "s": 0.5})
