"""The Fisher matrix at targets that are drawn from the model."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.batches import Batch
from sifrc.linear.operator import LinearOperator
from sifrc.linear.products import Point, Product
from sifrc.spec.layers import evaluates_apart

__all__ = ["sampled_fisher"]


def sampled_fisher(point: Point, samples: int, seed: int) -> LinearOperator:
    """The empirical Fisher matrix at classes that are drawn by the softmax of the outputs.

    Where the loss is a mean over places, targets of different places are independent: the outer product of
    the whole has the squared factor of the mean, and the Fisher matrix has it once.

    Args:
        point: where.
        samples: classes that are drawn for each sample of the data.
        seed: of the draws.

    Raises:
        OperatorError: targets are no classes, the network is another one in training, or a number is wrong.
    """
    spec, batches = point.binding.spec, point.batches
    if spec.loss.targets != "classes":
        raise OperatorError(
            f"the sampled Fisher matrix of '{spec.name}', whose targets are no classes",
            hint="F('exact'), whose products cost no more",
        )
    if evaluates_apart(spec):
        raise OperatorError(
            f"classes drawn from '{spec.name}' in training", hint="mode='evaluation', or F('exact')"
        )
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise OperatorError(f"{samples!r} samples of each target", hint="a whole number of at least 1")
    generator = torch.Generator().manual_seed(seed)
    predict = point.binding.module("empirical_fisher_vector_product").predict
    drawn = []
    for batch in batches.each:
        probabilities = predict(point.binding.values, batch.inputs).softmax(1 + spec.loss.axis)
        for _ in range(samples):
            drawn.append(
                _drawn(batch, probabilities.movedim(1 + spec.loss.axis, -1), spec.loss.ignored, generator)
            )
    moved = replace(point, batches=replace(batches, each=tuple(drawn)))
    kind = "empirical_fisher"
    found: LinearOperator = Product("sampled F", moved, f"{kind}_vector_product", kind, kind)
    shape = spec.layers[-1].shape
    places = prod(shape) // shape[spec.loss.axis] if spec.loss.places == "mean" else 1
    factor = places / samples if batches.summed else float(places)
    return found if factor == 1.0 else factor * found


def _drawn(batch: Batch, probabilities: Tensor, ignored: int | None, generator: torch.Generator) -> Batch:
    """The batch with a class that is drawn for each target that counts."""
    rows = probabilities.reshape(-1, probabilities.shape[-1]).double().cpu()
    found = torch.multinomial(rows, 1, generator=generator).reshape(batch.targets.shape).to(batch.targets)
    if ignored is not None:
        found = torch.where(batch.targets == ignored, batch.targets, found)
    return replace(batch, targets=found)
