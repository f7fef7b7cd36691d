"""From a model, a loss and data to operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.batches import Batches, checked_batches, read_pairs
from sifrc.linear.binding import bind
from sifrc.linear.curvature import CurvatureOperators
from sifrc.linear.products import Point
from sifrc.linear.progress import Watch
from sifrc.spec import Spec

__all__ = ["make_operators"]


def make_operators(
    model: Any,
    loss: Any,
    data: Any,
    *,
    spec: Any,
    params: Mapping[str, Tensor] | None,
    names: Mapping[str, str] | None,
    mode: str | None,
    seed: int,
    output: int | str | None,
    cache: Any,
    progress: bool,
) -> CurvatureOperators:
    """See :func:`sifrc.operators`."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise OperatorError(f"seed: {seed!r}", hint="a whole number from 0")
    watch = Watch(progress)
    pairs = read_pairs(data, watch)
    example, targets = pairs[0]
    binding = bind(
        model,
        loss,
        example,
        targets,
        output=output,
        spec=spec,
        params=params,
        names=names,
        mode=mode,
        cache=cache,
    )
    like = next(iter(binding.values.values()))
    batches = checked_batches(pairs, like, binding.spec.loss.reduction == "sum")
    _check_shared(binding.spec, batches)
    binding.check_forward(batches.each[0])
    return CurvatureOperators(Point(binding, batches, seed, watch))


def _check_shared(spec: Spec, batches: Batches) -> None:
    """Refuse several batches of a loss whose mean divides by what counts in each."""
    loss = spec.loss
    weighed = loss.targets == "classes" and (loss.ignored is not None or loss.weights)
    if len(batches.each) > 1 and not batches.summed and (weighed or loss.mask):
        raise OperatorError(
            f"the loss of '{spec.name}' is a mean over the targets that count, and each of "
            f"{len(batches.each)} batches has others",
            hint="one batch with all samples, or reduction: sum",
        )
