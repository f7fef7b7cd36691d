"""Layers that give entries a mean of zero and a mean square of one, over some of the axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sifrc.spec.layers.record import LayerType, Owner, Resolved, Site, axis_number
from sifrc.spec.types import LayerKind, LayerSettings, LayerSpec, Sizes

__all__ = ["GROUP_NORM", "INSTANCE_NORM", "LAYER_NORM", "RMS_NORM", "NormSpec", "common_settings"]


@dataclass(frozen=True)
class NormSpec(LayerSettings):
    """What is normalised together.

    Args:
        axes: from 0, that means are over; with groups, all of them, channels group by group.
        groups: of channels, the first axis; 0 for none.
        epsilon: added to mean squares.
        affine: whether there is a weight.
    """

    axes: tuple[int, ...]
    groups: int
    epsilon: float
    affine: bool


def _over_axes(site: Site) -> Resolved:
    """Over the last axis, or others that are named."""
    written, rank = site.item.written, len(site.shape)
    given = [-1] if written.axes is None else written.axes
    axes = sorted(axis_number(site, "axes", axis, rank) for axis in given)
    if len(set(axes)) < len(axes) or not axes:
        raise site.error("axes", "axes are named once each", hint="e.g. axes: [2, 3]")
    return Resolved(site.shape, NormSpec(tuple(axes), 0, *common_settings(site, True)))


def _by_groups(site: Site) -> Resolved:
    """Channels group by group, at all places; each channel by itself for instances."""
    kind, channels = site.item.written.type, site.shape[0]
    instances = kind == "instance_norm"
    groups = channels if instances else site.item.written.groups
    if groups is None:
        raise site.error(
            "groups", f"group_norm layer '{site.item.name}' has no groups", hint="e.g. groups: 4"
        )
    if channels % groups:
        raise site.error(
            "groups", f"{groups} groups do not divide {channels} channels", hint="channels are the first axis"
        )
    if len(site.shape) == 1 and channels == groups:
        raise site.error(
            "groups",
            f"'{site.item.name}' would normalise single numbers: its input has no places",
            hint="fewer groups, or an input of channels at places",
        )
    settings = NormSpec(tuple(range(len(site.shape))), groups, *common_settings(site, not instances))
    return Resolved(site.shape, settings)


def common_settings(site: Site, affine: bool) -> tuple[float, bool]:
    """Epsilon, and whether there is a weight.

    Args:
        site: of the layer.
        affine: whether there is one where nothing is written.
    """
    written = site.item.written
    default = 1e-6 if written.type == "rms_norm" else 1e-5
    epsilon = default if written.epsilon is None else float(written.epsilon)
    if epsilon < 0.0:
        raise site.error("epsilon", "epsilon is zero or more", hint="e.g. 1.0e-5")
    affine = affine if written.affine is None else written.affine
    if not affine and written.bias:
        raise site.error(
            "bias", f"'{site.item.name}' has a bias, but no weight", hint="affine: true has both"
        )
    return epsilon, affine


def _settings(layer: LayerSpec) -> NormSpec:
    assert isinstance(layer.settings, NormSpec)
    return layer.settings


def _owners(layer: LayerSpec) -> tuple[Owner, ...]:
    settings = _settings(layer)
    if not settings.affine:
        return ()

    def weight(inputs: tuple[Sizes, ...]) -> Sizes:
        axes = settings.axes[:1] if settings.groups else settings.axes
        return tuple(inputs[0][axis] for axis in axes)

    return (Owner(weight, layer.bias, start="ones", biased=lambda weight: weight),)


def _written(layer: LayerSpec) -> dict[str, Any]:
    settings = _settings(layer)
    found: dict[str, Any] = {"epsilon": settings.epsilon, "affine": settings.affine}
    if layer.kind == "group_norm":
        found["groups"] = settings.groups
    if not settings.groups:
        found["axes"] = [axis + 1 for axis in settings.axes]
    return found


def _norm(kind: LayerKind, keys: tuple[str, ...], grouped: bool) -> LayerType:
    return LayerType(
        kind,
        (*keys, "epsilon", "affine", *(() if kind == "rms_norm" else ("bias",)), "activation", "parameters"),
        _by_groups if grouped else _over_axes,
        owners=_owners,
        written=_written,
        drawn=False,
    )


LAYER_NORM = _norm("layer_norm", ("axes",), False)
RMS_NORM = _norm("rms_norm", ("axes",), False)
GROUP_NORM = _norm("group_norm", ("groups",), True)
INSTANCE_NORM = _norm("instance_norm", (), True)
