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
        momentum: part of a step's statistics in the running ones.
        affine: whether there is a weight.
    """

    epsilon: float
    momentum: float
    affine: bool


def _resolve(site: Site) -> Resolved:
    if not site.shape:
        raise site.error(
            "type", f"batch_norm layer '{site.item.name}' reads a number", hint="its input needs channels"
        )
    given = site.item.written.momentum
    momentum = 0.1 if given is None else float(given)
    if not 0.0 <= momentum <= 1.0:
        raise site.error("momentum", "momentum is between 0 and 1", hint="e.g. 0.1, the default")
    epsilon, affine = common_settings(site, True)
    return Resolved(site.shape, BatchNormSpec(epsilon, momentum, affine))


def _channels(inputs: tuple[Sizes, ...]) -> Sizes:
    return inputs[0][:1]


def _settings(layer: LayerSpec) -> BatchNormSpec:
    assert isinstance(layer.settings, BatchNormSpec)
    return layer.settings


def _owners(layer: LayerSpec) -> tuple[Owner, ...]:
    return (Owner(_channels, layer.bias, start="ones"),) if _settings(layer).affine else ()


def _buffers(layer: LayerSpec) -> tuple[Buffer, ...]:
    return Buffer("running_mean", _channels, 0.0), Buffer("running_var", _channels, 1.0)


def _written(layer: LayerSpec) -> dict[str, Any]:
    settings = _settings(layer)
    return {"epsilon": settings.epsilon, "momentum": settings.momentum, "affine": settings.affine}


BATCH_NORM = LayerType(
    "batch_norm",
    ("epsilon", "momentum", "affine", "bias", "activation", "parameters"),
    _resolve,
    owners=_owners,
    buffers=_buffers,
    written=_written,
    drawn=False,
    apart=True,
)
