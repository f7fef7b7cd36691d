"""A spec as plain data, with all defaults filled in, and its hash."""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from sifrc.spec.format import format_expression
from sifrc.spec.layers import LAYER_TYPES, has_parameters
from sifrc.spec.partition import tensor_names
from sifrc.spec.types import (
    VALUED,
    CurvatureSpec,
    FunctionSpec,
    InitializationSpec,
    InputSpec,
    LayerSpec,
    PartitionSpec,
    RegularizationSpec,
    Spec,
    TrainingSpec,
)

__all__ = ["spec_hash", "spec_to_dict"]


def spec_to_dict(spec: Spec) -> dict[str, Any]:
    """Return the canonical plain dict of a spec; ``build_spec`` gives the same spec back.

    Args:
        spec: a validated spec.

    Returns:
        Dicts, lists, text and numbers only, with the keys of the YAML form.

    Example:
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "tiny", "loss": "mse", "network": {
        ...     "input": {"size": 4}, "layers": [{"type": "dense", "units": 2}]}})
        >>> spec_to_dict(spec)["loss"]
        {'function': 'mse', 'targets': 'vectors', 'reduction': 'mean'}
    """
    result: dict[str, Any] = {
        "sifrc": 1,
        "name": spec.name,
        "network": {
            **_inputs(spec),
            "layers": [_layer(layer) for layer in spec.layers],
            **({"mode": spec.mode} if spec.mode != "training" else {}),
            **({"names": dict(spec.names)} if spec.names else {}),
        },
        "loss": {
            **_function(spec.loss.function),
            "targets": spec.loss.targets,
            "reduction": spec.loss.reduction,
            **_places(spec),
            **({"label_smoothing": spec.loss.smoothing} if spec.loss.smoothing else {}),
            **({} if spec.loss.ignored is None else {"ignore_index": spec.loss.ignored}),
            **({"mask": spec.loss.mask} if spec.loss.mask else {}),
            **({"pos_weight": list(spec.loss.positive)} if spec.loss.positive else {}),
            **({"class_weights": list(spec.loss.weights)} if spec.loss.weights else {}),
        },
        "regularization": {"state": _state(spec.regularization)}
        | _output(spec.regularization)
        | _of_parameters(spec),
        "seed": spec.seed,
        "dtype": spec.dtype,
        "training": {
            "data": spec.training.data,
            "epochs": spec.training.epochs,
            "batch": spec.training.batch,
            "one_hot": spec.training.one_hot,
            **_training(spec.training),
        },
    }
    if spec.method is not None:
        result["method"] = {"name": spec.method.name, **spec.method.options}
    result["target"] = {
        "backend": spec.target.backend,
        "operators": list(spec.target.operators),
        "options": dict(spec.target.options),
    }
    if spec.curvature:
        result["curvature"] = [_curvature(kind) for kind in spec.curvature]
    if spec.partition != PartitionSpec():
        result["partition"] = _partition(spec.partition)
    return result


def spec_hash(spec: Spec) -> str:
    """Return the sha256 of the canonical JSON of a spec, as hexadecimal text.

    Places, comments, spacing and defaults written out do not change it.

    Example:
        >>> from sifrc.spec import parse_spec, starter_spec
        >>> text = starter_spec("digits")
        >>> spec_hash(parse_spec(text)) == spec_hash(parse_spec(text + "# a comment"))
        True
    """
    text = json.dumps(spec_to_dict(spec), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode()).hexdigest()


def _inputs(spec: Spec) -> dict[str, Any]:
    """The key for one input, or the list of several."""
    written = [_input(source) for source in spec.inputs]
    return {"inputs": written} if spec.others else {"input": written[0]}


def _input(source: InputSpec) -> dict[str, Any]:
    classes = {"classes": source.classes} if source.classes else {}
    return {"name": source.name, "size": _size(source.shape)} | classes


def _size(shape: tuple[int, ...]) -> int | list[int]:
    """Sizes of axes as they are written: one alone without a list."""
    return shape[0] if len(shape) == 1 else list(shape)


def _training(training: TrainingSpec) -> dict[str, Any]:
    """Keys that most specs do not have, where they have them."""
    found = {
        "pad": training.pad or None,
        "curvature_batch": training.curvature_batch or None,
        "plateau": None if training.plateau is None else asdict(training.plateau),
        "summaries": training.summaries,
    }
    return {key: value for key, value in found.items() if value is not None}


def _places(spec: Spec) -> dict[str, Any]:
    """Keys of a loss over an output with several axes."""
    if len(spec.layers[-1].shape) == 1:
        return {}
    return {"axis": spec.loss.axis + 1, "places": spec.loss.places}


def _function(function: FunctionSpec) -> dict[str, Any]:
    if function.name == "custom":
        result: dict[str, Any] = {"expression": format_expression(function.expression)}
    else:
        result = {"function": function.name}
    if function.parameters:
        result["parameters"] = dict(function.parameters)
    return result


def _layer(layer: LayerSpec) -> dict[str, Any]:
    result: dict[str, Any] = {"name": layer.name, "type": layer.kind}
    if layer.inputs:
        result["inputs"] = list(layer.inputs)
    if layer.mask:
        *result["inputs"], result["mask"] = layer.inputs
    if layer.begins:
        result["state"] = result["inputs"][-layer.begins :]
        result["inputs"] = result["inputs"][: -layer.begins]
    result |= LAYER_TYPES[layer.kind].written(layer)
    if layer.share is not None:
        result["share"] = layer.share
    elif "bias" in LAYER_TYPES[layer.kind].keys and has_parameters(layer):
        result["bias"] = layer.bias
    if layer.frozen:
        result["frozen"] = True
    if layer.initialization is not None:
        result["init"] = _initialization(layer.initialization)
    if layer.activation is not None:
        if layer.kind == "activation":
            result.update(_function(layer.activation))
        else:
            result["activation"] = _function(layer.activation)
    return result


def _initialization(initialization: InitializationSpec) -> dict[str, Any]:
    result: dict[str, Any] = {"kind": initialization.kind}
    if initialization.kind in VALUED and (initialization.kind != "uniform" or initialization.value):
        result["value"] = initialization.value
    if initialization.kind == "sparse":
        result["connections"] = initialization.connections
    return result


def _curvature(curvature: CurvatureSpec) -> str | dict[str, Any]:
    overrides = {key: getattr(curvature, key) for key in ("residual", "output", "expectation")}
    given = {key: value for key, value in overrides.items() if value is not None}
    if curvature.name == curvature.kind and not given:
        return curvature.name
    return {"name": curvature.name, "kind": curvature.kind, **given}


def _partition(partition: PartitionSpec) -> str | dict[str, list[str]]:
    if partition.kind == "groups":
        return {name: list(tensors) for name, tensors in partition.groups}
    return f"{partition.kind}-{partition.count}" if partition.count else partition.kind


def _output(regularization: RegularizationSpec) -> dict[str, str]:
    return {} if regularization.output == "none" else {"output": regularization.output}


def _of_parameters(spec: Spec) -> dict[str, Any]:
    """One number where all tensors have it."""
    found = dict(spec.regularization.parameters)
    if not found:
        return {}
    numbers = set(found.values())
    same = len(numbers) == 1 and found.keys() == set(tensor_names(spec.layers))
    return {"parameters": numbers.pop() if same else found}


def _state(regularization: RegularizationSpec) -> Any:
    match regularization.kind:
        case "uniform":
            return regularization.value
        case "per_state":
            return dict(regularization.values)
        case kind:
            return kind
