"""From a validated spec to the model of one sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import sympy

from sifrc.errors import ModelError
from sifrc.ir import Axis, Expr, Input, Role
from sifrc.ir.build import apply, einsum, scale, total
from sifrc.ir.traverse import inputs_of, substitute
from sifrc.model.draws import OTHERS, Draws
from sifrc.model.layers import LAYER_RULES
from sifrc.model.layers.building import Building, Part, axes_of
from sifrc.model.parameters import BUFFER, PENALTY, Buffer, LayerParameters, Parameter
from sifrc.model.sample_loss import counting_of, normalization_of, sample_loss, target_of
from sifrc.model.tables import Tables
from sifrc.model.types import Constraint, Model
from sifrc.scalar import ScalarFunction, scalar_from_tree
from sifrc.spec.layers import LAYER_TYPES
from sifrc.spec.states import state_names
from sifrc.spec.types import FunctionSpec, InitializationSpec, LayerSpec, Sizes, Spec

__all__ = ["build_model"]


def build_model(spec: Spec) -> Model:
    """The constraint system of a spec.

    Args:
        spec: validated; layers in topological order.

    Raises:
        ModelError: the loss or an activation has no meaning as a differentiable function.
    """
    # Tensors by themselves are numbered after the states, which are counted first.
    tensors = any(LAYER_TYPES[layer.kind].inputs == (0, 0) for layer in spec.layers)
    return _model(spec, _model(spec, 0).depth if tensors else 0)


def _model(spec: Spec, depth: int) -> Model:
    """With so many states, which tensors by themselves are numbered after."""
    groups = _fuse(spec)
    first, *others = _given(spec)
    given = dict(zip((source.name for source in spec.inputs), (first, *others), strict=True))
    states: dict[str, Expr] = dict(given)
    parameters: dict[str, LayerParameters] = {}
    buffers: list[Buffer] = []
    tensors = depth
    constraints: list[Constraint] = []
    tables, draws = Tables(), Draws(len(others))
    for group in groups:
        read = [states[name] for name in group[0].inputs]
        sources = [each.index for each in read if isinstance(each, Input) and each.family == first.family]
        # Where no sample has a value of its own, who reads the layer reads its expression.
        alone = not any(map(_of_samples, read))
        building = _building(spec, group, states, parameters, (tensors if alone else len(constraints)) + 1)
        building.tables, building.draws = tables, draws
        parts = _parts(group, building)
        buffers += building.buffers.values()
        if alone:
            if group[-1] is spec.layers[-1]:
                raise ModelError(f"the output '{group[-1].name}' reads parameters alone, and no input")
            states[group[-1].name] = _inlined(parts)
            tensors += len(parts)
            continue
        for part in parts:
            constraints.append(_constraint(part, group, [index for index in sources if index is not None]))
        states[group[-1].name] = constraints[-1].state
    output = constraints[-1]
    target = target_of(spec.loss, output.axes)
    counting = counting_of(spec.loss, given.get(spec.loss.mask), tables)
    normalization = normalization_of(spec.loss, target, counting)
    loss = sample_loss(spec.loss, output.state, target, counting)
    if normalization is not None:
        loss = einsum([(normalization.factor, ()), (loss, ())], ())
    regularized, values = _regularization(spec, constraints)
    return Model(
        spec=spec,
        input=first,
        others=tuple(others),
        tables=tuple(tables.made),
        draws=tuple(draws.made),
        target=target,
        constraints=tuple(constraints),
        parameters=tuple(owned for owned in parameters.values() if owned.members),
        loss=loss,
        regularized=regularized,
        regularizer=state_regularizer([(factor, constraints[k - 1].state) for k, factor in regularized]),
        lambda_values=values,
        buffers=(*_frozen_buffers(parameters.values()), *buffers),
        normalization=normalization,
        loss_factor=_loss_factor(spec, len(constraints)),
        penalties=tuple(_penalties(spec, parameters.values())),
    )


def _given(spec: Spec) -> list[Input]:
    """The inputs of the network: the first is x_0, the others are data d_1, d_2, …"""
    found = []
    for number, source in enumerate(spec.inputs):
        family, role = (OTHERS, Role.DATA) if number else ("x", Role.STATE)
        axes = axes_of(source.name, source.vector_shape)
        found.append(Input(family, number, axes, Role.CLASS if source.classes else role))
    return found


def _building(
    spec: Spec,
    group: tuple[LayerSpec, ...],
    states: Mapping[str, Expr],
    known: dict[str, LayerParameters],
    first: int,
) -> Building:
    """A layer before its states are made."""
    layer, name = group[0], group[-1].name
    axes = axes_of(name, group[-1].shape)
    sources = tuple(states[source] for source in layer.inputs)
    kept = _buffers(layer, sources, first)
    owned, alone = _owning(layer, sources, known), _activation(group) is None
    return Building(layer, sources, axes, first, owned, spec.mode == "training", kept, alone)


def _parts(group: tuple[LayerSpec, ...], building: Building) -> list[Part]:
    """The states of a layer and the activation after it; the last one is its own."""
    value = LAYER_RULES[building.layer.kind](building)
    symbol = Input("x", building.first + len(building.parts), building.axes, Role.STATE)
    function = building.function or _activation(group)
    own = Part(symbol, value, function, building.last, group[-1].name, building.evaluated)
    return [*building.parts, own]


def _buffers(layer: LayerSpec, sources: tuple[Expr, ...], index: int) -> dict[str, Buffer]:
    """What a layer keeps besides parameters, by slot."""
    shapes = _shapes(sources)
    found: dict[str, Buffer] = {}
    for record in LAYER_TYPES[layer.kind].buffers(layer):
        sizes = enumerate(record.shape(shapes))
        axes = tuple(Axis(f"{layer.name}.{record.slot}{n or ''}", size) for n, size in sizes)
        symbol = Input(BUFFER[record.slot], index, axes, Role.BUFFER)
        found[record.slot] = Buffer(layer.name, record.slot, symbol, record.start)
    return found


def _of_samples(value: Expr) -> bool:
    """Whether samples have values of their own of it, or it is made of such."""
    return any(symbol.role.per_sample or symbol.role is Role.STATISTIC for symbol in inputs_of(value))


def _inlined(parts: Sequence[Part]) -> Expr:
    """The value of a layer that reads tensors alone, as an expression of them.

    Raises:
        ModelError: it has values for each sample all the same, or reads itself at steps.
    """
    values: dict[Input, Expr] = {}
    for part in parts:
        value = substitute(part.value, values)
        if _of_samples(value):
            raise ModelError(
                f"layer '{parts[-1].name}' reads parameters alone, which it cannot",
                hint="its input needs values for each sample",
            )
        values[part.state] = _activated(part.activation, value)[1]
    return values[parts[-1].state]


def _frozen_buffers(parameters: Iterable[LayerParameters]) -> Iterator[Buffer]:
    """Parameters that are not trained: zero at the start, weights of norms one."""
    for owned in parameters:
        for held in owned.frozen:
            one = held.slot == "weight" and owned.initialization.kind == "ones"
            yield Buffer(owned.layer, held.slot, held.symbol, float(one))


def _shapes(sources: tuple[Expr, ...]) -> tuple[Sizes, ...]:
    return tuple(tuple(axis.entries for axis in source.axes) for source in sources)


def _owning(
    layer: LayerSpec, sources: tuple[Expr, ...], known: dict[str, LayerParameters]
) -> Callable[[str, int], LayerParameters | None]:
    """The parameters of a layer by what comes after its name: its own, with a number, or the shared ones."""
    shapes = _shapes(sources)

    def owned(part: str, index: int) -> LayerParameters | None:
        owner = next((o for o in LAYER_TYPES[layer.kind].owners(layer) if o.part == part), None)
        if owner is None:
            return None
        name = owner.name(layer.share or layer.name)
        if name not in known:
            start = owner.initial(layer.initialization, shapes)
            found = layer_parameters(name, index, owner.shapes(shapes), start)
            known[name] = frozen(found) if layer.frozen else found
        return known[name]

    return owned


def layer_parameters(
    name: str, index: int, shapes: tuple[Sizes, ...], start: InitializationSpec
) -> LayerParameters:
    """A weight, and a bias perhaps, with symbols and axes of their own.

    Args:
        name: of the owner.
        index: of the constraint that uses them first.
        shapes: of the weight and of the bias, if there is one.
        start: how they begin.
    """
    weight, *biases = shapes
    ends = ["out", "in", *(f"entry{n}" for n in range(len(weight) - 2))]
    axes = tuple(Axis(f"{name}.{end}", size) for end, size in zip(ends, weight, strict=False))
    members = [Parameter(name, "weight", Input("W", index, axes, Role.PARAMETER))]
    for bias in biases:
        own = (
            axes[: len(bias)]
            if bias == weight[: len(bias)]
            else tuple(Axis(f"{name}.bias", size) for size in bias)
        )
        members.append(Parameter(name, "bias", Input("β", index, own, Role.PARAMETER)))
    return LayerParameters(name, index, tuple(members), start)


def frozen(owned: LayerParameters) -> LayerParameters:
    """The same tensors, not trained."""
    held = tuple(
        replace(p, symbol=Input(BUFFER[p.slot], p.symbol.index, p.symbol.axes, Role.BUFFER))
        for p in owned.members
    )
    return replace(owned, members=(), frozen=held)


def _constraint(part: Part, group: tuple[LayerSpec, ...], sources: list[int]) -> Constraint:
    """x_k = F_k(a_k) of one state of a layer with some sources."""
    read = {symbol.index for symbol in inputs_of(part.value) if symbol.family == "x"}
    # Those of the layer in its order, then states inside of it.
    order = dict.fromkeys([*sources, *sorted(index for index in read if index is not None)])
    inside = part.name != group[-1].name
    activation, value = _activated(part.activation, part.value)
    evaluated = part.evaluated
    if evaluated is not None and activation is None:
        _, evaluated = _activated(part.activation, evaluated)
    axes = part.state.axes
    assert part.state.index is not None
    return Constraint(
        index=part.state.index,
        name=part.name,
        layers=tuple(layer.name for layer in (group[:1] if inside else group)),
        state=part.state,
        sources=tuple(index for index in order if index in read),
        pre_activation=part.value,
        activation=activation,
        value=value,
        parameters=part.parameters if part.parameters is not None and part.parameters.members else None,
        row=_row(axes, group[0].channels_first, part.name),
        inside=inside,
        evaluated=evaluated,
    )


def _row(axes: tuple[Axis, ...], channels_first: bool, name: str) -> Axis:
    """The axis that the rows of a weight make."""
    if not axes:
        return Axis(name, 1)
    return axes[0] if channels_first else axes[-1]


def _loss_factor(spec: Spec, output: int) -> Input | None:
    """λ_n of MK(67): a value per sample, held constant under differentiation."""
    return Input("λ", output, (), Role.STATE) if spec.regularization.output == "spectral" else None


def _penalties(spec: Spec, parameters: Iterable[LayerParameters]) -> Iterator[tuple[Parameter, Input, float]]:
    """The parameters with regularisation, each with its λ."""
    numbers = dict(spec.regularization.parameters)
    for parameter in (parameter for owned in parameters for parameter in owned.members):
        if parameter.name in numbers:
            family = PENALTY.family(parameter.slot)
            symbol = Input(family, parameter.symbol.index, (), Role.HYPERPARAMETER)
            yield parameter, symbol, numbers[parameter.name]


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


def _regularization(
    spec: Spec, constraints: list[Constraint]
) -> tuple[tuple[tuple[int, Input], ...], tuple[tuple[int, float], ...]]:
    """Which states are regularised, and with which numbers.

    A spectral λ is a value per sample (MK(65)), the others are hyperparameters.
    """
    chosen = spec.regularization
    hidden = [constraint.index for constraint in constraints[:-1] if not constraint.inside]
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
