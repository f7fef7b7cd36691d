"""Numbers that are held at one time: in arrays of an object, and in tensors while something runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from torch.profiler import ProfilerActivity, profile

__all__ = ["numbers_in", "peak_numbers"]


def numbers_in(owners: Iterable[Any]) -> int:
    """Numbers in the NumPy arrays that are attributes, alone or in sequences; shared memory counts once."""
    spans = []
    for owner in owners:
        for value in vars(owner).values():
            arrays = (
                [value] if isinstance(value, np.ndarray) else value if isinstance(value, Sequence) else ()
            )
            for array in arrays:
                if isinstance(array, np.ndarray):
                    start = array.__array_interface__["data"][0] // array.itemsize
                    spans.append((start, start + array.size))
    total, reached = 0, 0
    for start, stop in sorted(spans):
        total += max(stop - max(start, reached), 0)
        reached = max(reached, stop)
    return total


def peak_numbers(run: Callable[[], object]) -> float:
    """Largest number of float32 numbers that torch's allocations hold at one time, by its profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    return float(max(np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]))) / 4
