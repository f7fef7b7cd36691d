"""What the oracles' layers are written with: a layer and what it reads, and elementary operations on arrays.

Arrays are those of NumPy, of any kind of number, or torch tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from sifrc.spec.parser import parse_expression
from sifrc.spec.types import FunctionSpec, LayerSpec

__all__ = ["Activate", "At", "joined", "largest", "permuted", "reshaped", "softmax", "taken"]

Activate: TypeAlias = Callable[..., Any]
"""Of a function of entries, and an array for each of its arguments."""


@dataclass(frozen=True)
class At:
    """A layer and what it reads.

    Args:
        layer: of the spec.
        sources: values of its inputs.
        parameters: by name, and buffers.
        activate: applies a scalar function to an array.
        batch: what the first input is for every sample of the batch, where that counts; None elsewhere.
        drawn: uniform numbers, where the layer draws some.
        shifts: name of a part of the layer -> array added to what the part computes with its weight.
        reads: name of a part -> what its weight reads, which the layer puts there.
    """

    layer: LayerSpec
    sources: tuple[Any, ...]
    parameters: Mapping[str, Any]
    activate: Activate
    batch: Sequence[Any] | None = None
    drawn: Any = None
    shifts: Mapping[str, Any] = field(default_factory=dict)
    reads: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> Any:
        """Of a layer with one input."""
        return self.sources[0]

    def parameter(self, slot: str, part: str = "") -> Any:
        """A tensor of the layer, or of the one that it shares with."""
        owner = self.layer.share or self.layer.name
        return self.parameters[".".join(filter(None, (owner, part, slot)))]

    def numbers(self, values: Sequence[float]) -> Any:
        """Fixed numbers, in the arithmetic of the parameters."""
        one = 0 * next(iter(self.parameters.values())).reshape(-1)[:1] + 1
        return joined([self.function("n*x", one, n=value) for value in values], 0)

    def function(self, text: str, value: Any, **parameters: float) -> Any:
        """A function of x, written out, of each entry."""
        tree = parse_expression(text, parameters=list(parameters))
        return self.activate(FunctionSpec("custom", tree, tuple(parameters.items())), value)


def permuted(value: Any, order: Sequence[int]) -> Any:
    """The axes in another order."""
    return value.permute(*order) if hasattr(value, "detach") else value.transpose(order)


def taken(value: Any, axis: int, places: Sequence[int]) -> Any:
    """Entries of an axis by their numbers."""
    return value[(slice(None),) * axis + (list(places),)]


def reshaped(value: Any, shape: Sequence[int]) -> Any:
    """An array, or a number, in a shape."""
    return value.reshape(shape) if hasattr(value, "detach") else np.reshape(value, shape)


def joined(values: Sequence[Any], axis: int) -> Any:
    """Arrays after each other along an axis."""
    if any(hasattr(value, "detach") for value in values):
        import torch

        return torch.cat(list(values), dim=axis)
    return np.concatenate(list(values), axis=axis)


def largest(value: Any, axis: int) -> Any:
    """The largest entry along an axis, the first where there are several."""
    best = taken(value, axis, [0])
    for n in range(1, value.shape[axis]):
        other = taken(value, axis, [n])
        if hasattr(value, "detach"):
            import torch

            best = torch.where(other > best, other, best)
        else:
            best = np.where(np.asarray(other > best, dtype=bool), other, best)
    return best.sum(axis)


def softmax(at: At, value: Any, axis: int) -> Any:
    """exp(x) over its sum, with a number taken off first that changes nothing."""
    top = value.detach() if hasattr(value, "detach") else value
    shape = [1 if n == axis % value.ndim else size for n, size in enumerate(value.shape)]
    exponentials = at.function("exp(x)", value - reshaped(largest(top, axis % value.ndim), shape))
    return exponentials / reshaped(exponentials.sum(axis), shape)
