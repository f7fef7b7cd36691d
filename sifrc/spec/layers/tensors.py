"""A tensor by itself: a parameter, one that is given and not trained, or a fixed table of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from sifrc.spec.format import format_expression
from sifrc.spec.functionspec import entrywise_spec
from sifrc.spec.layers.record import Buffer, LayerType, Owner, Resolved, Site
from sifrc.spec.types import FunctionSpec, LayerSettings, LayerSpec, Sizes
from sifrc.spec.words import size_text

__all__ = ["PARAMETER", "TABLE", "TableSpec", "TensorSpec"]


@dataclass(frozen=True)
class TensorSpec(LayerSettings):
    """Whether the tensor is trained; if not, it is a buffer."""

    trained: bool


@dataclass(frozen=True)
class TableSpec(LayerSettings):
    """Numbers of a table: a function of the index along each axis, from 0, or given one by one.

    Args:
        entries: over ``x1``, ``x2``, … in the order of the axes; or all, the last axis running fastest.
    """

    entries: FunctionSpec | tuple[float, ...]


def _sizes(site: Site) -> Sizes:
    written, name = site.item.written, site.item.name
    if written.sizes is None:
        raise site.error("", f"{written.type} layer '{name}' has no sizes", hint="e.g. sizes: [1, 64]")
    for size in written.sizes:
        if size < 1:
            raise site.error("sizes", f"'{name}' cannot have {size} entries along an axis", hint="1 or more")
    return tuple(written.sizes)


def _table(site: Site) -> Resolved:
    written, name, sizes = site.item.written, site.item.name, _sizes(site)
    values = written.values
    if (values is None) == (written.expression is None):
        raise site.error(
            "values",
            f"table layer '{name}' needs either values or an expression",
            hint='e.g. expression: "where(x2 <= x1, 0, -1e30)", over the index along each axis, from 0',
        )
    if values is None:
        assert written.expression is not None
        function = entrywise_spec(
            site.positions, site.item.path, written.expression, written.parameters, len(sizes), fixed=True
        )
        return Resolved(sizes, TableSpec(function))
    if len(values) != prod(sizes):
        raise site.error(
            "values", f"'{name}' has {len(values)} values for {size_text(sizes)}", hint="one an entry"
        )
    return Resolved(sizes, TableSpec(tuple(values)))


def _written_table(layer: LayerSpec) -> dict[str, Any]:
    assert isinstance(layer.settings, TableSpec)
    entries = layer.settings.entries
    if isinstance(entries, tuple):
        return {"sizes": list(layer.shape), "values": list(entries)}
    parameters = {"parameters": dict(entries.parameters)} if entries.parameters else {}
    return {"sizes": list(layer.shape), "expression": format_expression(entries.expression)} | parameters


def _resolve(site: Site) -> Resolved:
    written, name, sizes = site.item.written, site.item.name, _sizes(site)
    trained = written.trained is not False
    if not trained and written.init is not None:
        raise site.error("init", f"'{name}' is not trained, its entries are given", hint="leave init out")
    return Resolved(sizes, TensorSpec(trained))


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
TABLE = LayerType(
    "table",
    ("sizes", "expression", "parameters", "values"),
    _table,
    inputs=(0, 0),
    several="a table reads nothing",
    written=_written_table,
    drawn=False,
)
