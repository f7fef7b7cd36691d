"""Dropout: entries that are left out in training, others for each sample and each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sifrc.spec.layers.record import LayerType, Resolved, Site
from sifrc.spec.types import LayerSettings, LayerSpec

__all__ = ["DROPOUT", "DropoutSpec"]


@dataclass(frozen=True)
class DropoutSpec(LayerSettings):
    """Which part of the entries is left out.

    Args:
        probability: of an entry to be left out.
    """

    probability: float


def _resolve(site: Site) -> Resolved:
    given = site.item.written.probability
    probability = 0.5 if given is None else float(given)
    if not 0.0 <= probability < 1.0:
        raise site.error(
            "probability",
            f"dropout layer '{site.item.name}' leaves out entries with probability {probability:g}",
            hint="probability is at least 0 and less than 1, e.g. 0.5, the default",
        )
    return Resolved(site.shape, DropoutSpec(probability))


def _written(layer: LayerSpec) -> dict[str, Any]:
    assert isinstance(layer.settings, DropoutSpec)
    return {"probability": layer.settings.probability}


DROPOUT = LayerType("dropout", ("probability",), _resolve, written=_written, apart=True, draws=True)
