"""Kronecker factors of the weights' blocks: moments of what a weight reads, and the block beside them.

A product of means is another matrix than the mean of products. Where a weight acts at several places,
:mod:`~sifrc.derive.curvature.sharing` says what stands for pairs of them. A parameter that is no matrix which
multiplies what it reads has no factors, as the scale of a norm: the diagonal of its block is what it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from sifrc.derive.curvature.blocks import FACTORED, Blocks, Owned, mean_block
from sifrc.derive.curvature.kinds import Form
from sifrc.derive.curvature.parameters import ParameterBlock, owner_of
from sifrc.derive.curvature.sharing import (
    DIAGONAL_MOMENT,
    Moment,
    Reading,
    Sharing,
    no_factors,
    over_places,
    reading_of,
    summed_over_places,
)
from sifrc.derive.system import Equation, System
from sifrc.errors import DerivationError
from sifrc.ir import Axis, Input, Role
from sifrc.ir.build import einsum, rename
from sifrc.model import LayerParameters, Model

__all__ = ["KroneckerFactors", "Moment", "factor_blocks_name", "moments_name"]

SHARED_BLOCK = "B̄"
"""Family of what a weight that acts at several places has in the place of the mean block."""
MOMENTS: dict[Moment, str] = {"second": "A", "mean": "m̄"}
"""Families of the moments of a layer's input."""


def _twice(axis: Axis) -> tuple[Axis, Axis]:
    """An axis and the next one."""
    return axis, axis.primed


def moments_name(moment: Moment, sharing: Sharing | None) -> str:
    """Of the system of moments; means of inputs are the same however places are shared."""
    return f"{moment}_moments" + (f"_{sharing}" if sharing and moment == "second" else "")


def factor_blocks_name(form: Form, sharing: Sharing) -> str:
    """Of the system of blocks beside the moments."""
    return f"factor_blocks_{sharing}" + (f"_of_{form}" if form != "samples" else "")


class KroneckerFactors(Blocks):
    """Factors of the blocks of a model.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._readings: dict[str, Reading | None] = {}

    def parameters(self, form: Form, moment: Moment | None = None) -> Iterator[Owned]:
        """Layers, last first, with the blocks of their parameters.

        Args:
            form: what the blocks are made of.
            moment: with ``batch``, the moment that stands for what a weight reads.
        """
        for layer, blocks in self.owned(form):
            if moment is not None and self.has_factors(layer):
                means = self.moment(layer, moment), self.factor_block(layer)
                blocks = tuple(self.averaged(layer, block, *means, moment) for block in blocks)
            yield layer, blocks

    def moments(self, moment: Moment, sharing: Sharing | None = None) -> System:
        """A_k or m̄_k of every layer with parameters.

        Args:
            moment: which of both.
            sharing: what A_k is where a weight acts at several places.
        """
        equations: list[Equation] = []
        source = "EA-CG(5)" if moment == "second" else "EA-CG(11b)"
        for layer, blocks in self.factored:
            symbol = self.moment(layer, moment)
            reading = self.reading(layer)
            if reading is not None:
                equations += self._read(reading, moment, sharing, symbol, source)
                continue
            for block in blocks:
                if block.separates:
                    value = block.second_moment if moment == "second" else block.column_factors()[0][0]
                    equations.append(Equation(symbol, rename(value, symbol.axes), layer.index, source))
        title = "Second moments of the inputs" if moment == "second" else "Means of the inputs"
        return System(moments_name(moment, sharing), title, tuple(equations))

    def _read(
        self, reading: Reading, moment: Moment, sharing: Sharing | None, symbol: Input, source: str
    ) -> Iterator[Equation]:
        """What a weight reads at its places, and the moment of that."""
        index = reading.layer.index
        if reading.read is not reading.value:
            assert isinstance(reading.read, Input)
            yield Equation(reading.read, reading.joined, index, "definition")
        if moment == "mean":
            yield Equation(symbol, rename(reading.mean(), symbol.axes), index, source)
            return
        assert sharing is not None
        sharing = reading.shared(sharing)
        if sharing == "reduce":
            yield Equation(reading.mean_symbol(), reading.mean(), index, "definition")
        yield Equation(symbol, rename(reading.second_moment(sharing), symbol.axes), index, source)

    def factor_blocks(self, form: Form, sharing: Sharing) -> System:
        """What stands beside the moments: H̄_k of a layer, or B̄_k where its weight acts at several places.

        Args:
            form: of the kind.
            sharing: what B̄_k is.
        """
        equations = []
        for layer, _ in self.factored:
            c, symbol = owner_of(self.model, layer), self.factor_block(layer)
            rows, reading = self.rows(c, form), self.reading(layer)
            if reading is not None:
                own = reading.shared(sharing)
                if own == "reduce" and form in FACTORED:
                    summed, rows = summed_over_places(rows, c)
                    if summed is not None:
                        equations.append(Equation(*summed, c.index, "definition"))
                value = over_places(rows, c, own, symbol.axes, reading)
            elif form == "batch":
                continue
            else:
                value = einsum(rows, symbol.axes)
            equations.append(Equation(symbol, value, c.index, "definition"))
        return System(factor_blocks_name(form, sharing), "Blocks of the Kronecker factors", tuple(equations))

    def output_block(self, form: Form) -> tuple[Input, System | None]:
        """The mean block of the output at its places together, and the system with it if no layer has it.

        Args:
            form: of the kind.
        """
        c = self.model.output
        if c.parameters is not None and self.has_factors(c.parameters):
            reading = self.reading(c.parameters)
            if reading is None or reading.group is None:  # else it has the pairs within groups alone
                return self.factor_block(c.parameters), None
        if not c.places:
            symbol, value = mean_block(c), einsum(self.rows(c, form), mean_block(c).axes)
        else:
            symbol = Input(SHARED_BLOCK, c.index, (c.row, c.row.primed), Role.DIRECTION)
            value = over_places(self.rows(c, form), c, "expand", symbol.axes)
        if value is symbol:
            return symbol, None
        equation = Equation(symbol, value, c.index, "definition")
        return symbol, System("output_block", "Block of the output", (equation,))

    @cached_property
    def factored(self) -> tuple[Owned, ...]:
        """Layers whose weights have factors, last first, with the blocks of single samples."""
        return tuple(owned for owned in self.owned("samples") if self.has_factors(owned[0]))

    @cached_property
    def others(self) -> tuple[LayerParameters, ...]:
        """Layers, or parts of them, whose weights have no factors, in the order of the network."""
        return tuple(owned for owned in self.model.parameters if not self.has_factors(owned))

    def has_factors(self, layer: LayerParameters) -> bool:
        """Whether the weight of a layer has factors, and its bias with it."""
        return self.refusal(layer) is None

    def refusal(self, layer: LayerParameters) -> DerivationError | None:
        """Why the weight of a layer has no factors; None where it has some."""
        try:
            self.reading(layer)
        except DerivationError as error:
            return error
        return None

    def reading(self, layer: LayerParameters) -> Reading | None:
        """What the weight of a layer reads at its places; None where it acts at one.

        Raises:
            DerivationError: it has no Kronecker factors.
        """
        if layer.layer not in self._readings:
            c = owner_of(self.model, layer)
            if c.parameters is not layer:
                what = f"the tensor of layer '{layer.layer}'"
                raise no_factors(self.model, what, layer, "it is by itself, and a layer reads it")
            reading = reading_of(self.model, layer, c)
            self._readings[layer.layer] = reading if c.places else None
        return self._readings[layer.layer]

    def factor_block(self, layer: LayerParameters) -> Input:
        """H̄_k of the layer, or B̄_k."""
        c, reading = owner_of(self.model, layer), self.reading(layer)
        if reading is None:
            return mean_block(c)
        axes = (*reading.groups, *((c.row, c.row.primed) if reading.group is None else _twice(reading.row)))
        return Input(SHARED_BLOCK, c.index, axes, Role.DIRECTION)

    def moment(self, layer: LayerParameters, moment: Moment) -> Input:
        """A_k over (j, j'), or m̄_k over (j,); A_k over (j,) where it is diagonal. Groups come first."""
        reading = self.reading(layer)
        column = layer.weight.axes[1] if reading is None else reading.column
        groups = () if reading is None else reading.groups
        if moment == "second" and reading is not None and reading.of_classes:
            return Input(DIAGONAL_MOMENT, layer.index, (column,), Role.DIRECTION)
        axes = _twice(column) if moment == "second" else (column,)
        return Input(MOMENTS[moment], layer.index, (*groups, *axes), Role.DIRECTION)

    def averaged(
        self, layer: LayerParameters, block: ParameterBlock, moment: Input, mean: Input, of: Moment
    ) -> ParameterBlock:
        """The block with factors that are means.

        Args:
            layer: that owns the parameter.
            block: of it.
            moment: A over (j, j') or m̄ over (j,), in the place of its columns, if it has some.
            mean: B̄, in the place of its rows where the layer acts at several places.
            of: which moment it is.
        """
        reading = self.reading(layer)
        if reading is not None:
            if block.of_pre_activation:
                return block.of_rows(reading, mean)
            return block.at_places(reading, mean, moment, of)
        if not block.separates:
            return block
        column, other = block.own[1], block.other[1]
        if len(moment.axes) == 2:
            return block.with_columns(((moment, (column, other)),))
        return block.with_columns(tuple((moment, (axis,)) for _, axis in block.column_factors()))
