"""Numbers that are held at one time: in arrays of an object, and in tensors while something runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch.profiler import ProfilerActivity, profile

__all__ = ["numbers_in", "peak_numbers"]


def numbers_in(owners: Iterable[Any]) -> int:
    """Numbers in the NumPy arrays that are attributes, alone or in tuples; shared memory counts once."""
    held: dict[int, int] = {}
    for owner in owners:
        for value in vars(owner).values():
            for array in value if isinstance(value, tuple) else (value,):
                if isinstance(array, np.ndarray):
                    root = array if array.base is None else array.base
                    held[id(root)] = root.size
    return sum(held.values())


def peak_numbers(run: Callable[[], object]) -> float:
    """Largest number of float32 numbers that torch's allocations hold at one time, by its profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    return float(max(np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]))) / 4
