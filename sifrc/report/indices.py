"""How layer indices and ranges of them print: numbers, relative to k, or relative to n."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["NUMBERS", "Naming", "range_text"]


@dataclass(frozen=True)
class Naming:
    """Turns layer indices into text.

    Args:
        letter: ``k`` or ``n``; empty for plain numbers.
        at: the index that the letter stands for.
        reach: how far from ``at`` an index is still written with the letter; None for any distance.

    Example:
        >>> Naming("k", 5).text(4), Naming("n", 5, 2).text(0), NUMBERS.text(-1)
        ('k−1', '0', '−1')
    """

    letter: str = ""
    at: int = 0
    reach: int | None = None

    def text(self, index: int) -> str:
        """The index as text."""
        distance = index - self.at
        # 0 is the input wherever an index is counted from n.
        near = self.reach is None or (abs(distance) <= self.reach and index > 0)
        if not self.letter or not near:
            return str(index).replace("-", "−")
        if distance == 0:
            return self.letter
        return f"{self.letter}{'+' if distance > 0 else '−'}{abs(distance)}"


NUMBERS = Naming()
"""Indices as they are."""


def range_text(members: Iterable[int], last: int | None, letter: str = "k") -> str:
    """A set of indices as text.

    Args:
        members: the indices.
        last: the index called n, or None to write numbers only.
        letter: the running index.

    Example:
        >>> range_text([1, 2, 3], 4), range_text([1, 3, 5, 7], 4), range_text([1, 2, 5], None)
        ('k = 1..n−1', 'k = 1, 3, …, 7', 'k = 1..2, 5')
    """
    ordered = sorted(set(members))
    naming = NUMBERS if last is None else Naming("n", last, 2 if last > 5 else 1)

    def name(index: int, start: bool = False) -> str:
        return str(index) if start and index < 3 else naming.text(index)

    steps = {b - a for a, b in itertools.pairwise(ordered)}
    if len(ordered) > 3 and len(steps) == 1 and steps != {1}:
        return f"{letter} = {ordered[0]}, {ordered[1]}, …, {name(ordered[-1])}"
    runs: list[list[int]] = []
    for index in ordered:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    parts = [name(a) if a == b else f"{name(a, start=True)}..{name(b)}" for a, b in runs]
    return f"{letter} = {', '.join(parts)}"
