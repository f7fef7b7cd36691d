"""Powers of two below a number, and quotients that are divided where they are written, in every dialect."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from sifrc.scalar import POWER_OF_TWO, QUOTIENT, argument_symbol, evaluate, helpers, print_code
from sifrc.scalar.primitives import quotient

NUMBERS = [0.0, 1.0, 1.5, 3.0, 4.0, 0.1, 1e-30, 5e-324, 1.7e308, 2.5e-310]


def expected(value: float) -> float:
    return 2.0 ** math.floor(math.log2(value)) if value > 0 and value > 1e-300 else _small(value)


def _small(value: float) -> float:
    found = 1.0 if value == 0 else 5e-324
    while value > 0 and found * 2 <= value:
        found *= 2
    return found


def called(dialect: str, values: np.ndarray) -> np.ndarray:
    """By the helper of a dialect; those of Numba run as plain Python."""
    form = POWER_OF_TWO.value_form((0,))
    if dialect == "numpy":
        return np.asarray(evaluate(form, {"x": values}))
    if dialect == "mpmath":
        return np.array([float(evaluate(form, {"x": mpmath.mpf(float(v))}, "mpmath")) for v in values])
    code = print_code(form, dialect, real=f"np.{values.dtype}")
    text = helpers(dialect, code.helpers, real=f"np.{values.dtype}", decorator="")
    scope: dict[str, Any] = {"np": np, "math": math, "torch": torch, "Tensor": Tensor}
    exec(compile(text, dialect, "exec"), scope)  # the compiler's own text
    (name,) = code.helpers
    if dialect == "torch":
        return np.asarray(scope[name](torch.from_numpy(values)).numpy())
    return np.array([scope[name](value) for value in values], values.dtype)


@pytest.mark.parametrize("dialect", ["numpy", "mpmath", "numba", "torch"])
def test_the_largest_power_of_two_below_a_number(dialect: str) -> None:
    """Over the whole range, subnormal numbers and zero among them."""
    values = np.array(NUMBERS)
    np.testing.assert_array_equal(called(dialect, values), [expected(v) for v in NUMBERS])


@pytest.mark.parametrize("dialect", ["numpy", "numba", "torch"])
def test_powers_of_two_of_float32(dialect: str) -> None:
    """Every exponent, at both of its ends; infinity gives the largest one, and not a number gives 1."""
    powers = np.ldexp(np.float32(1), np.arange(-149, 128)).astype(np.float32)
    with np.errstate(over="ignore"):
        ends = np.nextafter((2 * powers).astype(np.float32), np.float32(0))
    np.testing.assert_array_equal(called(dialect, powers), powers)
    np.testing.assert_array_equal(called(dialect, ends), powers)
    edges = called(dialect, np.array([np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(edges, np.array([2.0**127, 1.0], np.float32))


def test_quotients_stay_in_their_order() -> None:
    """(x / y) / z is not x / (y z), which is zero here."""
    x, y = argument_symbol("x"), argument_symbol("y")
    nested = quotient(quotient(x, y), y)
    assert print_code(nested, "numba").text == "((x/y)/y)"
    assert print_code(nested, "torch").text == "((x/y)/y)"
    assert evaluate(nested, {"x": np.float64(1e200), "y": np.float64(1e200)}) == 1e-200
    assert QUOTIENT.derivative((1, 0)) == 1 / y and QUOTIENT.derivative((0, 1)) == -x / y**2
    assert POWER_OF_TWO.derivative((1,)) == 0
