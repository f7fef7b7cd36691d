"""Systems of the curvature: blocks of every kind, moments of the inputs, products and diagonals.

H_k is the block of the pre-activation of constraint k for one sample, H̄_k its batch mean or an
approximation of it; A_k and m_k are the mean of x xᵀ and of x over the batch, x the input of layer k.
The systems that use blocks are the same for all kinds of one form. Blocks of weights and products with them
are means over the samples, exact for a batch, where the kind has blocks or scores of samples; those from H̄_k
and a moment are approximations: a mean of products is not the product of means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

from sifrc.derive.curvature.blocks import BLOCK, FACTORED, MEAN_BLOCK, Owned, mean_block
from sifrc.derive.curvature.convexity import convexity
from sifrc.derive.curvature.factors import factored
from sifrc.derive.curvature.kinds import Form, Kind
from sifrc.derive.curvature.kronecker import KroneckerFactors, Moment, factor_blocks_name, moments_name
from sifrc.derive.curvature.outputs import from_output
from sifrc.derive.curvature.parameters import ParameterBlock, check_order, check_sizes
from sifrc.derive.curvature.recursion import recursion
from sifrc.derive.lagrangian import FirstOrder, derive_first_order
from sifrc.derive.separability import check_separable
from sifrc.derive.shaped import BLOCK_PRODUCT, DIAGONAL, DIRECTION, PARAMETER_BLOCK
from sifrc.derive.system import Equation, System
from sifrc.ir import Expr, Input, Role
from sifrc.ir.build import einsum, hadamard, rename, zero
from sifrc.ir.traverse import inputs_of, substitute
from sifrc.model import LayerParameters

__all__ = [
    "BLOCK",
    "FACTORED",
    "MEAN_BLOCK",
    "Curvature",
    "Moment",
    "factor_blocks_name",
    "mean_block",
    "moments_name",
    "other_diagonal_name",
]


def other_diagonal_name(form: Form) -> str:
    """Of the system of diagonals of parameters without factors."""
    return f"other_diagonals_of_{form}"


class Curvature(KroneckerFactors):
    """Curvature systems of a model.

    Args:
        first: the first-order system.
    """

    def __init__(self, first: FirstOrder) -> None:
        super().__init__(first.model)
        self.first = first
        self.convexity = convexity(first.model)

    def blocks(self, kind: Kind) -> System:
        """H_k of every constraint, its factors, or H̄_k where the kind approximates the mean.

        Raises:
            DerivationError: a rewrite of the kind does not apply.
        """
        check_separable(self.model, "curvature blocks are")
        check_order(self.model)
        check_sizes(self.model, kind)
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
            value = einsum(self.rows(c, form), symbol.axes)
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
            return self.block(block.c, "batch" if mean else "samples")
        quantity = PARAMETER_BLOCK if mean else PARAMETER_BLOCK.marked("ˢ")
        found = quantity.of(block.parameter)
        return Input(found.family, found.index, block.axes, Role.DIRECTION if mean else Role.STATE)

    def sample_blocks(self, form: Form) -> System:
        """H_k of every constraint, for the forms that have factors of it."""
        equations = []
        for c in reversed(self.model.constraints):
            block = self.block(c, "samples")
            equations.append(Equation(block, einsum(self.rows(c, form), block.axes), c.index, "definition"))
        return System(f"sample_blocks_of_{form}", "Blocks of the samples", tuple(equations))

    def dense(self, form: Form) -> System:
        """∇²W_k over (i, j, i', j'): the mean over the samples, EA-CG(4c), or H̄_k ⊗ A_k, EA-CG(8c).

        Args:
            form: of the kind; ``batch`` is the approximation, Σ_ss' H̄_(si)(s'i') E[x̂_sj x̂_s'j'] at places.
        """
        equations = []
        source = "EA-CG(8c)" if form == "batch" else "EA-CG(4c)"
        for layer, blocks in self.parameters(
            form, "second" if form == "batch" and self.model.separates else None
        ):
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
            moment: with ``batch``, the moment that stands for the inputs, EA-CG(11a) or (11b), beside B̄_k
                where a weight acts at several places, and the diagonals of parameters without factors;
                without one all pairs of places are kept.
        """
        equations = []
        of_rest = {"second": "EA-CG(11a)", "mean": "EA-CG(11b)", None: "EA-CG(4c)"}[moment]
        for layer, blocks in self.parameters(form, moment):
            alone = moment is not None and not self.has_factors(layer)
            for block in blocks:
                result, direction = BLOCK_PRODUCT.of(block.parameter), DIRECTION.of(block.parameter)
                if alone:
                    found = hadamard(DIAGONAL.of(block.parameter), direction)
                    equations.append(Equation(result, rename(found, result.axes), layer.index, "definition"))
                    continue
                value = rename(block.times(direction), result.axes)
                source = "EA-CG(10a)" if block.of_pre_activation else of_rest
                equations.append(Equation(result, value, layer.index, source))
        name = "block_product" if form == "samples" else f"block_product_of_{form}"
        name = f"block_product_{moment}" if moment else name
        return System(name, "Product with the curvature blocks", tuple(equations))

    def diagonal(self, form: Form) -> System:
        """The diagonals of the blocks, averaged over the batch.

        Args:
            form: of the kind; from ``batch`` it is the product of means, an approximation.
        """
        name, title = ("diagonal", "Hessian") if form == "samples" else (f"diagonal_of_{form}", "curvature")
        return self._diagonal(name, f"Diagonal of the {title}", form, self.parameters("samples"))

    def other_diagonal(self, form: Form, layers: Sequence[LayerParameters] | None = None) -> System:
        """The same of some layers alone.

        Args:
            form: of the kind.
            layers: by default those whose weights have no Kronecker factors.
        """
        wanted = self.others if layers is None else tuple(layers)
        rest = (owned for owned in self.parameters("samples") if owned[0] in wanted)
        name = other_diagonal_name(form) if wanted == self.others else f"some_diagonals_of_{form}"
        return self._diagonal(name, "Diagonals of the parameters without factors", form, rest)

    def _diagonal(self, name: str, title: str, form: Form, found: Iterable[Owned]) -> System:
        entries: list[Equation] = []
        equations: list[Equation] = []
        batch = form == "batch"
        for layer, blocks in found:
            c = blocks[0].c
            axes, role = (c.row,), Role.DIRECTION if batch else Role.STATE
            symbol = Input("h̄" if batch else "h", c.index, axes, role)
            if any(block.separates or block.of_pre_activation for block in blocks):
                on_diagonal = Equation(symbol, einsum(self.on_diagonal(c, form), axes), c.index, "EA-CG(4b)")
                entries += [on_diagonal] if on_diagonal not in entries else []
            for block in blocks:
                value: Expr = symbol
                if block.separates:
                    assert block.row is not None
                    columns = block.own_columns
                    squares: Expr = einsum([(block.second_moment, (*columns, *columns))], columns)
                    if batch:
                        mean = Input("m̄²", layer.index, columns, Role.DIRECTION)
                        entries.append(Equation(mean, squares, layer.index, "EA-CG(5)"))
                        squares = mean
                    value = einsum([(symbol, (block.row,)), (squares, columns)], block.own)
                elif not block.of_pre_activation:
                    value = einsum(self.of_samples(block, form).diagonal, block.own)
                result = DIAGONAL.of(block.parameter)
                equations.append(Equation(result, rename(value, result.axes), layer.index, "EA-CG(4c)"))
        return System(name, title, (*entries, *equations))


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
