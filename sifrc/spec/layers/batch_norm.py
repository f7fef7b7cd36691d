"""Batch normalisation: each channel with the mean and the variance of all samples and places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sifrc.spec.layers.norms import common_settings
from sifrc.spec.layers.record import Buffer, LayerType, Owner, Resolved, Site
from sifrc.spec.types import LayerSettings, LayerSpec, Sizes

__all__ = ["BATCH_NORM", "BatchNormSpec"]


@dataclass(frozen=True)
class BatchNormSpec(LayerSettings):
    """How channels, the first axis, are normalised.

    Args:
        epsilon: added to variances.
        momentum: part of a step's statistics in the running ones; None for their mean over all steps.
        affine: whether there is a weight.
        tracked: whether there are running statistics; without, evaluation takes those of the batch too.
    """

    epsilon: float
    momentum: float | None
    affine: bool
    tracked: bool = True


def _resolve(site: Site) -> Resolved:
    if not site.shape:
        raise site.error(
            "type", f"batch_norm layer '{site.item.name}' reads a number", hint="its input needs channels"
        )
    written = site.item.written
    tracked = written.track is not False
    momentum: float | None = 0.1
    if "momentum" in written.model_fields_set:
        momentum = written.momentum
        if not tracked:
            raise site.error("momentum", f"'{site.item.name}' has no running statistics", hint="track: true")
    if momentum is not None and not 0.0 <= momentum <= 1.0:
        raise site.error(
            "momentum",
            "momentum is between 0 and 1",
            hint="e.g. 0.1, the default; null for a mean over all steps",
        )
    epsilon, affine = common_settings(site, True)
    return Resolved(site.shape, BatchNormSpec(epsilon, momentum, affine, tracked))


def _channels(inputs: tuple[Sizes, ...]) -> Sizes:
    return inputs[0][:1]


def _settings(layer: LayerSpec) -> BatchNormSpec:
    assert isinstance(layer.settings, BatchNormSpec)
    return layer.settings


def _owners(layer: LayerSpec) -> tuple[Owner, ...]:
    return (Owner(_channels, layer.bias, start="ones"),) if _settings(layer).affine else ()


def _buffers(layer: LayerSpec) -> tuple[Buffer, ...]:
    settings = _settings(layer)
    if not settings.tracked:
        return ()
    counting = (
        (Buffer("num_batches_tracked", lambda inputs: (), 0.0, counts=True),)
        if settings.momentum is None
        else ()
    )
    return Buffer("running_mean", _channels, 0.0), Buffer("running_var", _channels, 1.0), *counting


def _written(layer: LayerSpec) -> dict[str, Any]:
    settings = _settings(layer)
    running = {"momentum": settings.momentum} if settings.tracked else {"track": False}
    return {"epsilon": settings.epsilon, **running, "affine": settings.affine}


BATCH_NORM = LayerType(
    "batch_norm",
    ("epsilon", "momentum", "track", "affine", "bias", "activation", "parameters"),
    _resolve,
    owners=_owners,
    buffers=_buffers,
    written=_written,
    drawn=False,
    apart=True,
)
