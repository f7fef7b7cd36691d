"""From a checked shape to the validated spec."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sifrc.errors import Location
from sifrc.spec.curvaturespec import curvature_specs
from sifrc.spec.diagnostics import describe
from sifrc.spec.functionspec import activation_spec
from sifrc.spec.graph import resolve_graph
from sifrc.spec.items import LAYERS, Item
from sifrc.spec.layers import (
    KEYS_OF_TYPE,
    LAYER_TYPES,
    buffer_shapes,
    has_parameters,
    owned_by,
    parameter_shapes,
)
from sifrc.spec.lossspec import check_mask, loss_spec
from sifrc.spec.partitionspec import partition_spec
from sifrc.spec.positions import Path, Positions
from sifrc.spec.regularizationspec import regularization_spec
from sifrc.spec.schema import InitializationShape, LayerShape, SpecShape, TrainingShape
from sifrc.spec.suggest import did_you_mean, shortened
from sifrc.spec.types import (
    STANDARD,
    VALUED,
    FunctionSpec,
    InitializationSpec,
    InputSpec,
    LayerSpec,
    MethodSpec,
    OptionValue,
    PlateauSpec,
    Spec,
    TargetSpec,
    TrainingSpec,
)

__all__ = ["build_from_shape"]

MAX_MODULE_NAME = 1000
"""Characters of the name of a tensor in a module."""


def build_from_shape(shape: SpecShape, positions: Positions) -> Spec:
    """Build the spec, checking everything a shape does not say.

    Args:
        shape: keys and types are right.
        positions: places, for errors.

    Raises:
        SpecError: names, expressions, graph, sizes or states are wrong.

    Example:
        >>> shape = SpecShape.model_validate({
        ...     "sifrc": 1, "name": "tiny", "loss": "mse",
        ...     "network": {"input": {"size": 4}, "layers": [{"type": "dense", "units": 2}]}})
        >>> build_from_shape(shape, Positions("f")).layers[0].name
        'dense1'
    """
    positions.check_name(("name",), shape.name)
    for index, layer in enumerate(shape.network.layers):
        _check_keys(layer, ("network", "layers", index), positions)
    check_mask(shape.loss.mask, shape.network.sources, positions)
    graph = resolve_graph(shape.network, positions, shape.loss.mask)
    default = _initialization(shape.init, ("init",), positions)
    biases = {
        item.name: "bias" in KEYS_OF_TYPE[item.written.type] and item.written.bias is not False
        for item in graph.items
    }
    layers = tuple(_layer(item, default, biases, positions) for item in graph.items)
    if not any(map(owned_by, layers)):
        raise positions.error(
            LAYERS, "the network has nothing to train", hint="it needs a layer of type dense or conv"
        )
    _check_counts(layers, shape.dtype, positions)
    first, *others = (
        InputSpec(source.name, source.shape, source.classes or 0, positions.value(path))
        for source, path in zip(shape.network.sources, shape.network.source_paths, strict=True)
    )
    return Spec(
        name=shape.name,
        input=first,
        others=tuple(others),
        layers=layers,
        loss=loss_spec(shape.loss, (first, *others), layers[-1].shape, positions),
        regularization=regularization_spec(shape, layers, positions),
        dtype=shape.dtype,
        seed=shape.seed,
        training=_training(shape.training, positions),
        method=_method(shape, positions),
        target=_target(shape, positions),
        curvature=curvature_specs(shape.curvature, positions),
        partition=partition_spec(shape.partition, layers, positions),
        mode=shape.network.mode,
        names=_names(shape, (first, *others), layers, positions),
        location=positions.value(()),
    )


_MODULE_NAME = re.compile(r"[A-Za-z0-9_+/-]+(\.[A-Za-z0-9_+/-]+)*", re.ASCII)
"""What torch calls a tensor of a module; keys of a ModuleDict need not be names of Python."""


def _names(
    shape: SpecShape, inputs: Sequence[InputSpec], layers: Sequence[LayerSpec], positions: Positions
) -> Mapping[str, str]:
    """What tensors are called in a torch module."""
    shapes = {source.name: source.vector_shape for source in inputs} | {
        each.name: each.shape for each in layers
    }
    known = [*parameter_shapes(layers, shapes), *buffer_shapes(layers, shapes)]
    found: dict[str, str] = {}
    for name, own in (shape.network.names or {}).items():
        path: Path = ("network", "names", name)
        if name not in known:
            raise positions.error(
                path,
                f"no layer has a tensor '{shortened(name)}'",
                hint=f"tensors: {shortened(' '.join(known), 300)}",
                label=did_you_mean(name, known),
                at_key=True,
            )
        if not _MODULE_NAME.fullmatch(own) or len(own) > MAX_MODULE_NAME:
            raise positions.error(
                path,
                f"{shortened(own)!a} is not a name in a module",
                hint="as state_dict has it: layer1.0.weight",
            )
        if own in found.values():
            raise positions.error(
                path, f"'{shortened(own)}' is the name of two tensors", hint="one name for each"
            )
        found[name] = own
    return MappingProxyType(found)


def _check_counts(layers: Sequence[LayerSpec], dtype: str, positions: Positions) -> None:
    """What is counted is a number of the dtype: 257 is none in bfloat16."""
    for layer in layers:
        if dtype == "bfloat16" and any(b.counts for b in LAYER_TYPES[layer.kind].buffers(layer)):
            raise positions.error(
                ("dtype",),
                f"'{layer.name}' counts batches, and bfloat16 has no whole number between 256 and 258",
                hint="dtype: float32, or a momentum",
            )


def _training(shape: TrainingShape, positions: Positions) -> TrainingSpec:
    plateau = shape.plateau
    return TrainingSpec(
        **shape.model_dump(exclude={"plateau"}),
        plateau=None if plateau is None else PlateauSpec(**plateau.model_dump()),
        location=positions.value(("training",)),
    )


def _check_keys(layer: LayerShape, path: Path, positions: Positions) -> None:
    """Only keys that mean something for the layer's type."""
    accepted = KEYS_OF_TYPE[layer.type]
    for key in LayerShape.model_fields:
        if key in layer.model_fields_set and key not in accepted:
            label = "use activation: here" if key in ("function", "expression") else None
            raise positions.error(
                (*path, key),
                f"a layer of type {layer.type} has no '{key}'",
                hint=f"accepted keys: {' '.join(accepted)}",
                label=label,
                at_key=True,
            )


def _layer(
    item: Item, default: InitializationSpec | None, biases: Mapping[str, bool], positions: Positions
) -> LayerSpec:
    shape, path = item.written, item.path
    if shape.share is not None and shape.init is not None:
        raise positions.error(
            (*path, "init"),
            f"'{item.name}' shares its parameters and cannot start them",
            hint=f"give init to '{shape.share}'",
            at_key=True,
        )
    initialization = None
    if LAYER_TYPES[shape.type].owning and shape.share is None:
        own = _initialization(shape.init, (*path, "init"), positions)
        initialization = own or (default or InitializationSpec() if LAYER_TYPES[shape.type].drawn else None)
    layer = LayerSpec(
        name=item.name,
        kind=shape.type,
        inputs=item.inputs,
        shape=item.shape,
        activation=_activation(item, positions),
        bias="bias" in LAYER_TYPES[shape.type].keys and biases[shape.share or item.name],
        share=shape.share,
        initialization=initialization,
        settings=item.settings,
        mask=shape.mask is not None,
        begins=len(shape.state or ()),
        frozen=bool(shape.frozen) and shape.share is None,
        location=positions.value(path),
    )
    return layer if has_parameters(layer) else replace(layer, bias=True, initialization=None)


def _activation(item: Item, positions: Positions) -> FunctionSpec | None:
    """The function of an activation layer, or of the short form."""
    shape, path = item.written, item.path
    if shape.type == "activation":
        return activation_spec(
            positions, path, shape.function, shape.expression, shape.parameters, (*path, "parameters")
        )
    if "expression" in LAYER_TYPES[shape.type].keys:
        return None
    short = shape.activation
    if short is None:
        if shape.parameters is not None:
            raise positions.error(
                (*path, "parameters"),
                f"layer '{item.name}' has parameters but no activation",
                hint="parameters belong to a function: activation: leaky_relu, parameters: {slope: 0.1}",
                at_key=True,
            )
        return None
    parameters_path: Path = (*path, "activation", "parameters")
    parameters = short.parameters
    if shape.parameters is not None:
        if parameters is not None:
            raise positions.error(
                (*path, "parameters"),
                "parameters are given twice, here and inside 'activation'",
                hint="keep one of them",
                at_key=True,
            )
        parameters_path, parameters = (*path, "parameters"), shape.parameters
    return activation_spec(
        positions, (*path, "activation"), short.function, short.expression, parameters, parameters_path
    )


def _initialization(
    shape: InitializationShape | None, path: Path, positions: Positions
) -> InitializationSpec | None:
    if shape is None:
        return None
    for key, kinds in (("value", VALUED), ("connections", ("sparse",))):
        if getattr(shape, key) is not None and shape.kind not in kinds:
            raise positions.error(
                (*path, key),
                f"initialisation '{shape.kind}' has no '{key}'",
                hint=f"'{key}' belongs to " + " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1]))),
                at_key=True,
            )
    if shape.kind == "normal" and (shape.value or 0.0) < 0.0:
        raise positions.error(
            (*path, "value"), "a standard deviation is zero or more", hint="e.g. value: 0.02"
        )
    if shape.kind == "uniform" and shape.value is not None and shape.value <= 0.0:
        raise positions.error(
            (*path, "value"), "the limit of a uniform start is more than zero", hint="e.g. value: 0.08"
        )
    return InitializationSpec(
        kind=shape.kind,
        value=float(STANDARD[shape.kind] if shape.value is None else shape.value)
        if shape.kind in VALUED
        else 0.0,
        connections=shape.connections or 15,
        location=positions.value(path),
    )


def _options(values: Mapping[Any, Any], path: Path, positions: Positions) -> dict[str, OptionValue]:
    """Free options: each a single finite value; what they mean is checked by their owner."""
    options: dict[str, OptionValue] = {}
    for key, value in values.items():
        own: Path = (*path, key)
        if not isinstance(value, (bool, int, float, str)):
            raise positions.error(
                own,
                f"option '{shortened(str(key))}' cannot be {describe(value)}",
                hint="a number, true, false or text",
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise positions.error(own, f"option '{shortened(key)}' must be a finite number")
        options[key] = value
    return dict(sorted(options.items()))


def _locations(
    options: Mapping[str, OptionValue], path: Path, positions: Positions
) -> Mapping[str, Location]:
    places = {key: positions.values.get((*path, key)) for key in options}
    return MappingProxyType({key: place for key, place in places.items() if place is not None})


def _method(shape: SpecShape, positions: Positions) -> MethodSpec | None:
    if shape.method is None:
        return None
    options = _options(shape.method.model_extra or {}, ("method",), positions)
    return MethodSpec(
        shape.method.name,
        MappingProxyType(options),
        positions.value(("method", "name")),
        _locations(options, ("method",), positions),
    )


def _target(shape: SpecShape, positions: Positions) -> TargetSpec:
    target = shape.target
    path: Path = ("target", "options")
    for index, name in enumerate(target.operators):
        if name in target.operators[:index]:
            raise positions.error(
                ("target", "operators", index),
                f"operator '{shortened(name)}' is named twice",
                hint="name it once",
            )
    options = _options(target.options, path, positions)
    return TargetSpec(
        target.backend,
        tuple(target.operators),
        MappingProxyType(options),
        positions.value(("target",)),
        _locations(options, path, positions),
        positions.places({name: ("target", "operators", i) for i, name in enumerate(target.operators)}),
    )
