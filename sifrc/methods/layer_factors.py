"""What the solvers of curvature blocks have of a layer: its factors, and its weight as a matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from sifrc.derive.curvature.sharing import Moment, Reading
from sifrc.derive.shaped import shaped
from sifrc.derive.system import Equation
from sifrc.ir import Axis, Delta, Expr, Input, Role, primed
from sifrc.ir.build import einsum, scale, total
from sifrc.model import LayerParameters, Parameter

__all__ = ["MOVE", "LayerFactors", "mean_eigenvalue", "shifted"]

MOVE = shaped("move", "D", "Dβ")
"""The directions; that of a weight as a matrix."""


@dataclass(frozen=True)
class LayerFactors:
    """One layer with parameters: its factors as the solvers use them.

    Args:
        parameters: of the layer.
        block: H̄ or B̄, or its moving average.
        moment: A or m̄, or its moving average.
        of: which moment it is.
        reading: what its weight reads at several places; None where it acts at one.
    """

    parameters: LayerParameters
    block: Input
    moment: Input
    of: Moment
    reading: Reading | None

    @property
    def diagonal(self) -> bool:
        """Whether A is diagonal, and a vector."""
        return self.of == "second" and self.reading is not None and self.reading.of_classes

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Of the weight as a matrix, or as one for each group."""
        return self.parameters.weight.axes if self.reading is None else self.reading.axes

    @property
    def gradient(self) -> Input:
        """G as a matrix: a symbol of its own where the weight has more axes, or others first."""
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

    def of_bias(self, bias: Input) -> Expr:
        """The block of the bias at several places: B̄, that of each group."""
        assert self.reading is not None
        return einsum(self.reading.of_bias(self.block, bias.axes[0]), (*bias.axes, *primed(bias.axes)))

    def move(self, parameter: Parameter) -> Input:
        """What is solved for: over the axes of a bias, or those of the weight as a matrix."""
        plain = MOVE.of(parameter)
        return plain if parameter.slot != "weight" else replace(plain, slots=self.axes)

    def tensor(self, parameter: Parameter) -> Expr:
        """The same, shaped like the parameter."""
        move = self.move(parameter)
        return move if self.reading is None or parameter.slot != "weight" else self.reading.tensor(move)


def mean_eigenvalue(factor: Input, diagonal: bool = False) -> Expr:
    """tr / n; of m mᵀ where the factor is a vector m, and no diagonal."""
    axis: Axis = factor.axes[0]
    if diagonal:
        return scale(Fraction(1, axis.entries), einsum([(factor, (axis,))], ()))
    operands = [(factor, (axis,)), (factor, (axis,))] if len(factor.axes) == 1 else [(factor, (axis, axis))]
    return scale(Fraction(1, axis.entries), einsum(operands, ()))


def shifted(matrix: Input, number: Expr) -> Expr:
    """A + c I."""
    identity = einsum([(number, ()), (Delta(*matrix.axes), matrix.axes)], matrix.axes)
    return total([matrix, identity], matrix.axes)
