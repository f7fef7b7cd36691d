"""Conditions by cases, which SymPy makes of comparisons with clamped arguments, in every dialect."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import sympy
import torch

from sifrc.scalar import print_code
from sifrc.scalar.evaluate import evaluate

X, Y = sympy.symbols("x y", real=True)
CASES = [
    sympy.ITE(X > 0, *sides)
    for sides in (
        (Y > 1, X < 2),
        (Y > 1, sympy.true),
        (Y > 1, sympy.false),
        (sympy.true, Y > 1),
        (sympy.false, Y > 1),
    )
]
AT = np.array([*product((-1.0, 0.5, 3.0, math.nan), (0.0, 2.0, math.nan))]).T


@pytest.mark.parametrize("condition", [*CASES, sympy.Or(CASES[0], X > 2, evaluate=False)], ids=str)
def test_conditions_by_cases(condition: sympy.logic.boolalg.Boolean) -> None:
    """As Python's own conditional expression: what is no number is not larger."""
    form = sympy.Piecewise((X + 1, condition), (2 * Y, True), evaluate=False)

    def by_hand(x: float, y: float) -> bool:
        def holds(node: sympy.Basic) -> bool:
            if isinstance(node, sympy.ITE):
                return holds(node.args[1] if holds(node.args[0]) else node.args[2])
            if isinstance(node, sympy.Or):
                return any(map(holds, node.args))
            if node in (sympy.true, sympy.false):
                return bool(node)
            left, right = (x if a == X else y if a == Y else float(a) for a in node.args)
            return left > right if isinstance(node, sympy.StrictGreaterThan) else left < right

        return holds(condition)

    expected = np.array([x + 1 if by_hand(x, y) else 2 * y for x, y in AT.T])
    x, y = AT
    found = evaluate(form, {"x": x, "y": y})
    np.testing.assert_array_equal(found, expected)
    vector = print_code(form, "numpy", real="np.float64").text
    np.testing.assert_array_equal(eval(vector, {"np": np, "x": x, "y": y}), expected)
    tensors = {"torch": torch, "x": torch.tensor(x), "y": torch.tensor(y)}
    np.testing.assert_array_equal(eval(print_code(form, "torch").text, tensors).numpy(), expected)
    for dialect in ("numba", "cuda"):
        text = print_code(form, dialect, real="np.float64").text
        each = [eval(text, {"np": np, "math": math, "x": a, "y": b}) for a, b in AT.T]
        np.testing.assert_array_equal(each, expected)
