"""A tensor by itself: a parameter, or one that is given and not trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sifrc.spec.layers.record import Buffer, LayerType, Owner, Resolved, Site
from sifrc.spec.types import LayerSettings, LayerSpec

__all__ = ["PARAMETER", "TensorSpec"]


@dataclass(frozen=True)
class TensorSpec(LayerSettings):
    """Whether the tensor is trained; if not, it is a buffer."""

    trained: bool


def _resolve(site: Site) -> Resolved:
    written, name = site.item.written, site.item.name
    if written.sizes is None:
        raise site.error("", f"parameter layer '{name}' has no sizes", hint="e.g. sizes: [1, 64]")
    for size in written.sizes:
        if size < 1:
            raise site.error("sizes", f"'{name}' cannot have {size} entries along an axis", hint="1 or more")
    trained = written.trained is not False
    if not trained and written.init is not None:
        raise site.error("init", f"'{name}' is not trained, its entries are given", hint="leave init out")
    return Resolved(tuple(written.sizes), TensorSpec(trained))


def _trained(layer: LayerSpec) -> bool:
    assert isinstance(layer.settings, TensorSpec)
    return layer.settings.trained


def _owners(layer: LayerSpec) -> tuple[Owner, ...]:
    return (Owner(lambda inputs: layer.shape, False, start="normal"),) if _trained(layer) else ()


def _buffers(layer: LayerSpec) -> tuple[Buffer, ...]:
    return () if _trained(layer) else (Buffer("value", lambda inputs: layer.shape, 0.0),)


def _written(layer: LayerSpec) -> dict[str, Any]:
    return {"sizes": list(layer.shape), "trained": _trained(layer)}


PARAMETER = LayerType(
    "parameter",
    ("sizes", "trained", "init"),
    _resolve,
    inputs=(0, 0),
    several="a parameter reads nothing",
    owners=_owners,
    buffers=_buffers,
    written=_written,
    drawn=False,
)
