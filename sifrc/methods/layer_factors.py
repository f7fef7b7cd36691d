"""What the solvers of curvature blocks have of a layer: its factors, and its weight as a matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sifrc.derive.curvature.sharing import Reading
from sifrc.derive.shaped import shaped
from sifrc.derive.system import Equation
from sifrc.ir import Axis, Expr, Input, Role
from sifrc.model import LayerParameters, Parameter

__all__ = ["MOVE", "LayerFactors"]

MOVE = shaped("move", "D", "Dβ")
"""The directions; that of a weight as a matrix."""


@dataclass(frozen=True)
class LayerFactors:
    """One layer with parameters: its factors as the solvers use them.

    Args:
        parameters: of the layer.
        block: H̄ or B̄, or its moving average.
        moment: A or m̄, or its moving average.
        reading: what its weight reads at several places; None where it acts at one.
    """

    parameters: LayerParameters
    block: Input
    moment: Input
    reading: Reading | None

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Of the weight as a matrix."""
        return self.parameters.weight.axes if self.reading is None else self.reading.axes

    @property
    def gradient(self) -> Input:
        """G as a matrix: a symbol of its own where the weight has more axes."""
        weight = self.parameters.weight
        if weight.axes == self.axes:
            return Input("G", weight.index, weight.axes, Role.DIRECTION)
        return Input("Gᵐ", weight.index, self.axes, Role.DIRECTION)

    def folded(self) -> Iterator[Equation]:
        """Its equation, where it has one."""
        weight, reading = self.parameters.weight, self.reading
        if reading is not None and weight.axes != self.axes:
            value = reading.matrix(Input("G", weight.index, weight.axes, Role.DIRECTION))
            yield Equation(self.gradient, value, weight.index, "definition")

    def move(self, parameter: Parameter) -> Input:
        """What is solved for: over the axes of a bias, or those of the weight as a matrix."""
        plain = MOVE.of(parameter)
        return plain if parameter.slot != "weight" else replace(plain, slots=self.axes)

    def tensor(self, parameter: Parameter) -> Expr:
        """The same, shaped like the parameter."""
        move = self.move(parameter)
        return move if self.reading is None or parameter.slot != "weight" else self.reading.tensor(move)
