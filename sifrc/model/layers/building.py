"""What the expression of a layer is written with: its sources, its parameters, and states inside of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from sifrc.ir import Axis, Expr, Input, Operand, Role
from sifrc.ir.axes import AxisKind
from sifrc.ir.build import rename
from sifrc.ir.traverse import inputs_of
from sifrc.model.draws import Draws
from sifrc.model.parameters import Buffer, LayerParameters
from sifrc.model.tables import Tables
from sifrc.scalar.function import ScalarFunction
from sifrc.spec.types import LayerSpec, Sizes

__all__ = ["Building", "Part", "axes_of"]


@dataclass(frozen=True)
class Part:
    """One state of a layer: what a constraint is made of.

    Args:
        state: its symbol.
        value: before the activation.
        activation: of each entry, or None.
        parameters: that the value reads, or None.
        name: of the state; that of the layer, or what comes inside of it.
        evaluated: the value before the activation where the network is evaluated, if that is another than in
            training.
    """

    state: Input
    value: Expr
    activation: ScalarFunction | None
    parameters: LayerParameters | None
    name: str
    evaluated: Expr | None = None


@dataclass
class Building:
    """A layer while its states are made.

    Args:
        layer: as in the spec.
        sources: what it reads.
        axes: of its output.
        first: number of the constraint that comes next.
        owned: the parameters of the layer, by what comes after its name; '' for its own.
        training: whether it is for training, or for what comes after it.
        buffers: what the layer keeps besides parameters, by slot.
        alone: whether no activation comes after the layer within its state.
        function: of each entry of the layer's own state, if its rule says so.
        evaluated: the value of that state where the network is evaluated, if its rule says so.
        tables: fixed tables of the whole network.
        draws: what layers of the whole network draw.
        parts: states inside of the layer, in order.
    """

    layer: LayerSpec
    sources: tuple[Expr, ...]
    axes: tuple[Axis, ...]
    first: int
    owned: Callable[[str, int], LayerParameters | None]
    training: bool = True
    buffers: dict[str, Buffer] = field(default_factory=dict)
    alone: bool = True
    function: ScalarFunction | None = None
    evaluated: Expr | None = None
    tables: Tables = field(default_factory=Tables)
    draws: Draws = field(default_factory=Draws)
    parts: list[Part] = field(default_factory=list)
    _used: dict[str, LayerParameters] = field(default_factory=dict)

    def spread(self, source: Expr) -> Operand:
        """A source as a factor over the axes of the layer; one entry stands for all along an axis."""
        labels = tuple(
            axis if own.size == axis.size else Axis(f"{axis.name}.one", 1)
            for own, axis in zip(source.axes, self.axes, strict=True)
        )
        return source, labels

    @property
    def source(self) -> Expr:
        """What a layer with one input reads."""
        (source,) = self.sources
        return source

    def parameters(self, part: str = "") -> LayerParameters:
        """The parameters under a name, which the state that comes next uses.

        Raises:
            KeyError: the record of the type has none of this name.
        """
        if part not in self._used:
            found = self.owned(part, self.first + len(self.parts))
            if found is None:
                raise KeyError(part)
            self._used[part] = found
        return self._used[part]

    def state(
        self,
        name: str,
        value: Expr,
        function: ScalarFunction | None = None,
        parameters: LayerParameters | None = None,
    ) -> Input:
        """Give an expression a state inside of the layer.

        Args:
            name: after that of the layer.
            value: over the axes that :meth:`inner` gives for the name.
            function: of each entry, or None.
            parameters: that the value reads.
        """
        symbol = Input("x", self.first + len(self.parts), value.axes, Role.STATE)
        self.parts.append(Part(symbol, value, function, parameters, f"{self.layer.name}.{name}"))
        return symbol

    def statistic(
        self, name: str, value: Expr, function: ScalarFunction | None = None, running: str | None = None
    ) -> Input:
        """Give an expression a state of the whole batch inside of the layer: its mean over the samples.

        Args:
            name: after that of the layer.
            value: over the axes that :meth:`inner` gives for the name.
            function: of each entry of what is the same for all samples, or None.
            running: slot of the buffer that stands for it where the network is evaluated.

        Raises:
            ValueError: a function of what samples have: it would be a mean of functions, or one of a mean.
        """
        if function is not None and any(symbol.role.per_sample for symbol in inputs_of(value)):
            raise ValueError(f"{name}: a statistic is a mean; give functions of it states of their own")
        symbol = Input("x", self.first + len(self.parts), value.axes, Role.STATISTIC)
        kept = None if running is None else rename(self.buffers[running].symbol, value.axes)
        self.parts.append(Part(symbol, value, function, None, f"{self.layer.name}.{name}", kept))
        return symbol

    def draw(self) -> Input:
        """A uniform number for each entry of the source, for every sample anew."""
        return self.draws.symbol(self.layer.name, self.inner("drawn", self.source.axes))

    def keep(self, slot: str, update: Expr) -> None:
        """Say what a step makes of a buffer."""
        self.buffers[slot] = replace(self.buffers[slot], update=update)

    def ahead(self, count: int, axes: tuple[Axis, ...]) -> Input:
        """The state that comes after so many others, for what reads it before it is made."""
        return Input("x", self.first + len(self.parts) + count, axes, Role.STATE)

    def inner(self, name: str, axes: Iterable[Axis]) -> tuple[Axis, ...]:
        """Axes of a state inside of the layer, as long as some others."""
        return axes_of(f"{self.layer.name}.{name}", tuple(axis.entries for axis in axes))

    @property
    def last(self) -> LayerParameters | None:
        """The parameters that the state of the layer itself reads."""
        held = {part.parameters.layer for part in self.parts if part.parameters is not None}
        own = [found for found in self._used.values() if found.layer not in held]
        return own[-1] if own else None


def axes_of(name: str, shape: Sizes) -> tuple[Axis, ...]:
    """The axes of a state: the last one counts features, the others the places that have them."""
    if len(shape) == 1:
        return (Axis(name, shape[0]),)
    places = (Axis(f"{name}.{n}", size, kind=AxisKind.PLACE) for n, size in enumerate(shape[:-1]))
    return (*places, Axis(name, shape[-1])) if shape else ()
