"""Blocks of weights: from the block of a pre-activation a = W x + β to that of W and β.

W and β reach the objective through one pre-activation, so that their second derivatives are those of a
taken along da/dW and da/dβ. What comes out is H ⊗ x xᵀ, EA-CG(4c), read off the derived expression. Its mean
over a batch is the block of the batch. To average its factors over the rows (i, i') and over the columns
(j, j') apart is an approximation, EA-CG(5), and so it is for those over the columns one by one, EA-CG(11b).
A weight that acts at several places s has the block Σ_ss' H_(si)(s'i') x_sj x_s'j', without such factors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sifrc.calculus import seeded
from sifrc.errors import DerivationError
from sifrc.ir import Axis, Einsum, Expr, Input, Operand, primed
from sifrc.ir.build import einsum, identity, rename
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


def check_places(model: Model, c: Constraint, what: str) -> None:
    """Refuse to average factors of a weight's block where it has none.

    Args:
        model: the model.
        c: the constraint with the weight, or without one.
        what: what averages them, for the message.

    Raises:
        DerivationError: the weight acts at several places.
    """
    if c.parameters is None or len(c.axes) == 1:
        return
    layers = {layer.name: layer for layer in model.spec.layers}
    places = " x ".join(str(axis.size) for axis in c.axes[:-1])
    raise DerivationError(
        f"{what} averages the factors of a weight's block, and that of layer '{c.layers[0]}' has none: "
        f"it acts at {places} places of its input",
        location=layers[c.layers[0]].location,
        hint="hessian and ggn are exact there, and so is hessian_vector_product",
    )


@dataclass(frozen=True)
class WeightBlock:
    """The block of W over (i, j, i', j') as a product, for one sample.

    Args:
        rows: factors over i, i'; all of them where the weight acts at several places.
        columns: factors over j, j'; none where the weight acts at several places.
        axes: (i, j, i', j').
    """

    rows: tuple[Operand, ...]
    columns: tuple[Operand, ...]
    axes: tuple[Axis, Axis, Axis, Axis]

    @property
    def separates(self) -> bool:
        """Whether the block is a product of a matrix over the rows and one over the columns."""
        return bool(self.columns)

    @property
    def diagonal(self) -> tuple[Operand, ...]:
        """The factors, with i for i' and j for j'."""
        table = dict(zip(self.axes[2:], self.axes[:2], strict=True))
        operands = (*self.rows, *self.columns)
        return tuple((e, tuple(table.get(label, label) for label in labels)) for e, labels in operands)

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

    def with_rows(self, block: Input, factors: tuple[Operand, ...]) -> WeightBlock:
        """The block with factors in the place of H, over its axes and labels that are summed.

        Raises:
            DerivationError: H is not among the factors.
        """
        blocks = [operand for operand in self.rows if operand[0] is block]
        if len(blocks) != 1:
            raise DerivationError("the rows of a weight's block have not that of its pre-activation")
        ((_, labels),) = blocks
        table = dict(zip(block.axes, labels, strict=True))
        rows = tuple((e, tuple(table.get(label, label) for label in own)) for e, own in factors)
        rest = tuple(operand for operand in self.rows if operand[0] is not block)
        return replace(self, rows=(*rows, *rest))

    def with_columns(self, columns: tuple[Operand, ...]) -> WeightBlock:
        """The block with other factors over the columns."""
        return replace(self, columns=columns)


def weight_block(model: Model, layer: LayerParameters, block: Input) -> WeightBlock:
    """The block of a weight from the block of its pre-activation.

    Args:
        model: the model.
        layer: whose weight it is.
        block: H, over the axes of the pre-activation and again.

    Raises:
        DerivationError: the parameters are shared by several layers.
    """
    c = owner_of(model, layer)
    row, column = layer.weight.axes
    seeds = []
    for primes in (0, 1):
        i, j = (replace(a, primes=a.primes + primes) for a in (row, column))
        # ∂W/∂W over the slots of W, then (i, j)
        slots = tuple(a.summed(f"{a.name}.slot") for a in (row, column))
        seeds.append((identity(slots, (i, j)), (i, j)))
    (left, out), (right, other) = (
        (seeded(c.pre_activation, {layer.weight: unit}, axes), axes) for unit, axes in seeds
    )
    below = primed(c.axes)
    product = einsum(
        [(block, (*c.axes, *below)), (left, (*c.axes, *out)), (right, (*below, *other))], (*out, *other)
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
            return WeightBlock(value.operands, (), (*out, *other))
    return WeightBlock(tuple(rows), tuple(columns), (*out, *other))
