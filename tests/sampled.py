"""Parameters of a test of which the fast suite takes some, and the slow one the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["one_in"]


def one_in(every: int, cases: Iterable[Any]) -> list[Any]:
    """Of every so many the first; the others are slow.

    Example:
        >>> [parameter.values[0] for parameter in one_in(2, "abc") if not parameter.marks]
        ['a', 'c']
    """
    return [
        pytest.param(case, marks=[pytest.mark.slow] if number % every else [])
        for number, case in enumerate(cases)
    ]
