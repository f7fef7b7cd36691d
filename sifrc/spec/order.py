"""An order in which everything comes after what it needs."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Set

__all__ = ["after_needs"]


def after_needs(needs: Mapping[int, Set[int]]) -> Iterator[int]:
    """Numbers after those that they need, and otherwise from the least on (Kahn's algorithm).

    Args:
        needs: number -> those that it needs, which are numbers of the mapping too.

    Yields:
        Each number once; those of a cycle, and what needs them, not at all.

    Example:
        >>> list(after_needs({1: {3}, 2: set(), 3: set()})), list(after_needs({1: {2}, 2: {1}}))
        ([2, 3, 1], [])
    """
    waiting = {number: len(needed) for number, needed in needs.items()}
    users: dict[int, list[int]] = {number: [] for number in needs}
    for number, needed in needs.items():
        for other in needed:
            users[other].append(number)
    ready = [number for number, count in waiting.items() if not count]
    heapq.heapify(ready)
    while ready:
        number = heapq.heappop(ready)
        yield number
        for user in users[number]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, user)
