"""The data that operators are of: batches, checked and kept, and what each counts in the objective."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.progress import Watch

__all__ = ["Batch", "Batches", "Inputs", "Pair", "checked_batches", "read_pairs"]

Inputs: TypeAlias = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]
"""Of a network with one input, or with several, in order or by name."""
Pair: TypeAlias = tuple[Any, Tensor]
"""Inputs and targets as they are given."""


@dataclass(frozen=True)
class Batch:
    """Inputs and targets of some samples.

    Args:
        inputs: as functions of generated modules take them.
        targets: (B, …).
        number: of the batch, from 1, for errors; 0 for the only one.
    """

    inputs: Inputs
    targets: Tensor
    number: int = 0

    @property
    def where(self) -> str:
        """For errors."""
        return f"batch {self.number}" if self.number else "the batch"


@dataclass(frozen=True)
class Batches:
    """All the data.

    Args:
        each: in order.
        summed: whether the loss is a sum over the samples, and not their mean.
    """

    each: tuple[Batch, ...]
    summed: bool

    @property
    def samples(self) -> int:
        """Of all batches."""
        return sum(len(batch.targets) for batch in self.each)

    @property
    def weights(self) -> tuple[float, ...]:
        """What the objective of each batch counts in that of all of them."""
        if self.summed:
            return (1.0,) * len(self.each)
        return self.shares

    @property
    def shares(self) -> tuple[float, ...]:
        """Of all samples, those of each batch."""
        return tuple(len(batch.targets) / self.samples for batch in self.each)


def read_pairs(data: Any, watch: Watch) -> tuple[Pair, ...]:
    """One batch ``(inputs, targets)``, or all that an iterable of them gives; they are kept.

    Args:
        data: a batch, or an iterable such as a data loader.
        watch: shows how far it is.

    Raises:
        OperatorError: there is no data, or it is not of this form.
    """
    if _is_batch(data):
        return ((_given(data[0]), data[1]),)
    if isinstance(data, Tensor | str | Mapping) or not isinstance(data, Iterable):
        raise OperatorError(
            f"data: an object of type {type(data).__name__}",
            hint="a batch (inputs, targets), or an iterable of batches such as a DataLoader",
        )
    found: list[Pair] = []
    total = len(data) if isinstance(data, Sized) else None
    with watch.steps("reading data", total) as done:
        for number, item in enumerate(data, 1):
            if not _is_batch(item):
                raise OperatorError(
                    f"data: batch {number} is an object of type {type(item).__name__}",
                    hint="each batch is a pair (inputs, targets) with a tensor of targets",
                )
            found.append((_given(item[0]), item[1]))
            done()
    if not found:
        raise OperatorError("data: no batch", hint="at least one batch (inputs, targets)")
    return tuple(found)


def checked_batches(pairs: Sequence[Pair], like: Tensor, summed: bool) -> Batches:
    """Batches for a network.

    Args:
        pairs: inputs and targets.
        like: a parameter: numbers of a batch have its dtype, and come to its device.
        summed: whether the loss is a sum over the samples.

    Raises:
        OperatorError: something is no tensor, has no samples or another dtype, or is not finite.

    Example:
        >>> import torch
        >>> pair = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)
        >>> checked_batches([pair, pair], torch.zeros(1), False).weights
        (0.5, 0.5)
    """
    numbers = range(1, len(pairs) + 1) if len(pairs) > 1 else (0,)
    each = [_batch(pair, number, like) for pair, number in zip(pairs, numbers, strict=True)]
    return Batches(tuple(each), summed)


def _given(inputs: Any) -> Any:
    return tuple(inputs) if isinstance(inputs, list) else inputs


def _is_batch(data: Any) -> bool:
    return isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[1], Tensor)


def _batch(pair: Pair, number: int, like: Tensor) -> Batch:
    inputs, targets = pair
    where = f"batch {number}" if number else "the batch"
    every = {"inputs": inputs}
    if isinstance(inputs, tuple):
        every = {f"inputs[{k}]": value for k, value in enumerate(inputs)}
    elif isinstance(inputs, Mapping):
        every = {f"inputs[{name!r}]": value for name, value in inputs.items()}
    for name, value in {**every, "targets": targets}.items():
        if not isinstance(value, Tensor):
            raise OperatorError(
                f"{where}: {name} is an object of type {type(value).__name__}", hint="a tensor"
            )
        if value.ndim == 0 or len(value) == 0:
            raise OperatorError(f"{where}: {name} of shape {tuple(value.shape)}", hint="at least one sample")
        if value.is_floating_point() and value.dtype != like.dtype:
            raise OperatorError(
                f"{where}: {name} of {value.dtype}, and the parameters are of {like.dtype}",
                hint=f"{name.partition('[')[0]}.to({like.dtype}), or model.to({value.dtype})",
            )
        if value.is_floating_point() and not value.is_cuda and not bool(value.isfinite().all()):
            raise OperatorError(f"{where}: {name} with numbers that are not finite", hint="look at the data")
    moved = {name: value.detach().to(like.device) for name, value in every.items()}
    values = tuple(moved.values())
    # A network with one input takes it alone, however it was given.
    given: Inputs = values if isinstance(inputs, tuple) and len(values) > 1 else values[0]
    if isinstance(inputs, Mapping) and len(values) > 1:
        given = dict(zip(inputs, values, strict=True))
    return Batch(given, targets.detach().to(like.device), number)
