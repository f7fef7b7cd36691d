"""Dense layers, functions of entries, sums, and all axes as one."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

from sifrc.spec.format import format_expression
from sifrc.spec.functionspec import entrywise_spec
from sifrc.spec.items import Item
from sifrc.spec.layers.record import LayerType, Owner, Resolved, Site
from sifrc.spec.types import FunctionSpec, LayerSettings, LayerSpec
from sifrc.spec.words import size_text

__all__ = ["ACTIVATION", "ADD", "DENSE", "ENTRYWISE", "FLATTEN", "EntrywiseSpec", "common_shape"]


@dataclass(frozen=True)
class EntrywiseSpec(LayerSettings):
    """A function of the entries of several states: over ``x1``, ``x2``, … in the order of inputs."""

    function: FunctionSpec


def _dense(site: Site) -> Resolved:
    return Resolved((*site.shape[:-1], _units(site.item, site)))


def _units(item: Item, site: Site) -> int:
    """Units of a dense layer, its own or those of the layer whose parameters it shares."""
    units, share = item.written.units, item.written.share
    if share is None:
        if units is None:
            raise site.positions.error(
                item.path,
                f"dense layer '{item.name}' has no size",
                hint="add units: 32, or share: and the name of another dense layer",
            )
        return units
    owner = site.known[share].written
    if owner.type == "embedding":
        return site.classes[site.known[share].inputs[0]]
    if owner.units is None:
        return _units(site.known[share], site)
    if units is not None and units != owner.units:
        raise site.error(
            "units",
            f"sizes differ: '{item.name}' has {units} units, '{share}' whose parameters it shares has "
            f"{owner.units}",
            hint="leave units out in a layer that shares",
        )
    return owner.units


_RULES = MappingProxyType(
    {
        "add": "an add layer sums",
        "multiply": "a multiply layer multiplies",
        "entrywise": "an entrywise layer takes",
    }
)


def common_shape(site: Site) -> Resolved:
    """The shape of all inputs together: along each axis equal sizes, or one entry for all of another's."""
    item, shape = site.item, list(site.shape)
    for position, other in enumerate(site.shapes[1:], start=1):
        fits = len(other) == len(shape) and all(
            n == m or 1 in (n, m) for n, m in zip(other, shape, strict=True)
        )
        if not fits:
            raise site.positions.error(
                item.input_path(position),
                f"sizes differ in {item.written.type} layer '{item.name}': '{item.inputs[0]}' has "
                f"{size_text(site.shape)}, '{item.inputs[position]}' has {size_text(other)}",
                hint=f"{_RULES.get(item.written.type, item.written.type)} inputs of equal size",
            )
        shape = [max(n, m) for n, m in zip(other, shape, strict=True)]
    return Resolved(tuple(shape))


def _entrywise(site: Site) -> Resolved:
    written, item = site.item.written, site.item
    if written.expression is None:
        raise site.error(
            "", f"entrywise layer '{item.name}' has no expression", hint='e.g. expression: "x1*sigmoid(x2)"'
        )
    function = entrywise_spec(
        site.positions, item.path, written.expression, written.parameters, len(item.inputs)
    )
    return Resolved(common_shape(site).shape, EntrywiseSpec(function))


def _written_entrywise(layer: LayerSpec) -> dict[str, Any]:
    assert isinstance(layer.settings, EntrywiseSpec)
    function = layer.settings.function
    parameters = {"parameters": dict(function.parameters)} if function.parameters else {}
    return {"expression": format_expression(function.expression)} | parameters


DENSE = LayerType(
    "dense",
    ("units", "bias", "share", "init", "activation", "parameters"),
    _dense,
    owners=lambda layer: (Owner(lambda inputs: (layer.shape[-1], inputs[0][-1]), layer.bias),),
    written=lambda layer: {"units": layer.shape[-1]},
)
ACTIVATION = LayerType(
    "activation", ("function", "expression", "parameters"), lambda site: Resolved(site.shape)
)
ENTRYWISE = LayerType(
    "entrywise",
    ("expression", "parameters"),
    _entrywise,
    inputs=(2, None),
    written=_written_entrywise,
)
ADD = LayerType("add", ("activation", "parameters"), common_shape, inputs=(2, None))
FLATTEN = LayerType("flatten", (), lambda site: Resolved((prod(site.shape),)))
