"""Dual numbers of many digits, far from zero."""

from __future__ import annotations

import mpmath
import pytest

from sifrc.verify.oracles.duals import FUNCTIONS, power


@pytest.fixture(autouse=True)
def fifty_digits():
    with mpmath.workdps(50):
        yield


def test_an_exponential_far_below_zero_is_not_zero() -> None:
    """log(exp(x)) is x wherever x is a number of float64."""
    for x in (-1e30, -1e300, 1e300):
        assert FUNCTIONS["log"](FUNCTIONS["exp"](mpmath.mpf(x))) == x


@pytest.mark.parametrize(("name", "limit"), [("exp", 0), ("tanh", -1), ("sigmoid", 0), ("softplus", 0)])
def test_beyond_that_it_is_its_limit(name: str, limit: int) -> None:
    """-exp(800) is no number of float64."""
    assert FUNCTIONS[name](-mpmath.exp(800)) == limit


@pytest.mark.parametrize("name", ["exp", "sinh", "cosh", "sin", "cos", "tan"])
@pytest.mark.parametrize("logarithm", [800, 1e12, 1e299])
def test_without_a_limit_it_is_refused_at_once(name: str, logarithm: float) -> None:
    """Some of them would ask for more digits than there is memory."""
    with pytest.raises(OverflowError, match=f"{name} beyond 1e\\+300"):
        FUNCTIONS[name](mpmath.exp(mpmath.mpf(logarithm)))
    with pytest.raises(OverflowError, match="exponent beyond"):
        power(mpmath.mpf(2), mpmath.exp(mpmath.mpf(logarithm)))
