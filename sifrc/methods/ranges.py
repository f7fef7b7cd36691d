"""The numbers that an option accepts: bounds, each included or not, and whether only whole ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["LARGEST_WHOLE", "Range"]

LARGEST_WHOLE = 2**31 - 1
"""Largest value of an option that is a whole number: compiled code computes with it in 64 bits."""


@dataclass(frozen=True)
class Range:
    """An interval of numbers, or of whole numbers.

    Args:
        lower, upper: its ends; infinite where there is none.
        above, below: whether the end itself is excluded.
        whole: whether only whole numbers are in it.

    Example:
        >>> 1.0 in Range(0.0, 1.0, below=True), 0.0 in Range(0.0, 1.0, below=True)
        (False, True)
        >>> print(Range(0.0, 1.0, below=True))
        a number from 0.0, below 1.0
    """

    lower: float = -math.inf
    upper: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether it is one of the numbers; NaN and infinity are not."""
        if not self.lower <= value <= self.upper or math.isinf(value) or value in self.excluded:
            return False
        return not self.whole or value == int(value)

    @property
    def excluded(self) -> tuple[float, ...]:
        """The ends that do not belong to it."""
        return (self.lower,) * self.above + (self.upper,) * self.below

    @property
    def ends(self) -> tuple[float | int | None, float | int | None]:
        """The ends as numbers, None where there is none."""
        kind = int if self.whole else float
        low, high = (None if math.isinf(end) else kind(end) for end in (self.lower, self.upper))
        return low, high

    def __str__(self) -> str:
        """The accepted numbers in words."""
        low, high = self.ends
        unbounded = high is None or (self.whole and high >= LARGEST_WHOLE)
        text = "a whole number" if self.whole else "a finite number" if unbounded else "a number"
        if low is not None:
            text += f" {'above' if self.above else 'from'} {low}"
        if unbounded:
            return text
        return text + (f", below {high}" if self.below else f" to {high}")
