"""Systems of the curvature: blocks of every kind, moments of the inputs, products and diagonals.

H_k is the block of the pre-activation of constraint k for one sample, H̄_k its batch mean or an
approximation of it; A_k and m_k are the mean of x xᵀ and of x over the batch, x the input of layer k.
The systems that use blocks are the same for all kinds of one form. Blocks of weights and products with them
are means over the samples, exact for a batch, where the kind has blocks or scores of samples; those from H̄_k
and a moment are approximations: a mean of products is not the product of means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Literal, TypeAlias

from sifrc.derive.curvature.convexity import convexity
from sifrc.derive.curvature.factors import factored, scores_of
from sifrc.derive.curvature.kinds import Form, Kind
from sifrc.derive.curvature.outputs import from_output, jacobian_of, output_symbol
from sifrc.derive.curvature.parameters import (
    ParameterBlock,
    check_owners,
    check_places,
    owner_of,
    parameter_block,
)
from sifrc.derive.curvature.recursion import recursion
from sifrc.derive.curvature.scores import class_axis
from sifrc.derive.lagrangian import FirstOrder, derive_first_order
from sifrc.derive.separability import check_separable
from sifrc.derive.shaped import BLOCK_PRODUCT, DIAGONAL, DIRECTION, PARAMETER_BLOCK
from sifrc.derive.system import Equation, System
from sifrc.ir import Expr, Input, Operand, Role, primed
from sifrc.ir.build import einsum, rename, zero
from sifrc.ir.traverse import inputs_of, substitute
from sifrc.model import Constraint, LayerParameters

__all__ = ["FACTORED", "Curvature", "Moment", "averaged", "mean_block", "moment_symbol"]

Moment: TypeAlias = Literal["second", "mean"]
_Owned: TypeAlias = tuple[LayerParameters, tuple[ParameterBlock, ...]]
"""A layer with the blocks of its parameters."""

FACTORED: tuple[Form, ...] = ("outputs", "scores", "class_scores")
"""Forms of kinds that have factors of the blocks of samples in their place."""

BLOCK, MEAN_BLOCK = "H", "H̄"
"""Families of the block of one sample, and of the batch."""
MOMENTS: dict[Moment, str] = {"second": "A", "mean": "m̄"}
"""Families of the moments of a layer's input."""


def mean_block(c: Constraint) -> Input:
    """H̄_k."""
    return Input(MEAN_BLOCK, c.index, (*c.axes, *primed(c.axes)), Role.DIRECTION)


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
        """H_k of every constraint, its factors, or H̄_k where the kind approximates the mean.

        Raises:
            DerivationError: a rewrite of the kind does not apply.
        """
        check_separable(self.model, "curvature blocks are")
        check_owners(self.model)
        if kind.expectation:
            for c in self.model.constraints:
                check_places(self.model, c, f"kind '{kind.name}'")
        convex = self.convexity == "convex"
        title = f"Curvature blocks of the pre-activations, kind {kind.name}"
        if kind.source == "loss" and kind.residual != "dropped" and self.model.regularized:
            found, before = recursion(self._plain, kind, convex), self._plain.adjoint.equations
            equations = tuple(_marked(equation) for equation in (*before, *found.equations))
        else:
            if kind.factored:
                found = factored(self.first, kind)
            else:
                derive = from_output if kind.form == "outputs" else recursion
                found = derive(self.first, kind, convex)
            equations = found.equations
        return System(f"blocks_{kind.name}", title, equations, found.conditions)

    @cached_property
    def _plain(self) -> FirstOrder:
        """The first-order system of the loss alone; its adjoints are not those of the objective."""
        return derive_first_order(replace(self.model, regularizer=zero(), regularized=()))

    def mean_blocks(self, form: Form) -> System:
        """H̄_k = E[H_k].

        Args:
            form: of the kind, one with blocks or their factors for each sample.
        """
        equations = []
        for c in reversed(self.model.constraints):
            symbol = mean_block(c)
            value = einsum(self._rows(c, form), symbol.axes)
            equations.append(Equation(symbol, value, c.index, "definition"))
        name = "mean_blocks" if form == "samples" else f"mean_blocks_of_{form}"
        return System(name, "Batch mean of the blocks", tuple(equations))

    def bias_blocks(self, *, mean: bool) -> System:
        """∇²β_k = Σ_ss' H_(si)(s'i') of the biases that act at several places s; elsewhere it is H_k.

        Args:
            mean: of H̄_k in place of H_k.
        """
        equations = []
        for layer, blocks in self.parameters("batch" if mean else "samples"):
            for block in blocks:
                if block.of_pre_activation and len(block.c.axes) > 1:
                    symbol = self.symbol(block, mean=mean)
                    equations.append(Equation(symbol, block.value, layer.index, "EA-CG(10a)"))
        name = "mean_bias_blocks" if mean else "sample_bias_blocks"
        return System(name, "Blocks of the biases that act at several places", tuple(equations))

    def symbol(self, block: ParameterBlock, *, mean: bool) -> Input:
        """What the block of a parameter is called: H_k, or ∇²W_k, or ∇²β_k of biases at several places."""
        if block.of_pre_activation and len(block.c.axes) == 1:
            return self._block(block.c, "batch" if mean else "samples")
        quantity = PARAMETER_BLOCK if mean else PARAMETER_BLOCK.marked("ˢ")
        found = quantity.of(block.parameter)
        return Input(found.family, found.index, block.axes, Role.DIRECTION if mean else Role.STATE)

    def moments(self, moment: Moment) -> System:
        """A_k or m̄_k of every layer with parameters."""
        equations = []
        source = "EA-CG(5)" if moment == "second" else "EA-CG(11b)"
        for layer, blocks in self.parameters("samples"):
            symbol = moment_symbol(layer, moment)
            for block in blocks:
                check_places(self.model, block.c, f"the moment '{moment}'")
                if block.separates:
                    value = block.second_moment if moment == "second" else block.column_factors()[0][0]
                    equations.append(Equation(symbol, rename(value, symbol.axes), layer.index, source))
        title = "Second moments of the inputs" if moment == "second" else "Means of the inputs"
        return System(f"{moment}_moments", title, tuple(equations))

    def sample_blocks(self, form: Form) -> System:
        """H_k of every constraint, for the forms that have factors of it."""
        equations = []
        for c in reversed(self.model.constraints):
            block = self._block(c, "samples")
            equations.append(Equation(block, einsum(self._rows(c, form), block.axes), c.index, "definition"))
        return System(f"sample_blocks_of_{form}", "Blocks of the samples", tuple(equations))

    def dense(self, form: Form) -> System:
        """∇²W_k over (i, j, i', j'): the mean over the samples, EA-CG(4c), or H̄_k ⊗ A_k, EA-CG(8c).

        Args:
            form: of the kind; ``batch`` is the approximation.
        """
        equations = []
        source = "EA-CG(8c)" if form == "batch" else "EA-CG(4c)"
        for layer, blocks in self.parameters(form, "second" if form == "batch" else None):
            for block in blocks:
                if not block.of_pre_activation:
                    symbol = self.symbol(block, mean=True)
                    equations.append(Equation(symbol, block.value, layer.index, source))
        name = {"samples": "dense_blocks_per_sample", "batch": "dense_blocks"}
        return System(name.get(form, f"dense_blocks_of_{form}"), "Blocks of the weights", tuple(equations))

    def product(self, form: Form, moment: Moment | None) -> System:
        """The block-diagonal curvature times (N, η).

        Args:
            form: what the blocks of the weights are made of; but for ``batch`` the products of the samples
                are averaged, which is exact.
            moment: with ``batch``, the moment that stands for the inputs, EA-CG(11a) or (11b).
        """
        equations = []
        of_rest = {"second": "EA-CG(11a)", "mean": "EA-CG(11b)", None: "EA-CG(4c)"}[moment]
        for layer, blocks in self.parameters(form, moment):
            for block in blocks:
                result = BLOCK_PRODUCT.of(block.parameter)
                value = rename(block.times(DIRECTION.of(block.parameter)), result.axes)
                source = "EA-CG(10a)" if block.of_pre_activation else of_rest
                equations.append(Equation(result, value, layer.index, source))
        name = {"samples": "block_product", "batch": f"block_product_{moment}"}
        return System(
            name.get(form, f"block_product_of_{form}"), "Product with the curvature blocks", tuple(equations)
        )

    def diagonal(self, form: Form) -> System:
        """The diagonals of the blocks, averaged over the batch.

        Args:
            form: of the kind; from ``batch`` it is the product of means, an approximation.
        """
        entries: list[Equation] = []
        equations: list[Equation] = []
        batch = form == "batch"
        for layer, blocks in self.parameters("samples"):
            c = blocks[0].c
            axes, role = (c.row,), Role.DIRECTION if batch else Role.STATE
            symbol = Input("h̄" if batch else "h", c.index, axes, role)
            if any(block.separates or block.of_pre_activation for block in blocks):
                on_diagonal = einsum(self.on_diagonal(c, form), axes)
                entries.append(Equation(symbol, on_diagonal, c.index, "EA-CG(4b)"))
            for block in blocks:
                value: Expr = symbol
                if block.separates:
                    row, columns = block.own[0], block.own[1:]
                    squares: Expr = einsum([(block.second_moment, (*columns, *columns))], columns)
                    if batch:
                        mean = Input("m̄²", layer.index, columns, Role.DIRECTION)
                        entries.append(Equation(mean, squares, layer.index, "EA-CG(5)"))
                        squares = mean
                    value = einsum([(symbol, (row,)), (squares, columns)], block.own)
                elif not block.of_pre_activation:
                    value = einsum(self.of_form(block, form).diagonal, block.own)
                result = DIAGONAL.of(block.parameter)
                equations.append(Equation(result, rename(value, result.axes), layer.index, "EA-CG(4c)"))
        name, title = ("diagonal", "Hessian") if form == "samples" else (f"diagonal_of_{form}", "curvature")
        return System(name, f"Diagonal of the {title}", (*entries, *equations))

    def on_diagonal(self, c: Constraint, form: Form) -> tuple[Operand, ...]:
        """H_k as factors, both of whose labels over the features are one: their sum is that of the bias."""
        row = c.row
        return tuple(
            (factor, tuple(row if label == row.primed else label for label in labels))
            for factor, labels in self._rows(c, form)
        )

    def _block(self, c: Constraint, form: Form) -> Input:
        """H_k, or H̄_k."""
        if form == "batch":
            return mean_block(c)
        return Input(BLOCK, c.index, (*c.axes, *primed(c.axes)), Role.STATE)

    def _rows(self, c: Constraint, form: Form) -> tuple[Operand, ...]:
        """H_k, or factors in its place, or H̄_k, as factors over (i, i')."""
        block = self._block(c, form)
        if form not in FACTORED:
            return ((block, block.axes),)
        if form == "outputs":
            output, label = output_symbol(self.model), class_axis(self.model)
            if c is self.model.output:
                return ((output, block.axes),)
            jacobian = jacobian_of(c, label)
            return (
                (jacobian, (label, *c.axes)),
                (output, (label, label.primed)),
                (jacobian, (label.primed, *primed(c.axes))),
            )
        extra = (class_axis(self.model),) if form == "class_scores" else ()
        scores = scores_of(c, extra)
        return tuple((scores, (*extra, *axes)) for axes in (c.axes, primed(c.axes)))

    def parameters(self, form: Form, moment: Moment | None = None) -> Iterator[_Owned]:
        """Layers, last first, with the blocks of their parameters."""
        for layer, blocks in self._of_batch if form == "batch" else self._of_samples:
            if moment is not None:
                check_places(self.model, blocks[0].c, f"the moment '{moment}'")
                blocks = tuple(averaged(block, moment_symbol(layer, moment)) for block in blocks)
            yield layer, tuple(self.of_form(block, form) for block in blocks)

    @cached_property
    def _of_samples(self) -> tuple[_Owned, ...]:
        """Blocks from H_k."""
        return self._from_blocks("samples")

    @cached_property
    def _of_batch(self) -> tuple[_Owned, ...]:
        """Blocks from H̄_k."""
        return self._from_blocks("batch")

    def _from_blocks(self, form: Form) -> tuple[_Owned, ...]:
        found = []
        for layer in reversed(self.model.parameters):
            block = self._block(owner_of(self.model, layer), form)
            own = [parameter_block(self.model, layer, parameter, block) for parameter in layer.members]
            found.append((layer, tuple(own)))
        return tuple(found)

    def of_form(self, block: ParameterBlock, form: Form) -> ParameterBlock:
        """The block with the factors of a form in the place of H_k, which it has."""
        if form not in FACTORED:
            return block
        return block.with_rows(self._block(block.c, form), self._rows(block.c, form))


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


def averaged(block: ParameterBlock, moment: Input) -> ParameterBlock:
    """The block with the mean of its columns, if it has some: A over (j, j'), or m̄ m̄ᵀ for m̄ over (j,)."""
    if not block.separates:
        return block
    column, other = block.own[1], block.other[1]
    if len(moment.axes) == 2:
        return block.with_columns(((moment, (column, other)),))
    return block.with_columns(tuple((moment, (axis,)) for _, axis in block.column_factors()))
