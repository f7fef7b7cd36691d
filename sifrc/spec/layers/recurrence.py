"""Recurrent layers: states at places that are steps in time, each made of the input and the step before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sifrc.spec.functionspec import activation_spec
from sifrc.spec.layers.record import LayerType, Owner, Resolved, Site
from sifrc.spec.types import FunctionSpec, LayerSettings, LayerSpec, Sizes
from sifrc.spec.words import size_text

__all__ = ["GRU", "LSTM", "RNN", "Pass", "RecurrentSpec"]

_GATES: Mapping[str, int] = MappingProxyType({"rnn": 1, "lstm": 4, "gru": 3})
"""Vectors of units that the weights of one step make, in PyTorch's order."""


@dataclass(frozen=True)
class RecurrentSpec(LayerSettings):
    """What goes on from step to step.

    Args:
        units: of the state at one step, in one direction.
        layers: one after the other.
        bidirectional: whether each layer also reads from the last step to the first.
        function: of a plain recurrent layer; None for gated ones.
        masked: what the output is at steps that a mask leaves out: ``zero``, or the state that is ``carried``
            on; empty without a mask.
        cells: whether the output of an LSTM has the cells besides the states, after them.
    """

    units: int
    layers: int
    bidirectional: bool
    function: FunctionSpec | None = None
    masked: str = ""
    cells: bool = False

    @property
    def passes(self) -> Iterator[Pass]:
        """Each layer in each direction, in the order in which they are computed."""
        for layer in range(self.layers):
            yield Pass(layer, backwards=False)
            if self.bidirectional:
                yield Pass(layer, backwards=True)

    @property
    def width(self) -> int:
        """States of a step: of both directions."""
        return self.units * (1 + self.bidirectional)

    @property
    def given(self) -> int:
        """Features of a step of the output: states, and cells perhaps."""
        return self.width * (1 + self.cells)


@dataclass(frozen=True)
class Pass:
    """One layer in one direction.

    Args:
        layer: from 0.
        backwards: whether it goes from the last step to the first.

    Example:
        >>> Pass(1, backwards=True).part("ih")
        'ih_l1_reverse'
    """

    layer: int
    backwards: bool

    @property
    def mark(self) -> str:
        """What PyTorch puts after the names of its tensors."""
        return f"l{self.layer}" + ("_reverse" if self.backwards else "")

    def part(self, name: str) -> str:
        """A name within the layer: of parameters, or of a state."""
        return f"{name}_{self.mark}"


def _recurrent(site: Site) -> Resolved:
    written, name = site.item.written, site.item.name
    if len(site.shape) != 2:
        raise site.positions.error(
            site.item.input_path(0),
            f"{written.type} layer '{name}' takes steps with features, and '{site.item.inputs[0]}' has "
            f"{size_text(site.shape)}",
            hint="an input of size: [steps, features], or a layer of type reshape",
        )
    units, layers, bidirectional = _built(site)
    function = None
    if written.type == "rnn":
        path = site.item.path
        function = activation_spec(site.positions, path, written.function or "tanh", None, None, path)
    if written.masked is not None and written.mask is None:
        raise site.error("masked", f"'{name}' has no mask", hint="mask: and the name of an input")
    settings = RecurrentSpec(
        units,
        layers,
        bidirectional,
        function,
        "" if written.mask is None else written.masked or "zero",
        bool(written.cells),
    )
    _check_states(site, settings)
    if written.mask is not None and site.shapes[-1] != site.shape[:1]:
        raise site.error(
            "mask",
            f"the mask '{site.item.inputs[-1]}' of '{name}' has {size_text(site.shapes[-1])}",
            hint=f"a number for each step, {site.shape[0]}",
        )
    return Resolved((site.shape[0], settings.given), settings)


def _built(site: Site) -> tuple[int, int, bool]:
    """Units, layers and whether there are two directions: as written, or of the layer that it shares with."""
    written, share = site.item.written, site.item.written.share
    owner = written if share is None else site.known[share].written
    if owner.units is None:
        # An owner comes before what shares with it: this layer has none.
        raise site.error(
            "units",
            f"{written.type} layer '{site.item.name}' has no size",
            hint="add units: 32, or share: and the name of another layer of its type",
        )
    built = {"units": owner.units, "layers": owner.layers or 1, "bidirectional": bool(owner.bidirectional)}
    for key, theirs in built.items():
        mine = getattr(written, key)
        if mine is not None and mine != theirs:
            raise site.error(
                key,
                f"'{site.item.name}' has {key}: {_word(mine)}, '{share}' whose parameters it shares has "
                f"{_word(theirs)}",
                hint=f"leave {key} out in a layer that shares",
            )
    return owner.units, owner.layers or 1, bool(owner.bidirectional)


def _word(value: int | bool) -> str:
    """A value as a spec has it."""
    return str(value).lower()


def _check_states(site: Site, settings: RecurrentSpec) -> None:
    """States to begin with: as many as a step leaves, a row for each layer and direction."""
    given, kind = site.item.written.state or [], site.item.written.type
    if not given:
        return
    count, passes = 2 if kind == "lstm" else 1, len(list(settings.passes))
    if len(given) != count:
        raise site.error(
            "state",
            f"{kind} layer '{site.item.name}' begins with {count} state{'s' * (count > 1)}, not {len(given)}",
            hint="state: [h, c], the output and the cell" if count > 1 else "state: h",
        )
    wanted = [(passes, settings.units)] + ([(settings.units,)] if passes == 1 else [])
    for number, shape in enumerate(site.shapes[1 : 1 + count], start=1):
        if shape not in wanted:
            name = site.item.inputs[number]
            raise site.positions.error(
                site.item.input_path(number),
                f"'{name}' of {size_text(shape)} cannot be what '{site.item.name}' begins with",
                hint=f"{size_text(wanted[-1])}: "
                + ("units" if passes == 1 else "a row of units for each layer and direction"),
            )


def _settings(layer: LayerSpec) -> RecurrentSpec:
    assert isinstance(layer.settings, RecurrentSpec)
    return layer.settings


def _owners(layer: LayerSpec) -> tuple[Owner, ...]:
    """For each layer and direction the weights of the input and of the step before, with a bias each."""
    settings, found = _settings(layer), []
    rows = _GATES[layer.kind] * settings.units

    def of_input(inputs: tuple[Sizes, ...]) -> Sizes:
        return rows, inputs[0][-1]

    for each in settings.passes:
        read = of_input if each.layer == 0 else lambda inputs: (rows, settings.width)
        shapes = {"ih": read, "hh": lambda inputs: (rows, settings.units)}
        for name, weight in shapes.items():
            # PyTorch's start reaches as far for what is read as for the step before.
            fan = lambda weight: settings.units  # noqa: E731
            found.append(Owner(weight, layer.bias, each.part(name), "glorot", fan=fan))
    return tuple(found)


def _written(layer: LayerSpec) -> dict[str, Any]:
    settings = _settings(layer)
    found: dict[str, Any] = {
        "units": settings.units,
        "layers": settings.layers,
        "bidirectional": settings.bidirectional,
    }
    found |= {} if settings.function is None else {"function": settings.function.name}
    found |= {"cells": True} if settings.cells else {}
    return found | ({"masked": settings.masked} if settings.masked else {})


_KEYS = ("units", "layers", "bidirectional", "state", "mask", "masked", "bias", "share", "init")
RNN = LayerType("rnn", (*_KEYS, "function"), _recurrent, owners=_owners, written=_written, drawn=False)
LSTM = LayerType("lstm", (*_KEYS, "cells"), _recurrent, owners=_owners, written=_written, drawn=False)
GRU = LayerType("gru", _KEYS, _recurrent, owners=_owners, written=_written, drawn=False)
