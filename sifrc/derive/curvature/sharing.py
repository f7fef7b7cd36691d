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
from sifrc.ir import Affine, Axis, Delta, Einsum, Expr, Input, Operand, Role, primed
from sifrc.ir.build import einsum, identity, scale
from sifrc.ir.normal import expand
from sifrc.ir.selections import joined
from sifrc.ir.traverse import inputs_of
from sifrc.model import Constraint, LayerParameters, Model

__all__ = [
    "DIAGONAL_MOMENT",
    "MEAN_READ",
    "READ",
    "SHARINGS",
    "Moment",
    "Reading",
    "Sharing",
    "no_factors",
    "over_places",
    "reading_of",
    "summed_over_places",
]

Moment: TypeAlias = Literal["second", "mean"]
Sharing: TypeAlias = Literal["expand", "reduce"]
SHARINGS: tuple[Sharing, ...] = ("expand", "reduce")

READ, MEAN_READ = "x̂", "x̄"
"""Families of what a weight reads at each place, and of its mean over them."""
DIAGONAL_MOMENT = "Aᵈ"
"""Family of second moments that are diagonal, as vectors."""


@dataclass(frozen=True)
class Reading:
    """What a weight reads: ∂a_si/∂W_i'j = 1[i = i'] x̂_sj, with x̂ of the group of i where rows are in groups.

    Args:
        layer: the layer that owns the weight.
        c: the constraint that uses it.
        row: the axis of i: of the weight, or for the rows of a group.
        columns: the other axes of the weight, which make j together.
        value: x̂, over the groups if there are some, the places of the constraint and the columns.
        group: the axis of the groups, if rows of several read different entries.
        rows: the axis of the weight that the groups and their rows make.
    """

    layer: LayerParameters
    c: Constraint
    row: Axis
    columns: tuple[Axis, ...]
    value: Expr
    group: Axis | None
    rows: Axis

    @property
    def places(self) -> tuple[Axis, ...]:
        """The places s."""
        return self.c.places

    @property
    def groups(self) -> tuple[Axis, ...]:
        """The axis of the groups; none where all rows read the same."""
        return () if self.group is None else (self.group,)

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

    @cached_property
    def of_classes(self) -> bool:
        """Whether it reads classes, as vectors with one entry 1: then x̂_sj x̂_sj' is zero for j ≠ j'."""
        symbol = self.value.operands[0][0] if isinstance(self.value, Einsum) else self.value
        return self._plain and isinstance(symbol, Input) and symbol.role is Role.CLASS

    def shared(self, sharing: Sharing) -> Sharing:
        """How its places are shared: those of classes as with ``expand``, for which A is diagonal."""
        return "expand" if self.of_classes else sharing

    def joining(self, column: Axis, columns: tuple[Axis, ...]) -> tuple[Operand, ...]:
        """Factors that say of which columns j is made, under any labels; none where it is the only one."""
        if len(columns) == 1:
            return ()
        return ((joined(tuple(axis.entries for axis in columns)), (column, *columns)),)

    def splitting(self, rows: Axis, group: Axis, row: Axis) -> tuple[Operand, ...]:
        """The factor that says of which group and row of it a row is, under any labels."""
        return ((joined((group.entries, row.entries)), (rows, group, row)),)

    def of_rows(self, rows: Axis) -> tuple[Operand, ...]:
        """The same for a row and the next one, of one group; none where there are no groups."""
        if self.group is None:
            return ()
        pairs = ((rows, self.row), (rows.primed, self.row.primed))
        return tuple(part for whole, row in pairs for part in self.splitting(whole, self.group, row))

    @property
    def _parts(self) -> tuple[Operand, ...]:
        """Factors between the weight and the same as a matrix, or as one for each group."""
        parts = self.joining(self.column, self.columns)
        return parts if self.group is None else (*parts, *self.splitting(self.rows, self.group, self.row))

    def matrix(self, tensor: Expr) -> Expr:
        """A tensor shaped like the weight, over (i, j), or (group, i, j)."""
        return einsum([(tensor, self.layer.weight.axes), *self._parts], self.axes)

    def tensor(self, matrix: Expr) -> Expr:
        """A matrix over (i, j), or one for each group, shaped like the weight."""
        return einsum([(matrix, self.axes), *self._parts], self.layer.weight.axes)

    def factors(self, mean: Input, moment: Input, of: Moment) -> tuple[Operand, ...]:
        """The block over (i, j, i', j') as a product, for each group.

        Args:
            mean: B̄, over (i, i').
            moment: A over (j, j') or its diagonal over (j,), or m̄ over (j,), which is there twice.
            of: which of both.
        """
        i, j = self.axes[-2:]
        k, m = i.primed, j.primed
        rows: Operand = (mean, (*self.groups, i, k))
        if of == "mean":
            return rows, (moment, (*self.groups, j)), (moment, (*self.groups, m))
        if self.of_classes:
            return rows, (moment, (j,)), (Delta(j, m), (j, m))
        return rows, (moment, (*self.groups, j, m))

    def of_bias(self, mean: Input, row: Axis) -> tuple[Operand, ...]:
        """The block of a bias over a row and the next one, from B̄."""
        own = row if self.group is None else self.row
        return (mean, (*self.groups, own, own.primed)), *self.of_rows(row)

    def block(self, mean: Input, moment: Input, of: Moment) -> Expr:
        """The same over :attr:`axes` and again, zero between groups."""
        axes = (*self.axes, *primed(self.axes))
        apart = ((Delta(axis, axis.primed), (axis, axis.primed)) for axis in self.groups)
        return einsum([*self.factors(mean, moment, of), *apart], axes)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """(i, j), of the weight as a matrix; (group, i, j) where there is one for each group."""
        return (*self.groups, self.row, self.column)

    @property
    def _plain(self) -> bool:
        """Whether x̂ is a state as it is."""
        alone = isinstance(self.value, Einsum) and len(self.value.operands) == 1
        return len(self.columns) == 1 and self.group is None and (alone or isinstance(self.value, Input))

    @cached_property
    def read(self) -> Expr:
        """x̂ over (s, j): a state as it is, or a symbol of its own for windows of it."""
        if self._plain or isinstance(self.value, Input):
            return self.value
        return Input(READ, self.layer.index, (*self.groups, *self.places, self.column), Role.STATE)

    @property
    def joined(self) -> Expr:
        """x̂ over (s, j), from the state that is read."""
        parts, before = self.joining(self.column, self.columns), (*self.groups, *self.places)
        return einsum([(self.value, (*before, *self.columns)), *parts], (*before, self.column))

    def mean(self) -> Expr:
        """x̄, the mean of x̂ over the places."""
        value = einsum([(self.read, self.read.axes)], (*self.groups, self.column))
        return scale(Fraction(1, self.count), value)

    def mean_symbol(self) -> Input:
        """The symbol of x̄."""
        return Input(MEAN_READ, self.layer.index, (*self.groups, self.column), Role.STATE)

    def second_moment(self, sharing: Sharing) -> Expr:
        """A of one sample, over (j, j'), for each group; its diagonal over (j,) where classes are read."""
        if self.of_classes:
            return self.mean()
        ends = (self.column, self.column.primed)
        axes = (*self.groups, *ends)
        if sharing == "reduce":
            return einsum([(self.mean_symbol(), (*self.groups, axis)) for axis in ends], axes)
        product = einsum([(self.read, (*self.groups, *self.places, axis)) for axis in ends], axes)
        return scale(Fraction(1, self.count), product)


def over_places(
    rows: Sequence[Operand],
    c: Constraint,
    sharing: Sharing,
    axes: tuple[Axis, ...],
    reading: Reading | None = None,
) -> Expr:
    """B̄ over (i, i') from factors of H over the axes of a constraint and the next ones.

    Args:
        rows: the factors.
        c: the constraint.
        sharing: over which pairs of places is summed: equal ones, or all.
        axes: of the result; those of groups come first.
        reading: what the weight reads, where its rows may be in groups: of pairs in one the block is kept.
    """
    ends, whole = axes[-2:], (c.row, c.row.primed)
    operands = list(rows)
    table: dict[Axis, Axis] = {}
    if reading is None or reading.group is None:
        table |= dict(zip(whole, ends, strict=True))
    else:
        operands += (
            part
            for row, end in zip(whole, ends, strict=True)
            for part in reading.splitting(row, axes[0], end)
        )
    if sharing == "expand":
        table |= {axis.primed: axis for axis in c.places}
    return einsum([(e, tuple(table.get(label, label) for label in labels)) for e, labels in operands], axes)


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
        DerivationError: it multiplies no state along its rows, or rows of one group do not read the same.
    """
    own = layer.weight.axes
    slots = tuple(a.summed(f"{a.name}.slot") for a in own)
    moved = expand(seeded(c.pre_activation, {layer.weight: identity(slots, own)}, own))
    what = f"the weight of layer '{layer.layer}'"
    operands = moved.operands if isinstance(moved, Einsum) else ()
    for number, (factor, labels) in enumerate(operands):
        if not (isinstance(factor, Delta) and c.row in labels and set(labels) & set(own)):
            continue
        (row,) = set(labels) - {c.row}
        columns = tuple(axis for axis in own if axis != row)
        group, rest = _groups(operands[:number] + operands[number + 1 :], c.row)
        if not columns or not inputs_of(*(e for e, _ in rest)):
            break
        used = {label for _, own_labels in rest for label in own_labels}
        if row in used or c.row in used:
            raise no_factors(model, what, layer, "not every row of it reads the same")
        if group is None:
            return Reading(layer, c, row, columns, einsum(rest, (*c.places, *columns)), None, row)
        groups = Axis(f"{layer.layer}.group", group.entries)
        in_group = Axis(f"{layer.layer}.row", row.entries // group.entries)
        rest = tuple((e, tuple(groups if a == group else a for a in found)) for e, found in rest)
        value = einsum(rest, (groups, *c.places, *columns))
        return Reading(layer, c, in_group, columns, value, groups, row)
    raise no_factors(model, what, layer, "it is no matrix whose rows multiply what they read")


def _groups(operands: tuple[Operand, ...], row: Axis) -> tuple[Axis | None, tuple[Operand, ...]]:
    """The label of the groups of rows, and the other factors, where rows enter by their group alone."""
    touching = [operand for operand in operands if row in operand[1]]
    if len(touching) == 1:
        ((factor, labels),) = touching
        rest = tuple(operand for operand in operands if operand is not touching[0])
        elsewhere = {label for _, found in rest for label in found}
        if isinstance(factor, Affine) and labels[0] == row and factor is joined(factor.sizes[1:]):
            inside = [label for label in labels[1:] if label not in elsewhere]
            if len(labels) == 3 and inside == [labels[2]]:
                return labels[1], rest
    return None, operands


def no_factors(model: Model, what: str, layer: LayerParameters, reason: str) -> DerivationError:
    """The error for a parameter without Kronecker factors.

    Args:
        model: the model.
        what: the parameter.
        layer: that owns it.
        reason: why it has none.
    """
    layers = {one.name: one for one in model.spec.layers}
    name = layer.layer.partition(".")[0]
    return DerivationError(
        f"{what} has no Kronecker factors: {reason}",
        location=layers[name].location if name in layers else None,
        hint="others: diagonal takes the diagonal of its block; block_vector_product with moment='exact', "
        "diagonal and trace are exact there",
    )
