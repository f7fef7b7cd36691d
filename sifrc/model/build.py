"""From a validated spec to the model of one sample."""

from __future__ import annotations

from fractions import Fraction

import sympy

from sifrc.ir import Axis, Expr, Input, Role
from sifrc.ir.axes import AxisKind
from sifrc.ir.build import apply, einsum, rename, scale, total
from sifrc.ir.selections import joined
from sifrc.model.loss import build_loss
from sifrc.model.parameters import LayerParameters, Parameter
from sifrc.model.types import Constraint, Model
from sifrc.model.windows import convolution, pooling
from sifrc.scalar import ScalarFunction, scalar_from_tree
from sifrc.spec.states import state_names
from sifrc.spec.types import FunctionSpec, InitializationSpec, LayerSpec, Spec

__all__ = ["build_model"]


def build_model(spec: Spec) -> Model:
    """The constraint system of a spec.

    Args:
        spec: validated; layers in topological order.

    Raises:
        ModelError: the loss or an activation has no meaning as a differentiable function.
    """
    groups = _fuse(spec)
    input_symbol = Input("x", 0, _axes(spec.input.name, spec.input.shape), Role.STATE)
    states: dict[str, tuple[int, Input]] = {spec.input.name: (0, input_symbol)}
    parameters: dict[str, LayerParameters] = {}
    constraints: list[Constraint] = []
    for index, group in enumerate(groups, start=1):
        name = group[-1].name
        axes = _axes(name, group[-1].shape)
        sources = [states[source] for source in group[0].inputs]
        owned = _parameters(group[0], index, sources[0][1].axes, parameters)
        pre_activation = _affine(group[0], [symbol for _, symbol in sources], owned, axes)
        activation, value = _activated(_activation(group), pre_activation)
        symbol = Input("x", index, axes, Role.STATE)
        constraints.append(
            Constraint(
                index=index,
                name=name,
                layers=tuple(layer.name for layer in group),
                state=symbol,
                sources=tuple(number for number, _ in sources),
                pre_activation=pre_activation,
                activation=activation,
                value=value,
                parameters=owned,
                row=axes[-1] if group[0].window is None else axes[0],
            )
        )
        states[name] = (index, symbol)
    output = constraints[-1]
    target = Input("t", None, output.axes, Role.CLASS if spec.loss.targets == "classes" else Role.DATA)
    function = spec.loss.function
    regularized, values = _regularization(spec, constraints)
    return Model(
        spec=spec,
        input=input_symbol,
        target=target,
        constraints=tuple(constraints),
        parameters=tuple(parameters.values()),
        loss=build_loss(function.expression, output.state, target, function.parameters),
        regularized=regularized,
        regularizer=state_regularizer([(factor, constraints[k - 1].state) for k, factor in regularized]),
        lambda_values=values,
        loss_factor=_loss_factor(spec, len(constraints)),
    )


def _axes(name: str, shape: tuple[int, ...]) -> tuple[Axis, ...]:
    """The axes of a state: the last one counts features, the others the places that have them."""
    if len(shape) == 1:
        return (Axis(name, shape[0]),)
    places = (Axis(f"{name}.{n}", size, kind=AxisKind.PLACE) for n, size in enumerate(shape[:-1]))
    return (*places, Axis(name, shape[-1]))


def _loss_factor(spec: Spec, output: int) -> Input | None:
    """λ_n of MK(67): a value per sample, held constant under differentiation."""
    return Input("λ", output, (), Role.STATE) if spec.regularization.output == "spectral" else None


def state_regularizer(states: list[tuple[Input, Input]]) -> Expr:
    """½ Σ λ ⟨x, x⟩ over pairs (λ, x): the Λ = λI case of ESN(4)."""
    squares = [
        einsum([(factor, ()), (state, state.axes), (state, state.axes)], ()) for factor, state in states
    ]
    return scale(Fraction(1, 2), total(squares, ()))


def _fuse(spec: Spec) -> list[tuple[LayerSpec, ...]]:
    """Layers that make one constraint, in the order of their states."""
    names = state_names(spec.layers)
    groups: dict[str, list[LayerSpec]] = {}
    for layer in spec.layers:
        groups.setdefault(names[layer.name], []).append(layer)
    return [tuple(group) for group in groups.values()]


def _activation(group: tuple[LayerSpec, ...]) -> ScalarFunction | None:
    functions = [layer.activation for layer in group if layer.activation is not None]
    return scalar_function(functions[0]) if functions and functions[0].name != "identity" else None


def _activated(activation: ScalarFunction | None, argument: Expr) -> tuple[ScalarFunction | None, Expr]:
    """The activation and its value; no activation, and a + (F(a) − a), where F' = 1.

    There y_k is b_k itself: naming it anew would define it by itself.
    """
    if activation is None:
        return None, argument
    if activation.value_form((1,)) != 1:
        return activation, apply(activation, argument)
    # F(a) − a is a constant, or one on every branch.
    (symbol,) = activation.argument_symbols
    rest = sympy.piecewise_fold(activation.value_form((0,)) - symbol)
    constant = apply(ScalarFunction(activation.name, activation.arguments, rest), argument)
    return None, total([argument, constant], argument.axes)


def scalar_function(spec: FunctionSpec) -> ScalarFunction:
    """The scalar function x ↦ F(x) of an activation."""
    return scalar_from_tree(spec.expression, ("x",), spec.parameters, spec.name)


def _parameters(
    layer: LayerSpec, index: int, inputs: tuple[Axis, ...], known: dict[str, LayerParameters]
) -> LayerParameters | None:
    """The parameters of a layer, its own, with the number of its constraint, or the shared ones."""
    if not layer.has_parameters:
        return None
    if layer.share is not None:
        return known[layer.share]
    rows, columns = layer.shape[-1], inputs[-1].entries
    kernel: tuple[int, ...] = ()
    if layer.window is not None:
        rows, columns = layer.shape[0], inputs[0].entries // layer.window.groups
        kernel = layer.window.kernel
    out = Axis(f"{layer.name}.out", rows)
    entries = (Axis(f"{layer.name}.entry{n}", size) for n, size in enumerate(kernel))
    axes = (out, Axis(f"{layer.name}.in", columns), *entries)
    members = [Parameter(layer.name, "weight", Input("W", index, axes, Role.PARAMETER))]
    if layer.bias:
        members.append(Parameter(layer.name, "bias", Input("β", index, (out,), Role.PARAMETER)))
    known[layer.name] = LayerParameters(
        layer.name, index, tuple(members), layer.initialization or InitializationSpec()
    )
    return known[layer.name]


def _affine(
    layer: LayerSpec, sources: list[Input], owned: LayerParameters | None, axes: tuple[Axis, ...]
) -> Expr:
    """a_k: W x + β of a dense layer at every place, all axes of x as one, or the sum of the sources."""
    if layer.kind == "flatten" and len(sources[0].axes) > 1:
        (source,) = sources
        join = joined(tuple(axis.entries for axis in source.axes))
        return einsum([(join, (*axes, *source.axes)), (source, source.axes)], axes)
    if layer.window is not None:
        if owned is None:
            return pooling(sources[0], axes, layer.window)
        return convolution(owned.weight, owned.bias, sources[0], axes, layer.window)
    if owned is None:
        return total([rename(source, axes) for source in sources], axes)
    (source,) = sources
    *places, feature = axes
    inputs = (*places, source.axes[-1])
    terms = [einsum([(owned.weight, (feature, source.axes[-1])), (source, inputs)], axes)]
    if owned.bias is not None:
        terms.append(einsum([(owned.bias, (feature,))], axes))
    return total(terms, axes)


def _regularization(
    spec: Spec, constraints: list[Constraint]
) -> tuple[tuple[tuple[int, Input], ...], tuple[tuple[int, float], ...]]:
    """Which states are regularised, and with which numbers.

    A spectral λ is a value per sample (MK(65)), the others are hyperparameters.
    """
    chosen = spec.regularization
    hidden = [constraint.index for constraint in constraints[:-1]]
    if chosen.kind == "uniform":
        values = tuple((k, chosen.value) for k in hidden)
    elif chosen.kind == "per_state":
        by_name = dict(chosen.values)
        values = tuple((c.index, by_name[c.name]) for c in constraints if c.name in by_name)
    else:
        values = ()
    indices = hidden if chosen.kind == "spectral" else [k for k, _ in values]
    role = Role.STATE if chosen.kind == "spectral" else Role.HYPERPARAMETER
    return tuple((k, Input("λ", k, (), role)) for k in indices), values
