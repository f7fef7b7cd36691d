"""What a type of layer declares: which keys it has, what shape it gives, which tensors it owns.

The graph, the canonical form, sharing, partitions and the oracles read a type through this record; its
expression is in :mod:`sifrc.model.layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from types import MappingProxyType
from typing import Any, TypeAlias

from sifrc.errors import SpecError
from sifrc.spec.items import Item
from sifrc.spec.positions import Path, Positions
from sifrc.spec.types import (
    STANDARD,
    InitializationKind,
    InitializationSpec,
    LayerKind,
    LayerSettings,
    LayerSpec,
    Sizes,
)

__all__ = ["Buffer", "LayerType", "Owner", "Resolved", "Site", "axis_number", "no_owners"]


@dataclass(frozen=True)
class Site:
    """A layer while its shape is resolved.

    Args:
        item: the layer, as written.
        shapes: sizes of the axes of its inputs.
        known: all layers by name.
        positions: places, for errors.
        classes: inputs whose entries are classes -> of how many.
    """

    item: Item
    shapes: tuple[Sizes, ...]
    known: Mapping[str, Item]
    positions: Positions
    classes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def shape(self) -> Sizes:
        """Of the first input."""
        return self.shapes[0]

    def error(self, key: str, message: str, hint: str, *, label: str | None = None) -> SpecError:
        """An error at a key; at the layer, where the key is empty or was not written."""
        written = key in self.item.written.model_fields_set
        path: Path = (*self.item.path, key) if written else self.item.path
        return self.positions.error(path, message, hint=hint, label=label)


@dataclass(frozen=True)
class Resolved:
    """What a layer turned out to be.

    Args:
        shape: sizes of the axes of its output.
        settings: of its type, with every default filled in.
    """

    shape: Sizes
    settings: LayerSettings | None = None


@dataclass(frozen=True)
class Owner:
    """Tensors that a layer owns under one name: a weight, and a bias perhaps.

    Args:
        weight: its shape, from the shapes of the layer's inputs.
        bias: whether there is one.
        part: what is after the name of the layer, e.g. ``query``; empty for the layer itself.
        start: how the weight starts where the spec does not say; None for the spec's default.
        biased: shape of the bias, from that of the weight; by default its rows.
        fan: entries that say how far a uniform start reaches, from the shape of the weight; by default those
            that an output is made of.
    """

    weight: Callable[[tuple[Sizes, ...]], Sizes]
    bias: bool
    part: str = ""
    start: InitializationKind | None = None
    biased: Callable[[Sizes], Sizes] = lambda weight: weight[:1]
    fan: Callable[[Sizes], int] = lambda weight: prod(weight[1:])

    def initial(self, given: InitializationSpec | None, inputs: tuple[Sizes, ...]) -> InitializationSpec:
        """How the weight starts, where the layer says so or not; with the limit of a uniform start."""
        kind = self.start or "he"
        found = given or InitializationSpec(kind, STANDARD.get(kind, 0.0))
        if found.kind == "uniform" and not found.value:
            return replace(found, value=self.fan(self.weight(inputs)) ** -0.5)
        return found

    def name(self, layer: str) -> str:
        """Of the owner in a layer."""
        return f"{layer}.{self.part}" if self.part else layer

    def names(self, layer: str) -> tuple[str, ...]:
        """Of its tensors."""
        name = self.name(layer)
        return (f"{name}.weight", f"{name}.bias") if self.bias else (f"{name}.weight",)

    def shapes(self, inputs: tuple[Sizes, ...]) -> tuple[Sizes, ...]:
        """Of its tensors."""
        weight = self.weight(inputs)
        return (weight, self.biased(weight)) if self.bias else (weight,)


@dataclass(frozen=True)
class Buffer:
    """A tensor that a layer keeps besides its parameters: no derivative is taken by it.

    Args:
        slot: what it is to the layer, as users see it, e.g. ``running_mean``.
        shape: of the tensor, from the shapes of the layer's inputs.
        start: every entry at the start.
        counts: whether it is a whole number, which grows by one at a time.
    """

    slot: str
    shape: Callable[[tuple[Sizes, ...]], Sizes]
    start: float
    counts: bool = False


def no_buffers(layer: LayerSpec) -> tuple[Buffer, ...]:
    """Of a type without buffers."""
    return ()


def no_owners(layer: LayerSpec) -> tuple[Owner, ...]:
    """Of a type without parameters."""
    return ()


Resolve: TypeAlias = Callable[[Site], Resolved]


@dataclass(frozen=True)
class LayerType:
    """A type of layer.

    Args:
        kind: its word.
        keys: that mean something for it, besides name, type and inputs.
        resolve: shape and settings of a layer, or a ``SpecError``.
        inputs: how many it takes: least and most, None for any number.
        several: what a layer with one input too few or too many should have been, for the error.
        owners: the tensors that a layer has, its own or shared ones.
        buffers: the tensors that it keeps besides.
        written: the keys of its settings in the canonical form.
        drawn: whether its weights start as the spec says for all layers.
        of_classes: whether it takes an input of classes, and nothing else.
        of_numbers: whether it takes an input without axes, one number a sample.
        apart: whether it does something else in training than after it.
        draws: whether it then draws a uniform number for each entry of what it reads, for every sample anew.
    """

    kind: LayerKind
    keys: tuple[str, ...]
    resolve: Resolve
    inputs: tuple[int, int | None] = (1, 1)
    several: str = "a layer of type add sums several inputs"
    owners: Callable[[LayerSpec], tuple[Owner, ...]] = no_owners
    buffers: Callable[[LayerSpec], tuple[Buffer, ...]] = no_buffers
    written: Callable[[LayerSpec], Mapping[str, Any]] = lambda layer: {}
    drawn: bool = True
    of_classes: bool = False
    of_numbers: bool = False
    apart: bool = False
    draws: bool = False

    @property
    def shares(self) -> bool:
        """Whether its layers can use each other's parameters."""
        return "share" in self.keys

    @property
    def freezes(self) -> bool:
        """Whether its layers may have parameters that are not trained."""
        return self.owning and "trained" not in self.keys

    @property
    def owning(self) -> bool:
        """Whether its layers have parameters."""
        return self.owners is not no_owners

    def count_problem(self, name: str, count: int) -> tuple[str, str] | None:
        """What is wrong with a number of inputs, and a hint; None where nothing is."""
        least, most = self.inputs
        if count < least:
            number = {2: "two", 3: "three"}.get(least, str(least))
            more = " or more" if most is None else ""
            message = (
                f"{self.kind} layer '{name}' has {count} input{'s' * (count != 1)}, it needs {number}{more}"
            )
            return message, "e.g. inputs: [act1, fc1]"
        if most is not None and count > most:
            number = {0: "none", 1: "one", 2: "two", 3: "three"}.get(most, str(most))
            message = f"{self.kind} layer '{name}' has {count} input{'s' * (count != 1)}, it takes {number}"
            return message, self.several
        return None


def axis_number(site: Site, key: str, value: int, rank: int) -> int:
    """Position, from 0, of an axis that is written from 1, or from −1 backwards.

    Raises:
        SpecError: there is none.
    """
    position = value - 1 if value > 0 else value + rank
    if value == 0 or not 0 <= position < rank:
        raise site.error(
            key,
            f"'{site.item.name}' has no axis {value}: its input has {rank}",
            hint=f"1 to {rank}, or -1 for the last one; samples do not count",
        )
    return position
