"""Attention and positions, place by place and head by head, for arrays of NumPy and torch."""

from __future__ import annotations

from typing import Any

from sifrc.spec.layers.attention import AttentionSpec, SinusoidsSpec
from sifrc.verify.oracles.entries import At, joined, largest, softmax

__all__ = ["attention", "positions"]


def positions(at: At) -> Any:
    """A parameter for each place and feature, or the sines and cosines of Vaswani et al."""
    settings = at.layer.settings
    if isinstance(settings, SinusoidsSpec):
        places, features = at.layer.shape
        rows = []
        for place in range(places):
            angles = [_angle(at, place, 2 * (j // 2), features, settings.base) for j in range(features)]
            row = [at.function("cos(x)" if j % 2 else "sin(x)", angle) for j, angle in enumerate(angles)]
            rows.append(joined([value.reshape((1, 1)) for value in row], 1))
        return at.source + joined(rows, 0)
    return at.source + at.parameter("weight")


def _angle(at: At, place: int, exponent: int, width: int, base: float) -> Any:
    """place / base^(exponent / width), as an array of one entry."""
    one = 0 * at.source.reshape(-1)[:1] + 1
    return at.function("p/exp(n/w*log(x*b))", one, p=place, n=exponent, w=width, b=base) if place else 0 * one


def _turned(at: At, value: Any, settings: AttentionSpec) -> Any:
    """Every pair of every head as a complex number, times that of the angle of its place."""
    rows, half = [], settings.width // 2
    for place in range(value.shape[0]):
        row = [value[place : place + 1, j : j + 1] for j in range(value.shape[1])]
        for first in range(0, value.shape[1], settings.width):
            for n in range(half):
                a, b = (n, n + half) if settings.rotary == "halves" else (2 * n, 2 * n + 1)
                angle = _angle(at, place, 2 * n, settings.width, settings.base)
                cosine, sine = (at.function(text, angle).reshape((1, 1)) for text in ("cos(x)", "sin(x)"))
                real, imaginary = row[first + a], row[first + b]
                row[first + a] = real * cosine - imaginary * sine
                row[first + b] = real * sine + imaginary * cosine
        rows.append(joined(row, 1))
    return joined(rows, 0)


def attention(at: At) -> Any:
    """Head by head and place by place, over what the place reads."""
    settings = at.layer.settings
    assert isinstance(settings, AttentionSpec)
    sources = at.sources[:-1] if at.layer.mask else at.sources
    query, key, value = sources[0], sources[min(1, len(sources) - 1)], sources[-1]
    mask = at.sources[-1] if at.layer.mask else None
    if settings.projected:
        query, key, value = (
            _projected(at, part, source)
            for part, source in (("query", query), ("key", key), ("value", value))
        )
    if settings.rotary:
        query, key = _turned(at, query, settings), _turned(at, key, settings)
    columns = []
    for head in range(settings.heads):
        group = head * settings.groups // settings.heads
        own, shared = (slice(n * settings.width, (n + 1) * settings.width) for n in (head, group))
        rows = []
        for place in range(query.shape[0]):
            last = place + 1 if settings.causal else key.shape[0]
            products = (key[:last, shared] * query[place : place + 1, own]).sum(1)
            if mask is None:
                weights = softmax(at, at.function("a*x", products, a=settings.scale), 0)
            else:
                allowed = mask[:last] if mask.ndim == 1 else mask[place, :last]
                weights = _masked_softmax(at, at.function("a*x", products, a=settings.scale), allowed)
            rows.append((value[:last, shared] * weights.reshape((-1, 1))).sum(0).reshape((1, -1)))
        columns.append(joined(rows, 0))
    found = joined(columns, 1)
    return _projected(at, "output", found) if settings.projected else found


def _masked_softmax(at: At, values: Any, mask: Any) -> Any:
    """Weights of what may be read, over their sum; all zero where nothing may."""
    kept = at.function("where(x > 1/2, 1, 0)", mask)
    # A number taken off from all changes nothing, and there is a weight of 1 where something may be read.
    low = values * kept - (1 - kept) * 1000
    top = largest(low.detach() if hasattr(low, "detach") else low, 0)
    weights = at.function("exp(x)", low - top) * kept
    total = weights.sum(0)
    return weights / (total + (1 - largest(kept, 0)))


def _projected(at: At, part: str, value: Any) -> Any:
    name = f"{at.layer.name}.{part}"
    at.reads[name] = value
    value = value @ at.parameter("weight", part).T
    value = value + at.parameter("bias", part) if at.layer.bias else value
    return value + at.shifts[name] if name in at.shifts else value
