"""What a verification is asked for, read once and before anything is compiled."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

from sifrc.errors import VerificationError
from sifrc.spec.suggest import shortened

__all__ = ["LEVELS", "read_digits", "read_levels"]

LEVELS = (1, 2, 3)
"""Symbolic, many digits, generated code."""
_FEWEST = 20
"""Digits of level 2; ten of them are for rounding."""


def read_levels(given: Any) -> tuple[int, ...]:
    """The levels of the ladder, each once and in order.

    Raises:
        VerificationError: they are no list of 1, 2 and 3, or there is none.

    Example:
        >>> read_levels([3, 1, 3])
        (1, 3)
        >>> read_levels("a")
        Traceback (most recent call last):
        sifrc.errors.VerificationError: error: levels: expected some of 1, 2, 3, got 'a'
          = levels=(1, 2, 3): 1 symbolic, 2 many digits, 3 generated code
    """
    listed = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else []
    # A truth value is a whole number to Python.
    whole = all(isinstance(one, Integral) and not isinstance(one, bool) for one in listed)
    if not listed or not whole or not set(listed) <= set(LEVELS):
        raise VerificationError(
            f"levels: expected some of 1, 2, 3, got {shortened(repr(given))}",
            hint="levels=(1, 2, 3): 1 symbolic, 2 many digits, 3 generated code",
        )
    return tuple(level for level in LEVELS if level in listed)


def read_digits(given: Any) -> int:
    """The precision of level 2.

    Raises:
        VerificationError: it is no whole number, or too small.

    Example:
        >>> read_digits(50)
        50
    """
    if isinstance(given, bool) or not isinstance(given, Integral) or int(given) < _FEWEST:
        raise VerificationError(
            f"digits: expected a whole number, at least {_FEWEST}, got {shortened(repr(given))}",
            hint="digits=50",
        )
    return int(given)
