"""Kronecker factors of a weight that acts at several places: ``expand`` and ``reduce``.

A weight that acts at R places s of its input has ∂a_si/∂W_i'j = 1[i = i'] x̂_sj, with x̂_s what it reads
there: the input at the place, or the entries of a window. Its block is Σ_ss' H_(si)(s'i') x̂_sj x̂_s'j',
which is no product of a matrix over i, i' and one over j, j'. Two approximations (Eschenhagen et al. 2023):

    expand    B̄ = Σ_s H_(si)(si')       A = 1/R Σ_s x̂_s x̂_sᵀ         of places that have nothing to do with
                                                                      each other
    reduce    B̄ = Σ_ss' H_(si)(s'i')    A = x̄ x̄ᵀ, x̄ = 1/R Σ_s x̂_s    of places with the same derivatives

The bias reads 1 at every place: B̄ is its block, the exact one with ``reduce``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import Literal, TypeAlias

from sifrc.calculus import seeded
from sifrc.errors import DerivationError
from sifrc.ir import Axis, Delta, Einsum, Expr, Input, Operand, Role, primed
from sifrc.ir.build import einsum, identity, scale
from sifrc.ir.normal import expand
from sifrc.ir.selections import joined
from sifrc.model import Constraint, LayerParameters, Model

__all__ = [
    "MEAN_READ",
    "READ",
    "SHARINGS",
    "Reading",
    "Sharing",
    "over_places",
    "reading_of",
    "summed_over_places",
]

Sharing: TypeAlias = Literal["expand", "reduce"]
SHARINGS: tuple[Sharing, ...] = ("expand", "reduce")

READ, MEAN_READ = "x̂", "x̄"
"""Families of what a weight reads at each place, and of its mean over them."""


@dataclass(frozen=True)
class Reading:
    """What a weight reads: ∂a_si/∂W_i'j = 1[i = i'] x̂_sj.

    Args:
        layer: the layer that owns the weight.
        c: the constraint that uses it.
        row: the axis of the weight for i.
        columns: its other axes, which make j together.
        value: x̂, over the places of the constraint and the columns.
    """

    layer: LayerParameters
    c: Constraint
    row: Axis
    columns: tuple[Axis, ...]
    value: Expr

    @property
    def places(self) -> tuple[Axis, ...]:
        """The places s."""
        return self.c.places

    @property
    def count(self) -> int:
        """R, how many places there are."""
        return prod(axis.entries for axis in self.places)

    @property
    def column(self) -> Axis:
        """The axis of j: that of the columns, or one for all of them."""
        if len(self.columns) == 1:
            return self.columns[0]
        return Axis(f"{self.layer.layer}.read", prod(axis.entries for axis in self.columns))

    def joining(self, column: Axis, columns: tuple[Axis, ...]) -> tuple[Operand, ...]:
        """Factors that say of which columns j is made, under any labels; none where it is the only one."""
        if len(columns) == 1:
            return ()
        return ((joined(tuple(axis.entries for axis in columns)), (column, *columns)),)

    def matrix(self, tensor: Expr) -> Expr:
        """A tensor shaped like the weight, over (i, j)."""
        parts = self.joining(self.column, self.columns)
        return einsum([(tensor, self.layer.weight.axes), *parts], self.axes)

    def tensor(self, matrix: Expr) -> Expr:
        """A matrix over (i, j), shaped like the weight."""
        parts = self.joining(self.column, self.columns)
        return einsum([(matrix, self.axes), *parts], self.layer.weight.axes)

    def factors(self, mean: Input, moment: Input) -> tuple[Operand, ...]:
        """The block over (i, j, i', j') as a product.

        Args:
            mean: B̄, over (i, i').
            moment: A over (j, j'), or m̄ over (j,), which is there twice.
        """
        (i, j), (k, m) = self.axes, primed(self.axes)
        moments = [(moment, (j, m))] if len(moment.axes) == 2 else [(moment, (j,)), (moment, (m,))]
        return ((mean, (i, k)), *moments)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """(i, j), of the weight as a matrix."""
        return self.row, self.column

    @cached_property
    def read(self) -> Expr:
        """x̂ over (s, j): a state as it is, or a symbol of its own for windows of it."""
        plain = isinstance(self.value, Einsum) and len(self.value.operands) == 1 and len(self.columns) == 1
        if plain or isinstance(self.value, Input):
            return self.value
        return Input(READ, self.layer.index, (*self.places, self.column), Role.STATE)

    @property
    def joined(self) -> Expr:
        """x̂ over (s, j), from the state that is read."""
        parts = self.joining(self.column, self.columns)
        return einsum([(self.value, (*self.places, *self.columns)), *parts], (*self.places, self.column))

    def mean(self) -> Expr:
        """x̄, the mean of x̂ over the places."""
        return scale(Fraction(1, self.count), einsum([(self.read, self.read.axes)], (self.column,)))

    def mean_symbol(self) -> Input:
        """The symbol of x̄."""
        return Input(MEAN_READ, self.layer.index, (self.column,), Role.STATE)

    def second_moment(self, sharing: Sharing) -> Expr:
        """A of one sample, over (j, j')."""
        axes = (self.column, self.column.primed)
        if sharing == "reduce":
            return einsum([(self.mean_symbol(), (axis,)) for axis in axes], axes)
        product = einsum([(self.read, (*self.places, axis)) for axis in axes], axes)
        return scale(Fraction(1, self.count), product)


def over_places(rows: Sequence[Operand], c: Constraint, sharing: Sharing, axes: tuple[Axis, ...]) -> Expr:
    """B̄ over (i, i') from factors of H over the axes of a constraint and the next ones.

    Args:
        rows: the factors.
        c: the constraint.
        sharing: over which pairs of places is summed: equal ones, or all.
        axes: of the result.
    """
    table = dict(zip((c.row, c.row.primed), axes, strict=True))
    if sharing == "expand":
        table |= {axis.primed: axis for axis in c.places}
    return einsum([(e, tuple(table.get(label, label) for label in labels)) for e, labels in rows], axes)


def summed_over_places(
    rows: Sequence[Operand], c: Constraint
) -> tuple[tuple[Input, Expr] | None, tuple[Operand, ...]]:
    """Factors of H, and in the place of a symbol that is there for both indices its sum over the places.

    Args:
        rows: factors over the axes of the constraint and the next ones.
        c: the constraint.

    Returns:
        The symbol of the sum with its value, if there is one, and the factors with it.
    """
    places = {*c.places, *primed(c.places)}
    touching = [(e, labels) for e, labels in rows if set(labels) & places]
    factor, labels = touching[0]
    if len(touching) != 2 or touching[1][0] is not factor or not isinstance(factor, Input):
        return None, tuple(rows)
    kept = [n for n, label in enumerate(labels) if label not in places]
    slots = tuple(factor.slots[n] for n in kept)
    symbol = Input(f"{factor.family}∑", factor.index, slots, factor.role)
    value = einsum([(factor, factor.slots)], slots)
    return (symbol, value), tuple(
        (symbol, tuple(own[n] for n in kept)) if e is factor else (e, own) for e, own in rows
    )


def reading_of(model: Model, layer: LayerParameters, c: Constraint) -> Reading:
    """What the weight of a layer reads, from the derivative of its pre-activation.

    Args:
        model: the model.
        layer: whose weight it is.
        c: the constraint that uses the weight.

    Raises:
        DerivationError: not every row of the weight reads the same.
    """
    own = layer.weight.axes
    slots = tuple(a.summed(f"{a.name}.slot") for a in own)
    moved = expand(seeded(c.pre_activation, {layer.weight: identity(slots, own)}, own))
    operands = moved.operands if isinstance(moved, Einsum) else ()
    for number, (factor, labels) in enumerate(operands):
        if not (isinstance(factor, Delta) and c.row in labels and set(labels) & set(own)):
            continue
        (row,) = set(labels) - {c.row}
        rest = operands[:number] + operands[number + 1 :]
        used = {label for _, own_labels in rest for label in own_labels}
        columns = tuple(axis for axis in own if axis != row)
        if row in used or c.row in used or not columns:
            break
        return Reading(layer, c, row, columns, einsum(rest, (*c.places, *columns)))
    layers = {one.name: one for one in model.spec.layers}
    name = layer.layer.partition(".")[0]
    raise DerivationError(
        f"the weight of layer '{layer.layer}' has no Kronecker factors: not every row of it reads the same",
        location=layers[name].location if name in layers else None,
        hint="block_vector_product with moment='exact', diagonal and trace are exact there",
    )
