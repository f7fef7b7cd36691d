"""Gradients of single samples, and moments of these, over all batches."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.batches import Batch
from sifrc.linear.products import Point

__all__ = ["Moment", "sample_gradients"]

Moment: TypeAlias = Literal["none", "norm", "second", "variance"]
"""What becomes of the gradients of the samples."""


def sample_gradients(point: Point, moment: Moment) -> dict[str, Tensor]:
    """See :meth:`sifrc.linear.CurvatureOperators.sample_gradients`.

    Raises:
        SifrcError: the moment is unknown, or the samples of a batch have no gradients of their own.
    """
    if moment not in get_args(Moment):
        raise OperatorError(f"gradients of samples, {moment!r}", hint=", ".join(get_args(Moment)))
    binding = point.binding
    function = binding.module("per_sample_gradients").per_sample_gradients

    def of(batch: Batch) -> dict[str, Tensor]:
        found = point.call(function, batch, moment=moment)
        return {own: found[name] for own, name in binding.names.items()}

    parts = []
    with point.watch.steps("gradients of samples", len(point.batches.each)) as done:
        for batch in point.batches.each:
            parts.append(of(batch))
            done()
    if moment in ("none", "norm"):
        return {own: torch.cat([part[own] for part in parts]) for own in binding.names}
    if moment == "variance" and len(parts) > 1:
        _add_spread(point, parts)
    shares = point.batches.shares
    return {
        own: torch.stack([share * part[own] for share, part in zip(shares, parts, strict=True)]).sum(0)
        for own in binding.names
    }


def _add_spread(point: Point, parts: list[dict[str, Tensor]]) -> None:
    """What the squared distances from the mean of a batch lack of those from the mean of all."""
    binding, batches = point.binding, point.batches
    gradient = binding.module("gradient").gradient
    means = []
    for batch in batches.each:
        size = len(batch.targets) if batches.summed else 1
        found = point.call(gradient, batch)
        means.append({own: found[name] / size for own, name in binding.names.items()})
    for own in binding.names:
        each = [mean[own] for mean in means]
        whole = torch.stack([s * mean for s, mean in zip(batches.shares, each, strict=True)]).sum(0)
        for part, mean in zip(parts, each, strict=True):
            part[own] = part[own] + (mean - whole) ** 2
