"""Angles of places: sines and cosines of position · base^(−2 · pair / width), as fixed tables.

Features come in pairs, each with a frequency of its own (Vaswani et al. 2017; Su et al. 2021).
"""

from __future__ import annotations

import sympy

from sifrc.ir import Affine, Axis, Expr, Input
from sifrc.ir.build import einsum, total
from sifrc.ir.selections import joined
from sifrc.model.layers.building import Building, axes_of
from sifrc.scalar import ScalarFunction
from sifrc.spec.layers.attention import AttentionSpec

__all__ = ["rotated", "sinusoids"]

_PLACE, _PAIR, _PART = sympy.symbols("place pair part", real=True)


def _angle(base: float, width: int) -> sympy.Expr:
    """position · base^(−2 · pair / width)."""
    step = sympy.log(sympy.Rational(repr(base))) * sympy.Rational(2, width)
    return _PLACE * sympy.exp(-step * _PAIR)


def sinusoids(building: Building, base: float) -> Expr:
    """Σ over pairs: the sine of the angle at the even feature of a pair, its cosine at the odd one."""
    place, feature = building.axes
    angle, size = _angle(base, feature.entries), -(-feature.entries // 2)
    formula = (1 - _PART) * sympy.sin(angle) + _PART * sympy.cos(angle)
    function = ScalarFunction("sinusoids", ("place", "pair", "part"), formula)
    table = building.tables.symbol(function, (place.entries, size, 2))
    pair, part = Axis("pair", size), Axis("part", 2)
    own = Affine((feature.entries, size, 2), (1, -2, -1))
    return einsum([(own, (feature, pair, part)), (table, (place, pair, part))], building.axes)


def rotated(
    building: Building, name: str, source: Expr, heads: tuple[int, ...], settings: AttentionSpec
) -> Input:
    """The pairs of features of each head, turned by the angle of their place: two states inside of the layer.

    Args:
        building: of the layer.
        name: of the states, after that of the layer.
        source: places × features of all heads.
        heads: sizes of the axes that count them.
        settings: which features of a head are a pair, and the base of the frequencies.

    Returns:
        A state over the place, the heads, and as the settings have it the part of a pair and the pair.
    """
    place, feature = source.axes
    half = settings.width // 2
    inner = (2, half) if settings.rotary == "halves" else (half, 2)
    whole = axes_of(f"{building.layer.name}.{name}", (place.entries, *heads, *inner))
    split = einsum([(joined((*heads, *inner)), (feature, *whole[1:])), (source, (whole[0], feature))], whole)
    apart = building.state(name, split)
    axes = axes_of(f"{building.layer.name}.{name}_turned", (place.entries, *heads, *inner))
    at, part, pair = (axes[0], *(axes[-2:] if settings.rotary == "halves" else axes[:-3:-1]))
    angle = _angle(settings.base, settings.width)
    cosine = ScalarFunction("cosine", ("place", "pair"), sympy.cos(angle))
    # The first of a pair gets minus the sine times the second, the second the sine times the first.
    signed = ScalarFunction("signed sine", ("place", "part", "pair"), (2 * _PART - 1) * sympy.sin(angle))
    own = building.tables.symbol(cosine, (place.entries, half))
    across = building.tables.symbol(signed, (place.entries, 2, half))
    other = Axis("other", 2)
    swapped = tuple(other if axis is part else axis for axis in axes)
    swap = Affine((2, 2), (1, 1), 1)
    terms = [
        einsum([(own, (at, pair)), (apart, axes)], axes),
        einsum([(across, (at, part, pair)), (swap, (part, other)), (apart, swapped)], axes),
    ]
    return building.state(f"{name}_turned", total(terms, axes))
