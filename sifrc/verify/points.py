"""Random points at which quantities are compared, and small versions of a spec."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from sifrc.ir.arithmetic import Array
from sifrc.spec.types import Spec
from sifrc.verify.oracles.network import parameter_shapes

__all__ = ["Point", "capped", "near_targets", "parameter_count", "random_point"]


@dataclass(frozen=True)
class Point:
    """Parameters, a batch and a direction, all float64.

    Args:
        params: name -> array.
        inputs: (B, *axes of the network input).
        targets: (B,) class indices or (B, n_out).
        vector: a direction shaped like the parameters.
    """

    params: dict[str, Array]
    inputs: Array
    targets: Array
    vector: dict[str, Array]

    def sample(self, index: int = 0) -> tuple[Array, Any]:
        """Input and target of one sample."""
        return self.inputs[index], self.targets[index]


def random_point(spec: Spec, seed: int, batch: int = 1) -> Point:
    """A generic point: weights of variance 1 / fan-in, everything else of order one.

    Vector targets are probabilities: a loss may be undefined elsewhere.

    Example:
        >>> from sifrc.spec import parse_spec, starter_spec
        >>> random_point(parse_spec(starter_spec("digits")), seed=0, batch=2).inputs.shape
        (2, 64)
    """
    generator = np.random.default_rng(seed)
    shapes = parameter_shapes(spec)
    params = {
        name: generator.normal(size=shape) / np.sqrt(shape[-1] if len(shape) > 1 else 4)
        for name, shape in shapes.items()
    }
    inputs = generator.normal(size=(batch, *spec.input.shape))
    size = spec.layers[-1].size
    targets: Array
    if spec.loss.targets == "classes":
        targets = generator.integers(size, size=batch)
    else:
        weights = generator.uniform(0.1, 1.0, size=(batch, size + 1))
        targets = weights[:, :size] / weights.sum(axis=1, keepdims=True)
    vector = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    return Point(params, inputs, targets, vector)


def near_targets(spec: Spec, point: Point, outputs: Any, seed: int) -> Point:
    """The point with vector targets next to the network's outputs (B, n_out); class targets as they are.

    Losses such as huber are curved only there.
    """
    if spec.loss.targets == "classes":
        return point
    shift = np.random.default_rng(seed).uniform(0.01, 0.1, size=point.targets.shape)
    return replace(point, targets=np.asarray(outputs, dtype=np.float64) + shift)


def parameter_count(spec: Spec) -> int:
    """Number of parameters.

    Example:
        >>> from sifrc.spec import parse_spec, starter_spec
        >>> parameter_count(parse_spec(starter_spec("digits"))) > 1000
        True
    """
    return sum(int(np.prod(shape)) for shape in parameter_shapes(spec).values())


def capped(spec: Spec, size: int) -> Spec:
    """The same network with every axis at most ``size`` long; equal sizes stay equal.

    An axis is longer only where it is several in one, or as long as one that is.

    Example:
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "tiny", "loss": "mse", "network": {
        ...     "input": {"size": [8, 9]}, "layers": [
        ...         {"name": "fc", "type": "dense", "units": 7}, {"name": "all", "type": "flatten"}]}})
        >>> dict(capped(spec, 3).shapes)
        {'input': (3, 3), 'fc': (3, 3), 'all': (9,)}
    """
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
