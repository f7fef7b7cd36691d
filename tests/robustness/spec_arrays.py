"""Arrays by name: how large they are, how far apart, and whether they are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mpmath
import numpy as np

__all__ = ["distance", "error_of", "finite", "largest", "largest_of", "shown"]


def error_of(values: Mapping[str, Any], exact: Mapping[str, Any]) -> float:
    """The largest distance from numbers of many digits."""
    pairs = [
        pair for n, value in exact.items() for pair in zip(np.ravel(values[n]), value.ravel(), strict=True)
    ]
    distances = (abs((a if isinstance(a, mpmath.mpf) else mpmath.mpf(float(a))) - b) for a, b in pairs)
    return float(max(distances, default=0.0))


def largest_of(exact: Mapping[str, Any]) -> Any:
    return max((abs(entry) for value in exact.values() for entry in value.ravel()), default=mpmath.mpf(0))


def finite(values: Mapping[str, Any]) -> bool:
    return all(bool(np.isfinite(value).all()) for value in values.values())


def largest(values: Mapping[str, Any]) -> float:
    return max((float(np.abs(value).max(initial=0.0)) for value in values.values()), default=0.0)


def distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return max((float(np.abs(one[n] - other[n]).max(initial=0.0)) for n in other), default=0.0)


def shown(values: Mapping[str, Any]) -> str:
    flat = [f"{float(entry):.6g}" for value in values.values() for entry in np.ravel(value)]
    return "[" + " ".join(flat[:4]) + (" …]" if len(flat) > 4 else "]")
