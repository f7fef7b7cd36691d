"""Normalisation: entries without their mean, times one over the root of their mean square.

    c = x − mean x,  r = 1/√(mean c² + ε),  x̂ = γ c r + β

c and r are states of their own, so that nothing is computed twice; their adjoints and tangents are derived
like those of any state.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod

from sifrc.ir import Axis, Expr, Input, Operand
from sifrc.ir.build import einsum, scale, subtract, total
from sifrc.ir.selections import joined
from sifrc.model.layers.building import Building
from sifrc.scalar import scalar_from_tree
from sifrc.scalar.function import ScalarFunction
from sifrc.spec.layers.norms import NormSpec
from sifrc.spec.parser import parse_expression

__all__ = ["norm", "root"]


def norm(building: Building) -> Expr:
    """x̂ of a layer; without a mean that is taken off, where it is the root mean square alone."""
    settings = building.layer.settings
    assert isinstance(settings, NormSpec)
    source = building.source
    relation: Operand | None = None
    if settings.groups:
        # Channels as groups and the channels of each, over which and over the places means are.
        channels, *places = source.axes
        split = Axis("group", settings.groups), Axis("own", channels.entries // settings.groups)
        relation = joined((settings.groups, split[1].entries)), (channels, *split)
        whole = building.inner("centred", (*split, *places))
        read = [(relation[0], (channels, *whole[:2])), (source, (channels, *whole[2:]))]
        over = whole[1:]
    else:
        whole = building.inner("centred", source.axes)
        read = [(source, whole)]
        over = tuple(whole[axis] for axis in settings.axes)
    count = prod(axis.entries for axis in over)
    kept = tuple(axis for axis in whole if axis not in over)
    value = einsum(read, whole)
    if building.layer.kind != "rms_norm":
        mean = scale(Fraction(1, count), einsum(read, kept))
        value = building.state("centred", subtract(value, einsum([(mean, kept)], whole)))
    rest = building.inner("scale", kept)
    names = dict(zip(kept, rest, strict=True))
    squared = (value, tuple(names.get(axis, axis) for axis in value.axes))
    squares = scale(Fraction(1, count), einsum([squared, squared], rest))
    factor = building.state("scale", squares, root(settings.epsilon))
    return _scaled(building, settings, (value, factor, kept), relation)


def _scaled(
    building: Building,
    settings: NormSpec,
    parts: tuple[Expr, Input, tuple[Axis, ...]],
    relation: Operand | None,
) -> Expr:
    """γ c r + β."""
    value, factor, kept = parts
    axes = building.axes
    if relation is None:
        names = dict(zip(value.axes, axes, strict=True))
        product: list[Operand] = []
        rows = tuple(axes[axis] for axis in settings.axes)
    else:
        names = dict(zip(value.axes[2:], axes[1:], strict=True))
        product = [(relation[0], (axes[0], *value.axes[:2]))]
        rows = axes[:1]
    product += [(value, tuple(names.get(axis, axis) for axis in value.axes))]
    product += [(factor, tuple(names.get(axis, axis) for axis in kept))]
    if not settings.affine:
        return einsum(product, axes)
    owned = building.parameters()
    terms = [einsum([*product, (owned.weight, rows)], axes)]
    if owned.bias is not None:
        terms.append(einsum([(owned.bias, rows)], axes))
    return total(terms, axes)


def root(epsilon: float) -> ScalarFunction:
    """1/√(x + ε)."""
    if epsilon == 0.0:
        return scalar_from_tree(parse_expression("1/sqrt(x)"), ("x",), (), "rsqrt")
    tree = parse_expression("1/sqrt(x + epsilon)", parameters=["epsilon"])
    return scalar_from_tree(tree, ("x",), (("epsilon", epsilon),), "rsqrt")
