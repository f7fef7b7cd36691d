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
from sifrc.derive.curvature.scores import class_axis
from sifrc.derive.lagrangian import FirstOrder
from sifrc.ir import Axis, Delta, Expr, Input, Role
from sifrc.ir.build import transpose
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
    output = Input("H", model.output.index, (model.output_axis, model.output_axis.primed), Role.STATE)
    table = {output: output_symbol(model)}
    equations = [
        replace(e, symbol=table.get(e.symbol, e.symbol), value=substitute(e.value, table))
        for e in start.equations
    ]
    label = class_axis(model)
    moved: dict[Input, Expr] = {first.backpropagated(model.output.index): Delta(model.output_axis, label)}
    for c in reversed(model.constraints[:-1]):
        value = seeded(first.adjoint[first.adjoints[c.index]], moved, (label,))
        symbol = jacobian_of(c, label)
        equations += through_activation(first, c, value, "Jˣ", symbol)
        moved[first.backpropagated(c.index)] = transpose(symbol, (*c.axes, label))
    return Recursion(tuple(equations), start.conditions)


def jacobian_of(c: Constraint, label: Axis) -> Input:
    """J_k, over the pre-activation of the output and that of the constraint k."""
    return Input("J", c.index, (label, *c.axes), Role.ADJOINT)


def output_symbol(model: Model) -> Input:
    """M, which has no number: it is the same for all layers."""
    axis = model.output_axis
    return Input("M", None, (axis, axis.primed), Role.STATE)
