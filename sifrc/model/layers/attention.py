"""Attention: each place takes a mean of values, weighted by a softmax of products of queries and keys.

q = x Wqᵀ + βq,  k = z Wkᵀ + βk,  v = z Wvᵀ + βv
P = softmax_s(scale ⟨q_t, k_s⟩) for each head,  out = (P v) Woᵀ + βo

A mask enters conditions only, so that nothing is differentiated by it.
"""

from __future__ import annotations

from fractions import Fraction

from sifrc.ir import Affine, Axis, Expr, Input, Operand
from sifrc.ir.build import apply, einsum, rename, scale, total
from sifrc.ir.selections import joined
from sifrc.model.layers.angles import rotated, sinusoids
from sifrc.model.layers.building import Building
from sifrc.model.layers.elementary import linear
from sifrc.model.layers.masks import LEAVE_OUT, READ
from sifrc.model.layers.products import softmax_of
from sifrc.spec.layers.attention import AttentionSpec, SinusoidsSpec

__all__ = ["attention", "embedding", "positions"]


def positions(building: Building) -> Expr:
    """x + W: a parameter for each place and feature; or x and fixed sines and cosines."""
    settings = building.layer.settings
    if isinstance(settings, SinusoidsSpec):
        fixed = sinusoids(building, settings.base)
        return total([rename(building.source, building.axes), fixed], building.axes)
    weight = building.parameters().weight
    return total([rename(building.source, building.axes), rename(weight, building.axes)], building.axes)


def embedding(building: Building) -> Expr:
    """A row of W for each class: W times the vectors that classes are."""
    owned, source, axes = building.parameters(), building.source, building.axes
    *places, feature = axes
    count = source.axes[-1]
    return einsum([(owned.weight, (count, feature)), (source, (*places, count))], axes)


def attention(building: Building) -> Expr:
    """The heads of a layer, side by side, through the weight of its output."""
    settings = building.layer.settings
    assert isinstance(settings, AttentionSpec)
    sources = building.sources[:-1] if building.layer.mask else building.sources
    query, key, value = sources[0], sources[min(1, len(sources) - 1)], sources[-1]
    if not settings.projected:
        return _heads(building, settings, (query, key, value), building.axes)
    query, key, value = (
        _projected(building, part, source)
        for part, source in (("query", query), ("key", key), ("value", value))
    )
    axes = building.inner("mixed", building.axes)
    mixed = building.state("mixed", _heads(building, settings, (query, key, value), axes))
    return linear(building.parameters("output"), mixed, building.axes)


def _projected(building: Building, part: str, source: Expr) -> Input:
    """Queries, keys or values: a state inside of the layer, through a weight."""
    owned = building.parameters(part)
    axes = building.inner(part, (*source.axes[:-1], owned.weight.axes[0]))
    return building.state(part, linear(owned, source, axes), parameters=owned)


def _heads(
    building: Building,
    settings: AttentionSpec,
    states: tuple[Expr, Expr, Expr],
    axes: tuple[Axis, ...],
) -> Expr:
    """P v of each head, side by side: over places and features."""
    query, key, value = states
    width, groups = Axis("width", settings.width), settings.groups
    # Heads of queries, by the head of keys that they share where several do.
    shared = settings.heads // groups
    heads = (Axis("head", groups), Axis("shared", shared)) if shared > 1 else (Axis("head", groups),)
    out = building.inner("scores", (*heads, query.axes[0], key.axes[0]))
    *own, place, read = out
    asked = joined((*(axis.entries for axis in own), settings.width))
    answered = joined((groups, settings.width))
    if settings.rotary:
        products = _turned_products(building, settings, (query, key), out)
    else:
        products = einsum(
            [
                (asked, (query.axes[1], *own, width)),
                (query, (place, query.axes[1])),
                (answered, (key.axes[1], own[0], width)),
                (key, (read, key.axes[1])),
            ],
            out,
        )
    scores = building.state("scores", scale(Fraction(repr(settings.scale)), products))
    weighted = building.inner("weights", out)
    masked = rename(scores, weighted)
    allowed = _allowed(building, settings, weighted[-2:])
    if allowed is not None:
        # Added, so that all derivatives are those of the softmax alone.
        least = apply(LEAVE_OUT, allowed)
        masked = total([masked, einsum([(least, least.axes)], weighted)], weighted)
    weights = building.state("weights", softmax_of(masked, weighted[-1]))
    if allowed is not None and building.layer.mask:
        # A place that may read nothing has equal weights so far, and none in the end.
        kept = building.inner("kept", out)
        read_at = (kept[-2], kept[-1])
        factors = [(weights, kept), (apply(READ, allowed), read_at)]
        weights = building.state("kept", einsum(factors, kept))
    return einsum(
        [
            (asked, (axes[1], *own, width)),
            (weights, (*own, axes[0], read)),
            (answered, (value.axes[1], own[0], width)),
            (value, (read, value.axes[1])),
        ],
        axes,
    )


def _turned_products(
    building: Building, settings: AttentionSpec, states: tuple[Expr, Expr], out: tuple[Axis, ...]
) -> Expr:
    """Products of queries and keys whose pairs of features are turned by the angles of their places."""
    *heads, place, read = out
    factors: list[Operand] = []
    for name, source, own, at in (
        ("asked", states[0], tuple(heads), place),
        ("answered", states[1], (heads[0],), read),
    ):
        turned = rotated(building, name, source, tuple(axis.entries for axis in own), settings)
        width = tuple(Axis(f"width{n}", axis.entries) for n, axis in enumerate(turned.axes[-2:]))
        factors.append((turned, (at, *own, *width)))
    return einsum(factors, out)


def _allowed(building: Building, settings: AttentionSpec, axes: tuple[Axis, ...]) -> Expr | None:
    """More than 1/2 where a place may read another; None where all may read all."""
    place, read = axes
    factors: list[Operand] = [(_before(place, read), axes)] if settings.causal else []
    if building.layer.mask:
        mask = building.sources[-1]
        factors.append((mask, (read,) if len(mask.axes) == 1 else axes))
    return einsum(factors, axes) if factors else None


def _before(place: Axis, read: Axis) -> Expr:
    """1 where a place reads itself or one before it: their distance is one of 0, 1, …"""
    distance = Axis("distance", place.entries)
    sizes = (place.entries, read.entries, distance.entries)
    return einsum([(Affine(sizes, (1, -1, -1)), (place, read, distance))], (place, read))
