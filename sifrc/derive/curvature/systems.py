"""Systems of the curvature: blocks of every kind, moments of the inputs, products and diagonals.

H_k is the block of the pre-activation of constraint k for one sample, H̄_k its batch mean or an
approximation of it; A_k and m_k are the mean of x xᵀ and of x over the batch, x the input of layer k.
The systems that use blocks are the same for all kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Literal, TypeAlias

from sifrc.derive.curvature.convexity import convexity
from sifrc.derive.curvature.factors import factored
from sifrc.derive.curvature.kinds import Kind
from sifrc.derive.curvature.recursion import recursion
from sifrc.derive.curvature.weights import WeightBlock, owner_of, weight_block
from sifrc.derive.lagrangian import FirstOrder, derive_first_order, gradient_symbols
from sifrc.derive.system import Equation, System
from sifrc.ir import Axis, Input, Role
from sifrc.ir.build import einsum, rename, zero
from sifrc.ir.traverse import inputs_of, substitute
from sifrc.model import LayerParameters

__all__ = ["Curvature", "Moment", "mean_block", "moment_symbol"]

Moment: TypeAlias = Literal["second", "mean"]

BLOCK, MEAN_BLOCK = "H", "H̄"
"""Families of the block of one sample, and of the batch."""
MOMENTS: dict[Moment, str] = {"second": "A", "mean": "m̄"}
"""Families of the moments of a layer's input."""


def mean_block(axis: Axis, index: int) -> Input:
    """H̄_k."""
    return Input(MEAN_BLOCK, index, (axis, axis.primed), Role.DIRECTION)


def moment_symbol(layer: LayerParameters, moment: Moment) -> Input:
    """A_k over (j, j'), or m̄_k over (j,)."""
    column = layer.weight.axes[1]
    axes = (column, column.primed) if moment == "second" else (column,)
    return Input(MOMENTS[moment], layer.index, axes, Role.DIRECTION)


class Curvature:
    """Curvature systems of a model.

    Args:
        first: the first-order system.
    """

    def __init__(self, first: FirstOrder) -> None:
        self.first = first
        self.model = first.model
        self.convexity = convexity(first.model)

    def blocks(self, kind: Kind) -> System:
        """H_k of every constraint, or H̄_k where the kind approximates the mean.

        Raises:
            DerivationError: a rewrite of the kind does not apply.
        """
        convex = self.convexity == "convex"
        title = f"Curvature blocks of the pre-activations, kind {kind.name}"
        if kind.source == "loss" and kind.residual != "dropped" and self.model.regularized:
            found, before = recursion(self._plain, kind, convex), self._plain.adjoint.equations
            equations = tuple(_marked(equation) for equation in (*before, *found.equations))
        else:
            found = factored(self.first, kind) if kind.factored else recursion(self.first, kind, convex)
            equations = found.equations
        return System(f"blocks_{kind.name}", title, equations, found.conditions)

    @cached_property
    def _plain(self) -> FirstOrder:
        """The first-order system of the loss alone; its adjoints are not those of the objective."""
        return derive_first_order(replace(self.model, regularizer=zero(), regularized=()))

    def mean_blocks(self) -> System:
        """H̄_k = E[H_k]."""
        equations = tuple(
            Equation(mean_block(c.axis, c.index), self._block(c.axis, c.index, True), c.index, "definition")
            for c in reversed(self.model.constraints)
        )
        return System("mean_blocks", "Batch mean of the blocks", equations)

    def moments(self, moment: Moment) -> System:
        """A_k or m̄_k of every layer with parameters."""
        equations = []
        for layer, block in self._weights(per_sample=True):
            value = block.second_moment if moment == "second" else block.column_factors()[0][0]
            symbol = moment_symbol(layer, moment)
            source = "EA-CG(5)" if moment == "second" else "EA-CG(11b)"
            equations.append(Equation(symbol, rename(value, symbol.axes), layer.index, source))
        title = "Second moments of the inputs" if moment == "second" else "Means of the inputs"
        return System(f"{moment}_moments", title, tuple(equations))

    def dense(self, per_sample: bool) -> System:
        """∇²W_k over (i, j, i', j'): EA-CG(4c), or H̄_k ⊗ A_k, EA-CG(8c)."""
        equations = []
        for layer, block in self._weights(per_sample, None if per_sample else "second"):
            symbol = Input("∇²W", layer.index, block.axes, Role.DIRECTION)
            source = "EA-CG(4c)" if per_sample else "EA-CG(8c)"
            equations.append(Equation(symbol, block.value, layer.index, source))
        name = "dense_blocks_per_sample" if per_sample else "dense_blocks"
        return System(name, "Blocks of the weights", tuple(equations))

    def product(self, per_sample: bool, moment: Moment | None) -> System:
        """The block-diagonal curvature times (N, η).

        Args:
            per_sample: from H_k, whose products with the inputs are averaged together.
            moment: otherwise the moment that stands for the inputs, EA-CG(11a) or (11b).
        """
        equations = []
        for layer, block in self._weights(per_sample, moment):
            pairs = gradient_symbols(layer, "N", "η")
            results = [symbol for _, symbol in gradient_symbols(layer, "BN", "Bη")]
            (_, vector), *_ = pairs
            value = einsum([(block.value, block.axes), (vector, block.axes[2:])], block.axes[:2])
            source = {"second": "EA-CG(11a)", "mean": "EA-CG(11b)", None: "EA-CG(4c)"}[moment]
            equations.append(Equation(results[0], rename(value, results[0].axes), layer.index, source))
            for (_, part), result in zip(pairs[1:], results[1:], strict=True):
                c = owner_of(self.model, layer)
                matrix = self._block(c.axis, c.index, per_sample)
                row, below = matrix.axes
                value = einsum([(matrix, (row, below)), (part, (below,))], (row,))
                equations.append(Equation(result, rename(value, result.axes), layer.index, "EA-CG(10a)"))
        name = "block_product" + ("" if moment is None else f"_{moment}")
        return System(name, "Product with the curvature blocks", tuple(equations))

    def diagonal(self) -> System:
        """The diagonals of the blocks, averaged over the batch."""
        entries: list[Equation] = []
        equations: list[Equation] = []
        for layer, block in self._weights(per_sample=True):
            c = owner_of(self.model, layer)
            matrix = self._block(c.axis, c.index, True)
            symbol = Input("h", c.index, (c.axis,), Role.STATE)
            value = einsum([(matrix, (c.axis, c.axis))], (c.axis,))
            entries.append(Equation(symbol, value, c.index, "EA-CG(4b)"))
            row, column, *_ = block.axes
            own = einsum([(symbol, (row,)), (block.second_moment, (column, column))], (row, column))
            results = [found for _, found in gradient_symbols(layer, "dW", "dβ")]
            for result, part in zip(results, (own, symbol), strict=False):
                equations.append(Equation(result, rename(part, result.axes), layer.index, "EA-CG(4c)"))
        return System("diagonal", "Diagonal of the Hessian", (*entries, *equations))

    def _block(self, axis: Axis, index: int, per_sample: bool) -> Input:
        if per_sample:
            return Input(BLOCK, index, (axis, axis.primed), Role.STATE)
        return mean_block(axis, index)

    def _weights(
        self, per_sample: bool, moment: Moment | None = None
    ) -> Iterator[tuple[LayerParameters, WeightBlock]]:
        """Layers, last first, with the block of their weight."""
        for layer in reversed(self.model.parameters):
            c = owner_of(self.model, layer)
            block = weight_block(self.model, layer, self._block(c.axis, c.index, per_sample))
            yield layer, (block if moment is None else averaged(block, moment_symbol(layer, moment)))


def _marked(equation: Equation) -> Equation:
    """The equation with b° and y° for adjoints of the loss alone."""
    table = {
        symbol: Input(f"{symbol.family}°", symbol.index, symbol.slots, symbol.role)
        for symbol in (equation.symbol, *inputs_of(equation.value))
        if symbol.family in ("b", "y")
    }
    return replace(
        equation,
        symbol=table.get(equation.symbol, equation.symbol),
        value=substitute(equation.value, table),
    )


def averaged(block: WeightBlock, moment: Input) -> WeightBlock:
    """The block with the mean of its columns in their place: A over (j, j'), or m̄ m̄ᵀ for m̄ over (j,)."""
    _, column, _, other = block.axes
    if len(moment.axes) == 2:
        return block.with_columns(((moment, (column, other)),))
    return block.with_columns(tuple((moment, (axis,)) for _, axis in block.column_factors()))
