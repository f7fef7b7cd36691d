"""Types of layers: a record each. A new one is one more, and its expression in ``sifrc/model/layers``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from sifrc.spec.layers.attention import ATTENTION, EMBEDDING, POSITIONS
from sifrc.spec.layers.batch_norm import BATCH_NORM
from sifrc.spec.layers.dropout import DROPOUT
from sifrc.spec.layers.elementary import ACTIVATION, ADD, DENSE, ENTRYWISE, FLATTEN
from sifrc.spec.layers.norms import GROUP_NORM, INSTANCE_NORM, LAYER_NORM, RMS_NORM
from sifrc.spec.layers.products import LOG_SOFTMAX, MATMUL, MAX, MEAN, MULTIPLY, SCALE, SOFTMAX, SUM
from sifrc.spec.layers.record import Buffer, LayerType, Owner, Resolved, Site
from sifrc.spec.layers.recurrence import GRU, LSTM, RNN
from sifrc.spec.layers.shapes import CONCATENATE, PAD, PERMUTE, RESHAPE, SLICE, STRIDED, UPSAMPLE
from sifrc.spec.layers.tensors import PARAMETER, TABLE
from sifrc.spec.layers.windows import CONV, POOL
from sifrc.spec.types import LayerKind, LayerSpec, Sizes, Spec

__all__ = [
    "KEYS_OF_TYPE",
    "LAYER_TYPES",
    "Buffer",
    "LayerType",
    "Owner",
    "Resolved",
    "Site",
    "buffer_shapes",
    "evaluates_apart",
    "has_parameters",
    "owned_by",
    "parameter_shapes",
]

LAYER_TYPES: Mapping[LayerKind, LayerType] = MappingProxyType(
    {
        record.kind: record
        for record in (
            *(DENSE, CONV, POOL, ACTIVATION, ADD, FLATTEN, ENTRYWISE),
            *(RESHAPE, PERMUTE, SLICE, STRIDED, CONCATENATE, PAD, UPSAMPLE),
            *(LAYER_NORM, GROUP_NORM, INSTANCE_NORM, RMS_NORM, BATCH_NORM, DROPOUT),
            *(ATTENTION, POSITIONS, EMBEDDING),
            *(RNN, LSTM, GRU),
            *(PARAMETER, TABLE),
            *(MULTIPLY, MATMUL, SCALE, SUM, MEAN, MAX, SOFTMAX, LOG_SOFTMAX),
        )
    }
)
"""Word of a type -> its record."""

KEYS_OF_TYPE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        kind: ("name", "type", "inputs", *record.keys, *(("frozen",) if record.freezes else ()))
        for kind, record in LAYER_TYPES.items()
    }
)
"""Keys that mean something for a type of layer."""


def evaluates_apart(spec: Spec) -> bool:
    """Whether a network for training computes something else after it."""
    return spec.mode == "training" and any(LAYER_TYPES[layer.kind].apart for layer in spec.layers)


def has_parameters(layer: LayerSpec) -> bool:
    """Whether a layer has parameters, its own or shared ones."""
    return bool(LAYER_TYPES[layer.kind].owners(layer))


def owned_by(layer: LayerSpec) -> tuple[Owner, ...]:
    """The owners of the tensors that a layer trains and does not share."""
    return () if layer.share is not None or layer.frozen else LAYER_TYPES[layer.kind].owners(layer)


def parameter_shapes(layers: Iterable[LayerSpec], shapes: Mapping[str, Sizes]) -> dict[str, Sizes]:
    """Names and shapes of the parameter tensors, in the order of the layers.

    Args:
        layers: of a spec.
        shapes: of all states, by name.
    """
    found: dict[str, Sizes] = {}
    for layer in layers:
        inputs = tuple(shapes[name] for name in layer.inputs)
        for owner in owned_by(layer):
            found |= dict(zip(owner.names(layer.name), owner.shapes(inputs), strict=True))
    return found


def buffer_shapes(layers: Iterable[LayerSpec], shapes: Mapping[str, Sizes]) -> dict[str, Sizes]:
    """Names and shapes of the buffers, in the order of the layers.

    Args:
        layers: of a spec.
        shapes: of all states, by name.
    """
    found: dict[str, Sizes] = {}
    for layer in layers:
        inputs, record = tuple(shapes[name] for name in layer.inputs), LAYER_TYPES[layer.kind]
        if layer.frozen and layer.share is None:
            for owner in record.owners(layer):
                found |= dict(zip(owner.names(layer.name), owner.shapes(inputs), strict=True))
        found |= {f"{layer.name}.{each.slot}": each.shape(inputs) for each in record.buffers(layer)}
    return found
