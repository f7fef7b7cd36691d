"""Blocks of weights: from the block of a pre-activation a = W x + β to that of W and β.

W and β reach the objective through one pre-activation, so that their second derivatives are those of a
taken along da/dW and da/dβ. What comes out is H ⊗ x xᵀ, EA-CG(4c), read off the derived expression. Its mean
over a batch is the block of the batch. To average its factors over the rows (i, i') and over the columns
(j, j') apart is an approximation, EA-CG(5), and so it is for those over the columns one by one, EA-CG(11b).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sifrc.calculus import seeded
from sifrc.errors import DerivationError
from sifrc.ir import Axis, Delta, Einsum, Expr, Input, Operand
from sifrc.ir.build import einsum, rename
from sifrc.ir.normal import expand
from sifrc.model import Constraint, LayerParameters, Model

__all__ = ["WeightBlock", "owner_of", "weight_block"]


def owner_of(model: Model, layer: LayerParameters) -> Constraint:
    """The constraint that uses the parameters of a layer.

    Raises:
        DerivationError: several do; the block of a shared weight has cross terms between its uses.
    """
    users = [c for c in model.constraints if c.parameters is layer]
    if len(users) > 1:
        others = f"'{users[1].name}'" + (" and others" if len(users) > 2 else "")
        raise DerivationError(
            f"the parameters of layer '{layer.layer}' are shared with {others}: their block has cross terms "
            "between the uses and is not a product of one layer's factors",
            hint="ask for hessian_vector_product, which is exact for shared parameters",
        )
    return users[0]


@dataclass(frozen=True)
class WeightBlock:
    """The block of W over (i, j, i', j') as a product, for one sample.

    Args:
        rows: factors over i, i'.
        columns: factors over j, j'.
        axes: (i, j, i', j').
    """

    rows: tuple[Operand, ...]
    columns: tuple[Operand, ...]
    axes: tuple[Axis, Axis, Axis, Axis]

    @property
    def value(self) -> Expr:
        """The block."""
        return einsum([*self.rows, *self.columns], self.axes)

    @property
    def second_moment(self) -> Expr:
        """The product of the factors over the columns, over (j, j')."""
        _, column, _, other = self.axes
        return einsum(self.columns, (column, other))

    def column_factors(self) -> tuple[tuple[Expr, Axis], ...]:
        """The factors over the columns one by one, each over one axis.

        Raises:
            DerivationError: a factor couples j and j'.
        """
        _, column, _, other = self.axes
        found: list[tuple[Expr, Axis]] = []
        for expr, labels in self.columns:
            if labels not in ((column,), (other,)):
                raise DerivationError("the columns of a weight's block do not separate into vectors")
            found.append((rename(expr, (column,)), labels[0]))
        return tuple(found)

    def with_rows(self, factors: tuple[Operand, ...]) -> WeightBlock:
        """The block with factors in the place of H, over its axes and labels that are summed.

        Raises:
            DerivationError: the rows are more than H.
        """
        if len(self.rows) != 1:
            raise DerivationError("the rows of a weight's block are more than that of its pre-activation")
        ((block, labels),) = self.rows
        table = dict(zip(block.axes, labels, strict=True))
        rows = tuple((e, tuple(table.get(label, label) for label in own)) for e, own in factors)
        return WeightBlock(rows, self.columns, self.axes)

    def with_columns(self, columns: tuple[Operand, ...]) -> WeightBlock:
        """The block with other factors over the columns."""
        return WeightBlock(self.rows, columns, self.axes)


def weight_block(model: Model, layer: LayerParameters, block: Input) -> WeightBlock:
    """The block of a weight from the block of its pre-activation.

    Args:
        model: the model.
        layer: whose weight it is.
        block: H over (i, i').

    Raises:
        DerivationError: the parameters are shared.
    """
    c = owner_of(model, layer)
    row, column = layer.weight.axes
    seeds = []
    for primes in (0, 1):
        i, j = (replace(a, primes=a.primes + primes) for a in (row, column))
        # ∂W/∂W over the slots of W, then (i, j)
        slots = tuple(a.summed(f"{a.name}.slot") for a in (row, column))
        unit = einsum(
            [(Delta(slots[0], i), (slots[0], i)), (Delta(slots[1], j), (slots[1], j))], (*slots, i, j)
        )
        seeds.append((unit, (i, j)))
    (left, out), (right, other) = (
        (seeded(c.pre_activation, {layer.weight: unit}, axes), axes) for unit, axes in seeds
    )
    below = c.axis.primed
    product = einsum(
        [(block, (c.axis, below)), (left, (c.axis, *out)), (right, (below, *other))], (*out, *other)
    )
    value = expand(product)
    if not isinstance(value, Einsum):
        raise DerivationError(f"the block of the weight of '{layer.layer}' is not one product")
    rows: list[Operand] = []
    columns: list[Operand] = []
    for operand in value.operands:
        labels = set(operand[1])
        if labels <= {out[1], other[1]} and labels:
            columns.append(operand)
        elif labels <= {out[0], other[0]}:
            rows.append(operand)
        else:
            raise DerivationError(f"the block of the weight of '{layer.layer}' is not a Kronecker product")
    return WeightBlock(tuple(rows), tuple(columns), (*out, *other))
