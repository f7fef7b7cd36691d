"""What was made of the arrays of a data set, so that they go to a device once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

__all__ = ["Kept"]

_MOST = 8  # training and test part need four

T = TypeVar("T")


class Kept(Generic[T]):
    """What was made of the last few arrays, which must not change in between.

    Example:
        >>> import numpy as np
        >>> kept, one, other = Kept(), np.zeros(2), np.ones(2)
        >>> kept.of(one, list) is kept.of(one, list), kept.of(other, list) == [1, 1], len(kept)
        (True, True, 2)
    """

    def __init__(self) -> None:
        """Nothing is kept yet."""
        # Each array is kept with what was made of it, so that its id stays its own.
        self._made: dict[int, tuple[NDArray[Any], T]] = {}

    def __len__(self) -> int:
        """How many arrays are known."""
        return len(self._made)

    def of(self, array: NDArray[Any], make: Callable[[NDArray[Any]], T]) -> T:
        """What ``make`` makes of an array, now or before."""
        known = self._made.get(id(array))
        if known is None:
            if len(self._made) >= _MOST:
                self._made.clear()
            known = self._made[id(array)] = array, make(array)
        return known[1]
