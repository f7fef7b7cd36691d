"""Gradient, Hessian– and Gauss–Newton–vector products of random networks, against torch.func.

The oracle reads the spec's syntax trees with torch operations and differentiates automatically; it shares
no code with the derivation.
"""

from __future__ import annotations

from typing import Any

import pytest
from agreement import check
from cases import CASES, marked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import specs

RANDOM = settings(
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=50)
def test_random_network_agrees_with_automatic_differentiation(data: dict[str, Any], seed: int) -> None:
    """∇, H v and G v of a random graph equal automatic differentiation to rounding."""
    check(data, seed)


@pytest.mark.slow
@given(data=specs(), seed=st.integers(0, 2**16))
@settings(RANDOM, max_examples=1500)
def test_many_random_networks_agree_with_automatic_differentiation(data: dict[str, Any], seed: int) -> None:
    """The same on many more networks."""
    check(data, seed)


@pytest.mark.parametrize("name", marked(CASES))
def test_named_case_agrees_with_automatic_differentiation(name: str) -> None:
    """∇, H v and G v of every named case."""
    check(CASES[name], seed=7)
