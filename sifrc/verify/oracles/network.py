"""The network a spec describes, read layer by layer, over any kind of number.

This is the oracles' own reading of a spec: names, shapes, the forward pass and what is regularised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from sifrc.errors import VerificationError
from sifrc.spec.layers import LAYER_TYPES, buffer_shapes
from sifrc.spec.layers import parameter_shapes as spec_shapes
from sifrc.spec.layers.batch_norm import BatchNormSpec
from sifrc.spec.states import state_names
from sifrc.spec.types import InputSpec, LayerSpec, Spec
from sifrc.verify.oracles.entries import Activate, At, joined, permuted
from sifrc.verify.oracles.layers import layer_value

__all__ = [
    "Pass",
    "all_inputs",
    "argument_names",
    "as_vectors",
    "buffer_values",
    "counted",
    "couples",
    "forward_pass",
    "forward_passes",
    "input_parts",
    "layer_draws",
    "one_hot",
    "parameter_shapes",
    "placed_loss",
    "regularized_states",
    "spectral_chain",
    "with_mask",
]


@dataclass(frozen=True)
class Pass:
    """What one forward pass leaves.

    Args:
        output: of the last layer, all its axes as one.
        values: layer name -> its output; the network input under its own name.
        arguments: layer name -> argument of its activation, for layers that have one.
        reads: part of a layer -> what its weight reads, for layers that have several weights.
    """

    output: Any
    values: Mapping[str, Any]
    arguments: Mapping[str, Any]
    reads: Mapping[str, Any]


def parameter_shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters, in the order of the layers.

    Example:
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "tiny", "loss": "mse", "network": {
        ...     "input": {"size": 4}, "layers": [{"name": "fc", "type": "dense", "units": 2}]}})
        >>> parameter_shapes(spec)
        {'fc.weight': (2, 4), 'fc.bias': (2,)}
    """
    return spec_shapes(spec.layers, spec.shapes)


def forward_pass(
    spec: Spec,
    parameters: Mapping[str, Any],
    sample: Any,
    activate: Activate,
    shifts: Mapping[str, Any] | None = None,
) -> Pass:
    """The outputs of all layers for one sample.

    Args:
        spec: the network.
        parameters: name -> array that has ``@``, ``+``, ``.T`` and ``reshape``.
        sample: network input, with the axes that the spec gives it; of several, the entries of all.
        activate: applies an activation to an array.
        shifts: layer name -> array added to the argument of its activation (or to its output, where
            it has none); differentiating by it gives derivatives by pre-activations. Names of parts too.

    Example:
        >>> import numpy as np
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "tiny", "loss": "mse", "network": {
        ...     "input": {"size": [2, 3]}, "layers": [
        ...         {"name": "fc", "type": "dense", "units": 4}, {"name": "all", "type": "flatten"}]}})
        >>> params = {"fc.weight": np.ones((4, 3)), "fc.bias": np.ones(4)}
        >>> run = forward_pass(spec, params, np.ones((2, 3)), lambda function, a: a)
        >>> run.values["fc"].shape, run.output.shape
        ((2, 4), (8,))
    """
    (found,) = forward_passes(spec, parameters, [sample], activate, shifts)
    return found


def forward_passes(
    spec: Spec,
    parameters: Mapping[str, Any],
    samples: Sequence[Any],
    activate: Activate,
    shifts: Mapping[str, Any] | None = None,
) -> list[Pass]:
    """The outputs of all layers for the samples of a batch, which may act on each other.

    Args:
        spec: the network.
        parameters: as in :func:`forward_pass`, with the buffers.
        samples: network inputs.
        activate: as in :func:`forward_pass`.
        shifts: as in :func:`forward_pass`, the same for all samples.
    """
    values: list[dict[str, Any]] = []
    for sample in samples:
        parts = input_parts(spec, sample)
        values.append({source.name: as_vectors(source, parts[source.name]) for source in all_inputs(spec)})
    arguments: list[dict[str, Any]] = [{} for _ in samples]
    reads: list[dict[str, Any]] = [{} for _ in samples]
    for layer in spec.layers:
        sources = [tuple(each[name] for name in layer.inputs) for each in values]
        batch = [read[0] for read in sources] if _of_batch(spec, layer) else None
        for each, seen, read, inside in zip(values, arguments, sources, reads, strict=True):
            drawn = layer_draws(spec, layer, each)
            at = At(layer, read, parameters, activate, batch, drawn, shifts or {}, inside)
            value = layer_value(at)
            if shifts is not None and layer.name in shifts:
                value = value + shifts[layer.name]
            if layer.activation is not None:
                seen[layer.name] = value
                value = activate(layer.activation, value)
            each[layer.name] = value
    last = spec.layers[-1].name
    found = zip(values, arguments, reads, strict=True)
    return [Pass(value[last].reshape(-1), value, argument, read) for value, argument, read in found]


def _of_batch(spec: Spec, layer: LayerSpec) -> bool:
    """Whether a layer reads all samples of the batch."""
    return isinstance(layer.settings, BatchNormSpec) and (
        spec.mode == "training" or not layer.settings.tracked
    )


def couples(spec: Spec) -> bool:
    """Whether samples of a batch act on each other."""
    return _shares_count(spec) or (any(_of_batch(spec, layer) for layer in spec.layers))


def buffer_values(spec: Spec) -> dict[str, Any]:
    """Buffers at which networks are looked at, by name: numbers that every dtype has."""
    found = {}
    for name, shape in buffer_shapes(spec.layers, spec.shapes).items():
        numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
        mean = (7 * numbers % 5 - 2) / 4
        found[name] = mean if name.endswith("mean") else (2 + numbers % 3) / 4
    return found


def argument_names(count: int) -> tuple[str, ...]:
    """What a function of entries calls its arguments."""
    return ("x",) if count == 1 else tuple(f"x{number}" for number in range(1, count + 1))


def all_inputs(spec: Spec) -> tuple[InputSpec, ...]:
    """The inputs of the network, then the uniform numbers that layers draw for each sample in training.

    Example:
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "two", "loss": "mse", "network": {
        ...     "input": {"name": "a", "size": 3}, "layers": [
        ...         {"name": "less", "type": "dropout"}, {"name": "fc", "type": "dense", "units": 4}]}})
        >>> [(source.name, source.shape) for source in all_inputs(spec)]
        [('a', (3,)), ('less.drawn', (3,))]
    """
    drawing = (layer for layer in spec.layers if LAYER_TYPES[layer.kind].draws)
    found = (InputSpec(_drawn_name(layer), spec.shapes[layer.inputs[0]]) for layer in drawing)
    return (*spec.inputs, *found)


def _drawn_name(layer: LayerSpec) -> str:
    return f"{layer.name}.drawn"


def layer_draws(spec: Spec, layer: LayerSpec, values: Mapping[str, Any]) -> Any:
    """What a layer draws in training, among values by name; None where it does not."""
    return values.get(_drawn_name(layer)) if spec.mode == "training" else None


def input_parts(spec: Spec, sample: Any) -> dict[str, Any]:
    """Inputs by name, and what layers draw, of one sample or of several; if there are several, their entries
    come in a row.

    Example:
        >>> import numpy as np
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "two", "loss": "mse", "network": {
        ...     "inputs": [{"name": "a", "size": 2}, {"name": "b", "size": [2, 2]}], "layers": [
        ...         {"name": "fc", "type": "dense", "units": 4},
        ...         {"name": "all", "type": "flatten", "inputs": "b"},
        ...         {"name": "both", "type": "add", "inputs": ["fc", "all"]}]}})
        >>> {name: part.tolist() for name, part in input_parts(spec, np.arange(6)).items()}
        {'a': [0, 1], 'b': [[2, 3], [4, 5]]}
    """
    sources = all_inputs(spec)
    if len(sources) == 1:
        return {spec.input.name: sample}
    found, first = {}, 0
    for source in sources:
        part = sample[..., first : first + source.size]
        found[source.name] = part.reshape((*part.shape[:-1], *source.shape))
        first += source.size
    return found


def as_vectors(source: InputSpec, sample: Any) -> Any:
    """An input of one sample, or of several: classes as vectors with a one along a last axis."""
    if not source.classes:
        return sample
    if hasattr(sample, "detach"):
        import torch

        return (sample[..., None] == torch.arange(source.classes)).to(torch.float64)
    return (np.asarray(sample)[..., None] == np.arange(source.classes)).astype(int)


def _shares_count(spec: Spec) -> bool:
    """Whether a mean divides by what counts of the whole batch."""
    of_classes = spec.loss.targets == "classes" and (spec.loss.ignored is not None or bool(spec.loss.weights))
    return spec.loss.reduction == "mean" and (of_classes or bool(spec.loss.mask))


def with_mask(spec: Spec, vectors: Any, samples: Any) -> Any:
    """Targets as vectors, and after their entries those of the mask, where the loss has one.

    Args:
        spec: the network.
        vectors: of one sample or of several, the last axis of all entries.
        samples: network inputs.
    """
    if not spec.loss.mask:
        return vectors
    mask = input_parts(spec, samples)[spec.loss.mask]
    mask = mask.reshape((*vectors.shape[:-1], -1))
    if hasattr(vectors, "detach"):
        import torch

        return torch.cat([vectors, mask.to(torch.float64)], -1)
    return np.concatenate([vectors, mask], -1)


def placed_loss(spec: Spec, output: Any, target: Any, loss: Callable[[Any, Any], Any]) -> Any:
    """The loss of a sample: of the vectors along one axis of the output, and what is made of them.

    Args:
        spec: the network.
        output: all axes as one.
        target: of the shape of the output, all axes as one; after it a mask, as :func:`with_mask` gives it.
        loss: of two vectors.
    """
    shape, axis = spec.layers[-1].shape, spec.loss.axis
    size = prod(shape)
    target, mask = target[:size], target[size:]
    if spec.loss.entries or spec.loss.positive:
        return _by_entries(spec, output, target, mask, loss)
    order = [n for n in range(len(shape)) if n != axis]
    rows, wanted = (
        permuted(value.reshape(shape), [*order, axis]).reshape((-1, shape[axis]))
        for value in (output, target)
    )
    values = [loss(row, _wanted(spec, other)) for row, other in zip(rows, wanted, strict=True)]
    if spec.loss.mask:
        values = [value * weight for value, weight in zip(values, mask, strict=True)]
    total = sum(values[1:], values[0])
    return total / len(values) if spec.loss.places == "mean" else total


def _by_entries(spec: Spec, output: Any, target: Any, mask: Any, loss: Callable[[Any, Any], Any]) -> Any:
    """A loss that is the mean, or the sum, of a function of each entry, one entry at a time."""
    shape, axis = spec.layers[-1].shape, spec.loss.axis
    # Of a vector whose entries are equal a mean is the function of one, a sum that many times it.
    many, size = shape[axis], len(output)
    others = [count for number, count in enumerate(shape) if number != axis]
    places = np.broadcast_to(np.expand_dims(np.arange(size // many).reshape(others), axis), shape)
    found = []
    for n, place in enumerate(np.ndindex(shape)):
        y, t = output[n : n + 1], target[n : n + 1]

        def of(wanted: Any, y: Any = y) -> Any:
            return loss(joined([y] * many, 0), joined([wanted] * many, 0))

        value = of(t)
        if spec.loss.positive:
            over, under = Fraction(repr(spec.loss.positive[place[axis]])).as_integer_ratio()
            value = t[0] * of(t * 0 + 1) * over / under + (1 - t[0]) * of(t * 0)
        if spec.loss.mask:
            value = value * mask[n if spec.loss.entries else places[place]]
        found.append(value)
    total = sum(found[1:], found[0])
    if spec.loss.reduction == "mean":
        return total / (size if spec.loss.places == "mean" else many)
    return total / many


def _wanted(spec: Spec, target: Any) -> Any:
    """A vector with a part of its sum at all entries alike, times the weights of the classes.

    Whole numbers, that no digits are lost.
    """
    part, whole = Fraction(repr(spec.loss.smoothing)).as_integer_ratio()
    if part:
        target = target * (whole - part) / whole + target.sum() * part / (whole * len(target))
    if not spec.loss.weights:
        return target
    weights = [Fraction(repr(weight)).as_integer_ratio() for weight in spec.loss.weights]
    rows = [target[n : n + 1] * over / under for n, (over, under) in enumerate(weights)]
    return joined(rows, 0)


def one_hot(spec: Spec, target: Any) -> Any:
    """Class indices at the places of one sample as vectors, in the order of the output, all axes as one."""
    shape, axis = spec.layers[-1].shape, spec.loss.axis
    classes = np.asarray(target, dtype=int)
    vectors = np.eye(shape[axis])[classes % shape[axis]]
    if spec.loss.ignored is not None:
        vectors = vectors * (classes != spec.loss.ignored)[..., None]
    return np.moveaxis(vectors, -1, axis).reshape(-1)


def counted(spec: Spec, vectors: Sequence[Any]) -> Any:
    """What counts of the targets of a sample on average, of all its places or of each of them; else 1.

    Args:
        spec: the network.
        vectors: targets of the samples, as :func:`one_hot` and :func:`with_mask` give them.
    """
    if not _shares_count(spec):
        return 1
    shape, axis = spec.layers[-1].shape, spec.loss.axis
    size = prod(shape)
    if spec.loss.entries:
        return sum(vector[size:].sum() for vector in vectors) / (len(vectors) * size)
    places = size // shape[axis]
    total: Any = 0
    order = [n for n in range(len(shape)) if n != axis]
    weights = [Fraction(repr(weight)).as_integer_ratio() for weight in spec.loss.weights or [1] * shape[axis]]
    for vector in vectors:
        rows = permuted(vector[:size].reshape(shape), [*order, axis]).reshape((places, shape[axis]))
        for place, row in enumerate(rows):
            own = sum(entry * over / under for entry, (over, under) in zip(row, weights, strict=True))
            own = own if spec.loss.targets == "classes" else 1
            total = total + (own * vector[size + place] if spec.loss.mask else own)
    total = total / len(vectors)
    return total / places if spec.loss.places == "mean" else total


def regularized_states(spec: Spec) -> dict[str, float | None]:
    """State name -> λ; None where λ is a value per sample (spectral)."""
    chosen = spec.regularization
    states = list(dict.fromkeys(state_names(spec.layers).values()))
    match chosen.kind:
        case "uniform":
            return dict.fromkeys(states[:-1], chosen.value)
        case "per_state":
            return dict(chosen.values)
        case "spectral":
            return dict.fromkeys(states[:-1], None)
        case "none":
            return {}


def spectral_chain(spec: Spec) -> list[str]:
    """The states of a chain in order, for MK(65).

    Raises:
        VerificationError: the network is no chain, for which MK(65) says nothing.
    """
    names = state_names(spec.layers)
    before = [spec.input.name, *(layer.name for layer in spec.layers[:-1])]
    if any(layer.inputs != (name,) for layer, name in zip(spec.layers, before, strict=True)):
        raise VerificationError("spectral state regularisation is defined on chains only, MK(65)")
    return list(dict.fromkeys(names.values()))
