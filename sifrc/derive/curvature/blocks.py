"""Blocks of pre-activations as factors, for every form of a kind, and those of the parameters from them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TypeAlias

from sifrc.derive.curvature.factors import scores_of
from sifrc.derive.curvature.kinds import Form
from sifrc.derive.curvature.outputs import jacobian_of, output_symbol
from sifrc.derive.curvature.parameters import ParameterBlock, owner_of, parameter_block
from sifrc.derive.curvature.scores import score_axes
from sifrc.ir import Delta, Input, Operand, Role, primed
from sifrc.model import Constraint, LayerParameters, Model

__all__ = ["BLOCK", "FACTORED", "MEAN_BLOCK", "Blocks", "Owned", "mean_block"]

Owned: TypeAlias = tuple[LayerParameters, tuple[ParameterBlock, ...]]
"""A layer with the blocks of its parameters."""

FACTORED: tuple[Form, ...] = ("outputs", "scores", "class_scores")
"""Forms of kinds that have factors of the blocks of samples in their place."""

BLOCK, MEAN_BLOCK = "H", "H̄"
"""Families of the block of one sample, and of the batch."""


def mean_block(c: Constraint) -> Input:
    """H̄_k."""
    return Input(MEAN_BLOCK, c.index, (*c.axes, *primed(c.axes)), Role.DIRECTION)


class Blocks:
    """Blocks of the pre-activations and of the parameters of a model.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def block(self, c: Constraint, form: Form) -> Input:
        """H_k, or H̄_k."""
        if form == "batch":
            return mean_block(c)
        return Input(BLOCK, c.index, (*c.axes, *primed(c.axes)), Role.STATE)

    def rows(self, c: Constraint, form: Form) -> tuple[Operand, ...]:
        """H_k, or factors in its place, or H̄_k, as factors over (i, i')."""
        block = self.block(c, form)
        if form not in FACTORED:
            return ((block, block.axes),)
        if form == "outputs":
            output, every = output_symbol(self.model), score_axes(self.model)
            places, label = every[:-1], every[-1]
            if c is self.model.output:
                own, axis = self.model.output_places, self.model.output_axis
                apart = tuple((Delta(one, one.primed), (one, one.primed)) for one in own)
                return ((output, (*own, axis, axis.primed)), *apart)
            jacobian = jacobian_of(c, every)
            return (
                (jacobian, (*every, *c.axes)),
                (output, (*every, label.primed)),
                (jacobian, (*places, label.primed, *primed(c.axes))),
            )
        extra = score_axes(self.model) if form == "class_scores" else ()
        scores = scores_of(c, extra)
        return tuple((scores, (*extra, *axes)) for axes in (c.axes, primed(c.axes)))

    def on_diagonal(self, c: Constraint, form: Form) -> tuple[Operand, ...]:
        """H_k as factors, both of whose labels over the features are one: their sum is that of the bias."""
        row = c.row
        return tuple(
            (factor, tuple(row if label == row.primed else label for label in labels))
            for factor, labels in self.rows(c, form)
        )

    def owned(self, form: Form) -> Iterator[Owned]:
        """Layers, last first, with the blocks of their parameters: of samples, or for ``batch`` from H̄_k.

        Args:
            form: what the blocks are made of.
        """
        for layer, blocks in self._of_batch if form == "batch" else self._of_samples:
            if form in FACTORED:
                blocks = tuple(self.of_samples(block, form) for block in blocks)
            yield layer, blocks

    @cached_property
    def _of_samples(self) -> tuple[Owned, ...]:
        """Blocks from H_k."""
        return self._from_blocks("samples")

    @cached_property
    def _of_batch(self) -> tuple[Owned, ...]:
        """Blocks from H̄_k."""
        return self._from_blocks("batch")

    def _from_blocks(self, form: Form) -> tuple[Owned, ...]:
        found = []
        for layer in reversed(self.model.parameters):
            block = self.block(owner_of(self.model, layer), form)
            own = [parameter_block(self.model, layer, parameter, block) for parameter in layer.members]
            found.append((layer, tuple(own)))
        return tuple(found)

    def of_samples(self, block: ParameterBlock, form: Form) -> ParameterBlock:
        """The block with what a form has in the place of H_k, which it has."""
        return block.with_rows(self.block(block.c, "samples"), self.rows(block.c, form))
