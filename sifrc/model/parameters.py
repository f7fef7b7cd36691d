"""Parameters of layers, and tensors shaped like them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sifrc.ir import Expr, Input, Role
from sifrc.spec.types import InitializationSpec

__all__ = ["BUFFER", "PENALTY", "Buffer", "LayerParameters", "Parameter", "Shaped"]


@dataclass(frozen=True)
class Parameter:
    """One tensor that a layer owns.

    Args:
        layer: name of the layer.
        slot: what it is to the layer, as users see it: ``weight``, ``bias``.
        symbol: its symbol, numbered as the layers that own parameters.
    """

    layer: str
    slot: str
    symbol: Input

    @property
    def name(self) -> str:
        """As users see it, e.g. ``fc1.weight``."""
        return f"{self.layer}.{self.slot}"


@dataclass(frozen=True)
class LayerParameters:
    """The parameters that one layer owns.

    Args:
        layer: name of the layer.
        index: position among the layers that own parameters, from 1.
        members: in the order in which users see them.
        initialization: how they begin.
        frozen: tensors in the place of members that are not trained; a layer has either.
    """

    layer: str
    index: int
    members: tuple[Parameter, ...]
    initialization: InitializationSpec = field(default_factory=InitializationSpec)
    frozen: tuple[Parameter, ...] = ()

    @property
    def symbols(self) -> tuple[Input, ...]:
        """The symbols of the members."""
        return tuple(parameter.symbol for parameter in self.members)

    def get(self, slot: str) -> Input | None:
        """The symbol in a slot; None where the layer has none."""
        held = (*self.members, *self.frozen)
        return next((parameter.symbol for parameter in held if parameter.slot == slot), None)

    @property
    def weight(self) -> Input:
        """W[index] of a dense layer, over (outputs, inputs)."""
        found = self.get("weight")
        assert found is not None
        return found

    @property
    def bias(self) -> Input | None:
        """β[index] of a dense layer, over (outputs,), or None."""
        return self.get("bias")


BUFFER: Mapping[str, str] = MappingProxyType(
    {"running_mean": "μ̃", "running_var": "σ̃²", "num_batches_tracked": "ñ", "value": "K"}
    | {"weight": "Wᶠ", "bias": "βᶠ"}
)
"""Slot of a buffer -> family of its symbols."""


@dataclass(frozen=True)
class Buffer:
    """A tensor that a layer keeps besides its parameters; derivatives take it for a constant.

    Args:
        layer: name of the layer.
        slot: what it is to the layer, as users see it: ``running_mean``.
        symbol: its symbol.
        start: every entry at the start.
        update: what a step makes of it, where one brings it up to date.
    """

    layer: str
    slot: str
    symbol: Input
    start: float
    update: Expr | None = None

    @property
    def name(self) -> str:
        """As users see it, e.g. ``bn1.running_mean``."""
        return f"{self.layer}.{self.slot}"


@dataclass(frozen=True)
class Shaped:
    """A quantity with one tensor for each parameter, of its shape: the gradient, a direction, a product.

    Args:
        name: of the quantity.
        letters: slot -> family, where it has a letter of its own; otherwise it is ``name:slot``.

    Example:
        >>> gradient = Shaped("gradient", MappingProxyType({"weight": "G", "bias": "g"}))
        >>> gradient.family("bias"), gradient.family("scale"), gradient.families
        ('g', 'gradient:scale', ('G', 'g'))
    """

    name: str
    letters: Mapping[str, str]

    @property
    def families(self) -> tuple[str, ...]:
        """Families with a letter of their own."""
        return tuple(self.letters.values())

    def family(self, slot: str) -> str:
        """The family of the tensors for a slot."""
        return self.letters.get(slot, f"{self.name}:{slot}")

    def of(self, parameter: Parameter) -> Input:
        """The tensor for a parameter."""
        symbol = parameter.symbol
        return Input(self.family(parameter.slot), symbol.index, symbol.axes, Role.DIRECTION)

    def pairs(self, owned: LayerParameters) -> tuple[tuple[Input, Input], ...]:
        """Pairs (parameter, tensor shaped like it) of a layer, e.g. (W[2], G[2])."""
        return tuple((parameter.symbol, self.of(parameter)) for parameter in owned.members)

    def marked(self, mark: str) -> Shaped:
        """Another such quantity, with a mark behind every letter."""
        letters = {slot: letter + mark for slot, letter in self.letters.items()}
        return Shaped(self.name + mark, MappingProxyType(letters))


PENALTY = Shaped("penalty", MappingProxyType({"weight": "λW", "bias": "λβ"}))
"""λ of the regularisation of parameters."""
