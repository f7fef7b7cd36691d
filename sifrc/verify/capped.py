"""Small forms of a network, for checks with many digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import lcm, prod
from typing import Any

from sifrc.errors import SpecError
from sifrc.spec import build_spec, spec_to_dict
from sifrc.spec.layers.windows import windowed_shape
from sifrc.spec.types import AdaptiveSpec, LayerSpec, Spec, WindowSpec

__all__ = ["capped"]

_PLAIN = ("dense", "conv", "pool", "activation", "add", "flatten")
"""Types of layers whose output has the sizes of the input, or new ones."""
_MOST_TRIED = 12


def capped(spec: Spec, size: int) -> Spec:
    """The same network with every axis at most ``size`` long; equal sizes stay equal.

    An axis is longer only where it is several in one, or as long as one that is; channels where groups divide
    them, and places where windows would not fit.

    Example:
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "tiny", "loss": "mse", "network": {
        ...     "input": {"size": [8, 9]}, "layers": [
        ...         {"name": "fc", "type": "dense", "units": 7}, {"name": "all", "type": "flatten"}]}})
        >>> dict(capped(spec, 3).shapes)
        {'input': (3, 3), 'fc': (3, 3), 'all': (9,)}
    """
    settings = [layer.settings for layer in spec.layers]
    if spec.loss.weights:
        found = capped(replace(spec, loss=replace(spec.loss, weights=())), size)
        weights = spec.loss.weights[: found.layers[-1].shape[found.loss.axis]]
        return replace(found, loss=replace(found.loss, weights=weights)) if any(weights) else spec
    fixed = any(isinstance(s, AdaptiveSpec) or (isinstance(s, WindowSpec) and s.beyond) for s in settings)
    if spec.others or fixed or any(layer.kind not in _PLAIN for layer in spec.layers):
        return _rebuilt(spec, size)
    if any(layer.window is not None for layer in spec.layers):
        return _with_windows(spec, size)
    sizes = {entries: min(entries, size) for shape in spec.shapes.values() for entries in shape}
    several = (spec.shapes[layer.inputs[0]] for layer in spec.layers if layer.kind == "flatten")
    for shape in sorted(several, key=prod):  # one axis of a flattened state may have been flattened itself
        sizes[prod(shape)] = prod(sizes[entries] for entries in shape)

    def small(shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sizes[entries] for entries in shape)

    return replace(
        spec,
        input=replace(spec.input, shape=small(spec.input.shape)),
        layers=tuple(replace(layer, shape=small(layer.shape)) for layer in spec.layers),
    )


def _rebuilt(spec: Spec, size: int) -> Spec:
    """The smallest spec that is right with shorter axes of the input, and fewer units and channels."""
    largest = max(entries for shape in spec.shapes.values() for entries in shape)
    for most in range(size, min(largest, _MOST_TRIED)):
        document = spec_to_dict(spec)
        network = document["network"]
        for source in network.get("inputs") or [network["input"]]:
            sizes = source["size"]
            source["size"] = [min(n, most) for n in (sizes if isinstance(sizes, list) else [sizes])]
            if "classes" in source:
                source["classes"] = min(source["classes"], most)
        for layer in network["layers"]:
            for key in ("units", "channels"):
                if key in layer:
                    layer[key] = min(layer[key], most)
            if "groups" in layer and "heads" not in layer:
                layer["groups"] = min(layer["groups"], _groups(layer, most))
        try:
            return build_spec(document)
        except SpecError:
            continue  # sizes that go together no longer do
    return spec


def _groups(layer: Mapping[str, Any], most: int) -> int:
    """Of a layer: with one channel each they stay so, others still are several of several channels."""
    return most if layer["groups"] == layer.get("channels") else max(2, most // 2)


def _with_windows(spec: Spec, size: int) -> Spec:
    """The smallest input that all windows fit into."""
    groups = lcm(*(layer.window.groups for layer in spec.layers if layer.window is not None))

    def channels(count: int) -> int:
        small = -(-min(count, size) // groups) * groups
        return small if count > size and small <= count else count

    first, *places = spec.input.shape
    for most in range(size, max(places) + 1):
        shape = (channels(first), *(min(entries, most) for entries in places))
        layers = _reshaped(spec, shape, size, channels)
        if layers is not None:
            return replace(spec, input=replace(spec.input, shape=shape), layers=layers)
    return spec


def _reshaped(
    spec: Spec, shape: tuple[int, ...], size: int, channels: Callable[[int], int]
) -> tuple[LayerSpec, ...] | None:
    """The layers on an input of a shape; None where a window does not fit, or inputs of a sum differ."""
    shapes = {spec.input.name: shape}
    layers = []
    for layer in spec.layers:
        inputs = [shapes[name] for name in layer.inputs]
        made = inputs[0]
        if layer.window is not None:
            first = channels(layer.shape[0]) if layer.kind == "conv" else made[0]
            made = (first, *windowed_shape(layer.window, made[1:]))
        elif layer.kind == "dense":
            made = (*made[:-1], min(layer.shape[-1], size))
        elif layer.kind == "flatten":
            made = (prod(made),)
        if min(made) < 1 or any(other != inputs[0] for other in inputs):
            return None
        shapes[layer.name] = made
        layers.append(replace(layer, shape=made))
    return tuple(layers)
