"""Dropout: x ∘ keep(d), d uniform numbers that are drawn for each sample, keep(d) = 1/(1 − p) or 0.

The numbers are data, as the inputs of a network are: nothing is differentiated by them, so that a gradient,
its products and all else that is computed from one draw have the same entries left out. Evaluated, the layer
is x.
"""

from __future__ import annotations

from sifrc.ir import Expr
from sifrc.ir.build import apply, hadamard, rename
from sifrc.model.layers.building import Building
from sifrc.scalar import scalar_from_tree
from sifrc.spec.layers.dropout import DropoutSpec
from sifrc.spec.parser import parse_expression

__all__ = ["dropout"]


def dropout(building: Building) -> Expr:
    """x without what is left out, divided by the probability of what is kept; or x."""
    settings, axes = building.layer.settings, building.axes
    assert isinstance(settings, DropoutSpec)
    source = building.source
    if not building.training:
        return rename(source, axes)
    building.evaluated = rename(source, axes)
    tree = parse_expression("where(x < p, 0, 1/(1 - p))", parameters=["p"])
    keep = scalar_from_tree(tree, ("x",), (("p", settings.probability),), "keep")
    return hadamard(rename(source, axes), apply(keep, rename(building.draw(), axes)))
