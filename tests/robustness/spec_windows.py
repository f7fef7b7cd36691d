"""Windows of convolutions and pooling for random specs: mostly such that they fit."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

__all__ = ["WINDOWED", "divisor", "places_of", "window_of"]

WINDOWED = 0.25
"""Share of networks whose input has channels at places, for layers of type conv and pool."""
_MOST_PLACES = {1: 7, 2: 4, 3: 3}
_LARGEST_KERNEL = 3
_UNCHECKED = 0.02
"""How often a window need not fit."""

Pairs = tuple[tuple[int, int], ...]


def places_of(rng: Random) -> tuple[int, ...]:
    """Places of an input, of one to three axes."""
    axes = rng.choice((1, 1, 1, 2, 2, 2, 3))
    return tuple(rng.randint(1, _MOST_PLACES[axes]) for _ in range(axes))


def divisor(rng: Random, number: int) -> int:
    """One of its divisors."""
    return rng.choice([n for n in range(1, min(number, 8) + 1) if number % n == 0])


def window_of(
    rng: Random, places: Sequence[int], pooling: str = "", kernel: Sequence[int] | None = None
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Keys of a layer that reads windows, and the places of its output.

    Args:
        rng: where all choices come from.
        places: of the input.
        pooling: ``average``, ``max``, or nothing for a convolution.
        kernel: of the layer whose parameters are shared.
    """
    same = rng.random() < 0.25
    sizes = list(kernel or (rng.randint(1, _LARGEST_KERNEL) for _ in places))
    dilation = [1 if pooling or rng.random() < 0.75 else 2 for _ in places]
    stride = [1 if same else rng.choice((1, 1, 2, 3)) for _ in places]
    if pooling and not same and rng.random() < 0.4:
        stride = list(sizes)
    padding = [_pair(rng, same, size, step, pooling) for size, step in zip(sizes, dilation, strict=True)]
    if rng.random() > _UNCHECKED:
        for axis, place in enumerate(places):
            while dilation[axis] * (sizes[axis] - 1) + 1 > place + sum(padding[axis]):
                _fit(axis, sizes, dilation, padding, kernel is None)
    if same:
        padding = [_around(size, step) for size, step in zip(sizes, dilation, strict=True)]
    made = tuple(
        max(0, place + sum(pair) - step * (size - 1) - 1) // by + 1
        for place, pair, step, size, by in zip(places, padding, dilation, sizes, stride, strict=True)
    )
    keys: dict[str, Any] = {"kernel": _written(rng, sizes)}
    if stride != (sizes if pooling else [1] * len(places)) or rng.random() < 0.1:
        keys["stride"] = _written(rng, stride)
    if not pooling and (set(dilation) != {1} or rng.random() < 0.1):
        keys["dilation"] = _written(rng, dilation)
    if same:
        keys["padding"] = "same"
    elif any(map(any, padding)):
        keys["padding"] = _padding(rng, tuple(padding))
    elif rng.random() < 0.1:
        keys["padding"] = rng.choice(("valid", 0))
    return keys, made


def _around(size: int, step: int) -> tuple[int, int]:
    reach = step * (size - 1)
    return reach // 2, reach - reach // 2


def _pair(rng: Random, same: bool, size: int, step: int, pooling: str) -> tuple[int, int]:
    """Padding before and after an axis."""
    if same:
        return _around(size, step)
    most = size - 1 if pooling == "max" else 2
    draw = rng.random()
    if draw < 0.55:
        return 0, 0
    before = rng.randint(0, most)
    return (before, before) if draw < 0.8 else (before, rng.randint(0, most))


def _fit(
    axis: int, sizes: list[int], dilation: list[int], padding: list[tuple[int, int]], smaller: bool
) -> None:
    """Change one thing so that windows along an axis reach less far, or more is there for them."""
    before, after = padding[axis]
    if dilation[axis] > 1:
        dilation[axis] -= 1
    elif smaller:
        sizes[axis] -= 1
        padding[axis] = (min(before, max(0, sizes[axis] - 1)), min(after, max(0, sizes[axis] - 1)))
    else:
        padding[axis] = (before, after + 1)


def _written(rng: Random, numbers: list[int]) -> int | list[int]:
    """One number for all axes where they agree, or one an axis."""
    return numbers[0] if len(set(numbers)) == 1 and rng.random() < 0.7 else list(numbers)


def _padding(rng: Random, pairs: Pairs) -> Any:
    """In one of the forms that it may have."""
    if any(before != after for before, after in pairs) or rng.random() < 0.2:
        return [list(pair) if pair[0] != pair[1] or rng.random() < 0.5 else pair[0] for pair in pairs]
    return _written(rng, [before for before, _ in pairs])
