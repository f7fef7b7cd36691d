"""Random points at which quantities are compared, and small versions of a spec."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sifrc.ir.arithmetic import Array
from sifrc.spec.types import InputSpec, Spec
from sifrc.verify.oracles.network import all_inputs, parameter_shapes

__all__ = ["Point", "near_targets", "parameter_count", "random_point"]


@dataclass(frozen=True)
class Point:
    """Parameters, a batch and a direction, all float64.

    Args:
        params: name -> array.
        inputs: (B, *axes of the network input); (B, entries) of all inputs, and of what layers draw, where
            there are several.
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
        name: generator.normal(size=shape) / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 4)
        for name, shape in shapes.items()
    }
    masks = {layer.inputs[-1] for layer in spec.layers if layer.mask}
    given = [_random_input(source, generator, batch, source.name in masks) for source in spec.inputs]
    if spec.loss.mask:
        position = [source.name for source in spec.inputs].index(spec.loss.mask)
        given[position] = _random_weights(given[position], generator, spec.loss.mask in masks)
    given += [generator.random((batch, *source.shape)) for source in all_inputs(spec)[len(given) :]]
    inputs = np.concatenate([part.reshape(batch, -1) for part in given], 1) if given[1:] else given[0]
    shape, axis = spec.layers[-1].shape, spec.loss.axis
    size, places = shape[axis], spec.loss.of_places(shape)
    targets: Array
    if spec.loss.targets == "classes":
        targets = generator.integers(size, size=(batch, *places))
        # At one place at least each sample counts: single samples are looked at too.
        known = spec.loss.weights or (1.0,) * size
        first = next(c for c, weight in enumerate(known) if weight and c != spec.loss.ignored)
        targets = np.where(np.isin(targets, [c for c in range(size) if not known[c]]), first, targets)
        if spec.loss.ignored is not None:
            targets = np.where(targets == spec.loss.ignored, first, targets)
        if spec.loss.ignored is not None and places:
            left_out = generator.uniform(size=targets.shape) < 0.25
            left_out.reshape(batch, -1)[:, 0] = False
            targets = np.where(left_out, spec.loss.ignored, targets)
    else:
        weights = generator.uniform(0.1, 1.0, size=(batch, *places, size + 1))
        targets = weights[..., :size] / weights.sum(axis=-1, keepdims=True)
        targets = np.moveaxis(targets, -1, axis + 1)
    vector = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    return Point(params, inputs, targets, vector)


def _random_input(source: InputSpec, generator: np.random.Generator, batch: int, mask: bool) -> Array:
    """Classes, numbers of order one, or a mask of zeros and ones."""
    size = (batch, *source.shape)
    if mask:
        return (generator.random(size) < 0.6).astype(np.float64)
    return generator.integers(source.classes, size=size) if source.classes else generator.normal(size=size)


def _random_weights(given: Array, generator: np.random.Generator, mask: bool) -> Array:
    """What weighs losses: of each sample something counts, the first entry at least."""
    found = given if mask else generator.uniform(0.2, 1.5, size=given.shape) * (given < 0.6)
    found.reshape(len(found), -1)[:, 0] = 1.0
    return found


def near_targets(spec: Spec, point: Point, outputs: Any, seed: int) -> Point:
    """The point with vector targets next to the network's outputs (B, n_out); class targets as they are.

    Losses such as huber are curved only there.
    """
    if spec.loss.targets == "classes":
        return point
    shift = np.random.default_rng(seed).uniform(0.01, 0.1, size=point.targets.shape)
    found = np.asarray(outputs, dtype=np.float64).reshape(point.targets.shape)
    return replace(point, targets=found + shift)


def parameter_count(spec: Spec) -> int:
    """Number of parameters.

    Example:
        >>> from sifrc.spec import parse_spec, starter_spec
        >>> parameter_count(parse_spec(starter_spec("digits"))) > 1000
        True
    """
    return sum(int(np.prod(shape)) for shape in parameter_shapes(spec).values())
