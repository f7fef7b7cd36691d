"""Named cases of every kind, without repetitions: what the fast run takes of all of them.

Chains that are every combination of an activation, a loss and a depth take the same path again and again. A
third of them has every activation with both losses, and every depth; the rest is run with the slow tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
from cases import CASES

__all__ = ["spread"]

_ALIKE = [
    name
    for name in CASES
    if re.fullmatch(r"(leaky_relu|tanh|softplus|custom)_(squared_error|cross_entropy)_[2-5]", name)
]
_FAST = frozenset(_ALIKE[::3])


def spread(names: Iterable[str]) -> list[Any]:
    """Parameters of a test over these cases: most chains that are alike are slow."""
    left = set(_ALIKE) - _FAST
    return [pytest.param(name, marks=pytest.mark.slow if name in left else ()) for name in names]
