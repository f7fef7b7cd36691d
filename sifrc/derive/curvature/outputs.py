"""Curvature from the output: J_kᵀ M J_k, with M the block of the output's pre-activation.

Where nothing but the network's linearisation stands between the output and a layer (the residual is dropped,
and nothing is averaged on the way), the block recursion is J_{k−1} = J_k W_k diag(F'(a_{k−1})) on one row for
each output in place of matrices over the layer: J_k = ∂a_n/∂a_k goes back as adjoints do.
"""

from __future__ import annotations

from dataclasses import replace

from sifrc.calculus import seeded
from sifrc.derive.curvature.factors import through_activation
from sifrc.derive.curvature.kinds import Kind
from sifrc.derive.curvature.recursion import Recursion, output_block
from sifrc.derive.curvature.scores import score_axes
from sifrc.derive.lagrangian import FirstOrder
from sifrc.ir import Axis, Expr, Input, Role, primed
from sifrc.ir.build import einsum, identity, transpose
from sifrc.ir.normal import expand
from sifrc.ir.traverse import substitute
from sifrc.model import Constraint, Model

__all__ = ["from_output", "jacobian_of", "output_symbol"]


def from_output(first: FirstOrder, kind: Kind, convex: bool) -> Recursion:
    """The block M of the output's pre-activation, and J_k of the other constraints.

    Args:
        first: the first-order system.
        kind: whose form is ``outputs``.
        convex: whether the loss is known to be convex in the output.
    """
    model = first.model
    start = output_block(first, kind, convex)
    axes = model.output.axes
    output = Input("H", model.output.index, (*axes, *primed(axes)), Role.STATE)
    table = {output: output_symbol(model)}
    equations = [
        replace(e, symbol=table.get(e.symbol, e.symbol), value=substitute(_of_places(model, e.value), table))
        for e in start.equations
    ]
    every = score_axes(model)
    seed = identity((*model.output_places, model.output_axis), every)
    moved: dict[Input, Expr] = {first.backpropagated(model.output.index): transpose(seed, (*axes, *every))}
    for c in reversed(model.constraints[:-1]):
        value = seeded(first.adjoint[first.adjoints[c.index]], moved, every)
        symbol = jacobian_of(c, every)
        equations += through_activation(first, c, value, "Jˣ", symbol)
        moved[first.backpropagated(c.index)] = transpose(symbol, (*c.axes, *every))
    return Recursion(tuple(equations), start.conditions)


def _of_places(model: Model, block: Expr) -> Expr:
    """The block of every place, from one of all entries of the output: zero for two places."""
    places, own = model.output_places, model.output_axis
    if not places:
        return block
    return expand(einsum([(block, block.axes)], (*places, own, own.primed)))


def jacobian_of(c: Constraint, every: tuple[Axis, ...]) -> Input:
    """J_k, over the pre-activation of the output, place by place, and that of the constraint k."""
    return Input("J", c.index, (*every, *c.axes), Role.ADJOINT)


def output_symbol(model: Model) -> Input:
    """M at every place, which has no number: it is the same for all layers."""
    axis = model.output_axis
    return Input("M", None, (*model.output_places, axis, axis.primed), Role.STATE)
