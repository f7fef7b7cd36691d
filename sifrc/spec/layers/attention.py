"""Attention over places, parameters that tell places apart, and vectors for classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sifrc.spec.layers.record import LayerType, Owner, Resolved, Site
from sifrc.spec.types import LayerSettings, LayerSpec, Sizes
from sifrc.spec.words import size_text

__all__ = ["ATTENTION", "EMBEDDING", "POSITIONS", "AttentionSpec", "SinusoidsSpec"]

_BASE, _MOST_BASE = 10000.0, 1e12


@dataclass(frozen=True)
class AttentionSpec(LayerSettings):
    """Scaled dot products of places, softmax over those that are read.

    Args:
        heads: of queries.
        groups: heads of keys and values, each of which several heads of queries share.
        width: entries of a head.
        causal: whether a place reads itself and those before it only.
        scale: of the dot products.
        projected: whether the layer has the weights of queries, keys, values and of its output.
        rotary: which entries of a head are turned together by the angle of their place: ``halves``, the first
            of its first half and the first of its second, or ``interleaved``, neighbours; empty for none.
        base: of the frequencies of rotary positions.
    """

    heads: int
    groups: int
    width: int
    causal: bool
    scale: float
    projected: bool
    rotary: str = ""
    base: float = 0.0


@dataclass(frozen=True)
class SinusoidsSpec(LayerSettings):
    """Positions that are sines and cosines, with the base of their frequencies."""

    base: float


def _attention(site: Site) -> Resolved:
    """Of one input with itself; of queries and what they read; of queries, keys and values."""
    written, name = site.item.written, site.item.name
    shapes = site.shapes[:-1] if written.mask is not None else site.shapes
    for position, shape in enumerate(shapes):
        if len(shape) != 2:
            raise site.positions.error(
                site.item.input_path(position),
                f"attention layer '{name}' takes places with features, and '{site.item.inputs[position]}' "
                f"has {size_text(shape)}",
                hint="an input of size: [places, features]",
            )
    query, key, value = _read(shapes)
    heads = written.heads
    if heads is None:
        raise site.error("heads", f"attention layer '{name}' has no heads", hint="e.g. heads: 4")
    groups = written.groups or heads
    if heads % groups:
        raise site.error(
            "groups", f"{groups} groups do not divide {heads} heads", hint="as many as heads, or fewer"
        )
    projected = written.projected is not False
    for option in ("bias", "init"):
        if not projected and getattr(written, option) not in (None, False):
            raise site.error(option, f"'{name}' has no weights of its own", hint="projected: true has them")
    features = query[1]
    if features % heads:
        raise site.error("heads", f"{heads} heads do not divide {features} features", hint="e.g. heads: 1")
    width = features // heads
    wanted = None if projected else groups * width
    if key[0] != value[0] or (wanted is not None and (key[1] != wanted or value[1] != wanted)):
        raise site.error(
            "inputs",
            f"queries {size_text(query)}, keys {size_text(key)} and values {size_text(value)} do not fit",
            hint="as many keys as values; without weights of the layer, features of all heads that are read",
        )
    if written.causal and query[0] != key[0]:
        raise site.error("causal", "causal attention reads as many places as it has", hint="leave causal out")
    if written.mask is not None:
        _check_mask(site, query[0], key[0])
    scale = width**-0.5 if written.value is None else float(written.value)
    rotary = "halves" if written.rotary is True else written.rotary or ""
    if rotary and width % 2:
        raise site.error(
            "rotary",
            f"rotary positions turn pairs, and a head of '{name}' has {width} entries",
            hint="an even number of features in a head",
        )
    base = _base(site, bool(rotary), "rotary: true has frequencies")
    own = AttentionSpec(heads, groups, width, bool(written.causal), scale, projected, rotary, base)
    return Resolved(query, own)


def _base(site: Site, there: bool, hint: str) -> float:
    """Of frequencies, if there are some; else 0."""
    written = site.item.written.base
    if not there:
        if written is not None:
            raise site.error("base", f"'{site.item.name}' has no frequencies", hint=hint)
        return 0.0
    base = _BASE if written is None else float(written)
    if not 1 < base <= _MOST_BASE:
        raise site.error(
            "base", f"the base of frequencies cannot be {base:g}", hint="more than 1, e.g. 10000"
        )
    return base


def _check_mask(site: Site, places: int, read: int) -> None:
    """It has an entry for each place that is read, or one for each place and each that it reads."""
    shape = site.shapes[-1]
    if shape not in ((read,), (places, read)):
        raise site.error(
            "mask",
            f"the mask '{site.item.inputs[-1]}' of '{site.item.name}' has {size_text(shape)}",
            hint=f"places that are read, {read}, or places and those, {places} x {read}",
        )


def _read(shapes: tuple[Sizes, ...]) -> tuple[Sizes, Sizes, Sizes]:
    """Shapes of queries, keys and values: of one input all three, of two the second for both."""
    return shapes[0], shapes[min(1, len(shapes) - 1)], shapes[-1]


def _settings(layer: LayerSpec) -> AttentionSpec:
    assert isinstance(layer.settings, AttentionSpec)
    return layer.settings


def _owners(layer: LayerSpec) -> tuple[Owner, ...]:
    settings = _settings(layer)
    if not settings.projected:
        return ()
    features, read = settings.heads * settings.width, settings.groups * settings.width

    def of(part: str, rows: int, number: int) -> Owner:
        return Owner(
            lambda inputs: (rows, _read(inputs[:-1] if layer.mask else inputs)[number][1]), layer.bias, part
        )

    return (
        of("query", features, 0),
        of("key", read, 1),
        of("value", read, 2),
        Owner(lambda inputs: (features, features), layer.bias, "output"),
    )


def _written(layer: LayerSpec) -> dict[str, Any]:
    settings = _settings(layer)
    return {
        "heads": settings.heads,
        "groups": settings.groups,
        "causal": settings.causal,
        "value": settings.scale,
        "projected": settings.projected,
        **({"rotary": settings.rotary, "base": settings.base} if settings.rotary else {}),
    }


def _positions(site: Site) -> Resolved:
    if len(site.shape) < 2:
        raise site.error(
            "", f"positions layer '{site.item.name}' takes places with features", hint="[places, 8]"
        )
    fixed = site.item.written.kind == "sinusoids"
    base = _base(site, fixed, "kind: sinusoids has such")
    if not fixed:
        return Resolved(site.shape)
    if len(site.shape) > 2:
        raise site.error(
            "kind",
            f"sinusoids are of places along one axis, '{site.item.inputs[0]}' has {size_text(site.shape)}",
            hint="an input of size: [places, features]",
        )
    if site.item.written.init is not None:
        raise site.error("init", f"'{site.item.name}' has no weight", hint="kind: learned has one")
    return Resolved(site.shape, SinusoidsSpec(base))


def _written_positions(layer: LayerSpec) -> dict[str, Any]:
    if isinstance(layer.settings, SinusoidsSpec):
        return {"kind": "sinusoids", "base": layer.settings.base}
    return {}


def _position_owners(layer: LayerSpec) -> tuple[Owner, ...]:
    if layer.settings is not None:
        return ()
    return (Owner(lambda inputs: inputs[0], False, start="normal"),)


def _embedding(site: Site) -> Resolved:
    written, name = site.item.written, site.item.name
    if site.item.inputs[0] not in site.classes:
        raise site.positions.error(
            site.item.input_path(0),
            f"embedding layer '{name}' takes classes, and '{site.item.inputs[0]}' has real numbers",
            hint="an input with classes: {name: tokens, size: 64, classes: 1000}",
        )
    if written.share is not None:
        read = site.known[written.share].inputs[0]
        counts = site.classes[site.item.inputs[0]], site.classes[read]
        if counts[0] != counts[1]:
            raise site.error(
                "share",
                f"'{name}' reads {counts[0]} classes, '{written.share}', whose weight it uses, {counts[1]}",
                hint="shared parameters need inputs of as many classes",
            )
    units = written.units if written.share is None else site.known[written.share].written.units
    if units is None:
        raise site.error("units", f"embedding layer '{name}' has no size", hint="add units: 32")
    return Resolved((*site.shape, units))


def _embedding_owners(layer: LayerSpec) -> tuple[Owner, ...]:
    # The states of classes are vectors with a one: their last axis counts the classes.
    return (Owner(lambda inputs: (inputs[0][-1], layer.shape[-1]), False, start="normal"),)


EMBEDDING = LayerType(
    "embedding",
    ("units", "share", "init"),
    _embedding,
    owners=_embedding_owners,
    written=lambda layer: {"units": layer.shape[-1]},
    drawn=False,
    of_classes=True,
    of_numbers=True,
)
ATTENTION = LayerType(
    "attention",
    ("heads", "groups", "causal", "mask", "value", "projected", "rotary", "base", "bias", "init"),
    _attention,
    inputs=(1, 3),
    several="queries, and perhaps what is read, or keys and values",
    owners=_owners,
    written=_written,
)
POSITIONS = LayerType(
    "positions",
    ("kind", "base", "init"),
    _positions,
    owners=_position_owners,
    written=_written_positions,
    drawn=False,
)
