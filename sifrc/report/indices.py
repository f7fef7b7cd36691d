"""How layer indices and ranges of them print: numbers, relative to k, or relative to n."""

from __future__ import annotations

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
        >>> range_text([1, 2, 3], 4), range_text([1, 3, 5, 7], 4), range_text([1, 2, 5, 8, 11, 14], None)
        ('k = 1..n−1', 'k = 1, 3, …, 7', 'k = 1..2, 5, 8, …, 14')
    """
    ordered = sorted(set(members))
    naming = NUMBERS if last is None else Naming("n", last, 2 if last > 5 else 1)

    def name(index: int, start: bool = False) -> str:
        return str(index) if start and index < 3 else naming.text(index)

    parts: list[str] = []
    while ordered:
        # The longest run with equal steps from here on; one of a few numbers is written out.
        step = ordered[1] - ordered[0] if len(ordered) > 1 else 1
        count = 1
        while count < len(ordered) and ordered[count] - ordered[count - 1] == step:
            count += 1
        first, last_one = ordered[0], ordered[count - 1]
        if step == 1 and count > 1:
            parts.append(f"{name(first, start=True)}..{name(last_one)}")
        elif count > 3:
            parts.append(f"{first}, {ordered[1]}, …, {name(last_one)}")
        else:
            count = 1
            parts.append(name(first))
        ordered = ordered[count:]
    return f"{letter} = {', '.join(parts)}"
