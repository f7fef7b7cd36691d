"""The white layer (ESN 2.2): one more dense layer before the input, whose parameters never move."""

from __future__ import annotations

from dataclasses import replace

from sifrc.ir import Axis, Input, Role
from sifrc.ir.build import einsum, rename, total
from sifrc.model import Constraint, LayerParameters, Model, Parameter
from sifrc.model.build import state_regularizer

__all__ = ["white_layer_factor", "with_white_layer"]


def with_white_layer(model: Model) -> Model:
    """The model with an identity layer, regularised like a hidden one, before its input."""
    (axis,) = model.input.axes
    before = Input("x", -1, (axis,), Role.STATE)
    rows, columns = Axis("white.out", axis.size), Axis("white.in", axis.size)
    weight = Input("W", 0, (rows, columns), Role.PARAMETER)
    bias = Input("β", 0, (rows,), Role.PARAMETER)
    members = (Parameter("white", "weight", weight), Parameter("white", "bias", bias))
    white = LayerParameters("white", 0, members)
    product = einsum([(weight, (axis, columns)), (before, (columns,))], (axis,))
    value = total([product, rename(bias, (axis,))], (axis,))
    constraint = Constraint(
        0, model.spec.input.name, ("white",), model.input, (-1,), value, None, value, white, axis
    )
    factor = white_layer_factor(model)
    return replace(
        model,
        input=before,
        constraints=(constraint, *model.constraints),
        parameters=(white, *model.parameters),
        regularizer=total([model.regularizer, state_regularizer([(factor, model.input)])], ()),
        regularized=((0, factor), *model.regularized),
    )


def white_layer_factor(model: Model) -> Input:
    """λ[0]; a value per sample where the regularisation is spectral."""
    role = Role.STATE if model.spec.regularization.kind == "spectral" else Role.HYPERPARAMETER
    return Input("λ", 0, (), role)
