"""Blocks of parameters: from the block H of a pre-activation a = W x + β to those of W and β.

The parameters of a layer reach the objective through one pre-activation, so that their second derivatives
are those of a taken along da/dW and da/dβ. What comes out is read off the derived expression: H ⊗ x xᵀ for
W, EA-CG(4c), and H itself for β. Its mean over a batch is the block of the batch. To average its factors over
the rows (i, i') and over the columns (j, j') apart is an approximation, EA-CG(5), and so it is for those over
the columns one by one, EA-CG(11b). Where a layer acts at several places s, the block of W does not separate
so, Σ_ss' H_(si)(s'i') x_sj x_s'j', and that of β is Σ_ss' H_(si)(s'i'); factors that stand for these have
:mod:`~sifrc.derive.curvature.sharing`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from sifrc.calculus import seeded
from sifrc.derive.curvature.kinds import Kind
from sifrc.derive.curvature.sharing import Moment, Reading
from sifrc.errors import DerivationError
from sifrc.ir import Axis, Einsum, Expr, Input, Operand, primed
from sifrc.ir.build import einsum, identity, rename
from sifrc.ir.normal import expand
from sifrc.ir.traverse import inputs_of
from sifrc.model import Constraint, LayerParameters, Model, Parameter

__all__ = ["LARGEST", "ParameterBlock", "check_order", "check_sizes", "owner_of", "parameter_block"]

LARGEST = 1024
"""Entries of a state with several axes that has matrices over it: a million numbers, for each sample."""

_EXACT = "hessian_vector_product, gauss_newton_vector_product and summary are exact there"
"""What there is without blocks."""


def owner_of(model: Model, layer: LayerParameters) -> Constraint:
    """The constraint that uses the parameters of a layer; of a tensor by itself, the one that reads it.

    Raises:
        DerivationError: several do; the block of a shared weight has cross terms between its uses.
    """
    users = [c for c in model.constraints if c.parameters is layer]
    if not users:
        users = [
            c for c in model.constraints if not set(layer.symbols).isdisjoint(inputs_of(c.pre_activation))
        ]
    if len(users) == 1:
        return users[0]
    hint = "hessian_vector_product is exact for shared parameters, and layers without share have blocks"
    if not users:
        raise DerivationError(f"nothing reads the parameters of layer '{layer.layer}'", hint=hint)
    alone = users[0].parameters is not layer
    others = f"'{users[1].name}'" + (" and others" if len(users) > 2 else "")
    uses = f"read by '{users[0].name}' and {others}" if alone else f"shared with {others}"
    raise DerivationError(
        f"the parameters of layer '{layer.layer}' are {uses}: their block has cross terms between the uses "
        "and is not a product of one layer's factors",
        hint=hint,
    )


def check_order(model: Model) -> None:
    """Refuse blocks where a state reads itself, or one that is made after it, a step before.

    Raises:
        DerivationError: a layer is recurrent.
    """
    layers = {layer.name: layer for layer in model.spec.layers}
    found = next((c for c in model.constraints if any(index >= c.index for index in c.sources)), None)
    if found is None:
        return
    layer = layers[found.layers[0]]
    raise DerivationError(
        f"curvature blocks go from state to state, and {layer.kind} layer '{layer.name}' reads its own "
        "states a step before",
        location=layer.location,
        hint=_EXACT,
    )


def check_sizes(model: Model, kind: Kind) -> None:
    """Refuse matrices over a state of several axes, and scores of each of its places, where they are many.

    Raises:
        DerivationError: a state has more entries than ``LARGEST``, or there are more scores.
    """
    if kind.form in ("outputs", "class_scores"):
        count = prod(axis.entries for axis in model.output.axes)
        if len(model.output.axes) > 1 and count > LARGEST:
            raise DerivationError(
                f"kind '{kind.name}' goes back from each of the {count} entries of the output, and takes at "
                f"most {LARGEST} of an output with several axes",
                location=model.spec.loss.location,
                hint="sampled_fisher and empirical_fisher go back once, whatever the size",
            )
    if kind.form not in ("samples", "batch"):
        return
    layers = {layer.name: layer for layer in model.spec.layers}
    for c in model.constraints:
        entries = prod(axis.entries for axis in c.axes)
        if len(c.axes) > 1 and entries > LARGEST:
            sizes = " x ".join(str(axis.size) for axis in c.axes)
            of = "the batch" if kind.form == "batch" else "every sample"
            layer = layers.get(c.layers[0].partition(".")[0])
            raise DerivationError(
                f"kind '{kind.name}' has a matrix over the state of layer '{c.layers[0]}' for {of}, "
                f"{entries} x {entries} for its {sizes} entries; it takes states of at most {LARGEST}",
                location=layer.location if layer else None,
                hint="ggn, fisher, sampled_fisher and empirical_fisher go back as vectors, whatever the size",
            )


@dataclass(frozen=True)
class ParameterBlock:
    """The block of a parameter as a product, for one sample.

    Args:
        parameter: whose block it is.
        c: the constraint that uses the parameter.
        rows: factors over i, i' of the rows; all of them where they couple rows and columns.
        columns: factors over the further axes j, j'; none where they couple rows and columns.
        row: the axis of the parameter that its pre-activation's rows are, where the block is that of the
            pre-activation on this axis; None elsewhere.
    """

    parameter: Parameter
    c: Constraint
    rows: tuple[Operand, ...]
    columns: tuple[Operand, ...]
    row: Axis | None

    @property
    def own(self) -> tuple[Axis, ...]:
        """The axes of the parameter, (i,) or (i, j); those of the classes may come first, (j, i)."""
        return self.parameter.symbol.axes

    @property
    def other(self) -> tuple[Axis, ...]:
        """The same again, (i',) or (i', j')."""
        return primed(self.own)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Of the block."""
        return (*self.own, *self.other)

    @property
    def own_columns(self) -> tuple[Axis, ...]:
        """The axes of the parameter but that of the rows."""
        return tuple(axis for axis in self.own if axis != self.row)

    @property
    def of_pre_activation(self) -> bool:
        """Whether it is the block of the pre-activation, summed over its places, as that of a bias."""
        return self.row is not None and not self.own_columns

    @property
    def separates(self) -> bool:
        """Whether the block is a product of a matrix over the rows and one over the columns."""
        return bool(self.columns)

    @property
    def diagonal(self) -> tuple[Operand, ...]:
        """The factors, with i for i' and j for j'."""
        table = dict(zip(self.other, self.own, strict=True))
        operands = (*self.rows, *self.columns)
        return tuple((e, tuple(table.get(label, label) for label in labels)) for e, labels in operands)

    @property
    def value(self) -> Expr:
        """The block."""
        return einsum([*self.rows, *self.columns], self.axes)

    @property
    def second_moment(self) -> Expr:
        """The product of the factors over the columns, over (j, j')."""
        return einsum(self.columns, (*self.own_columns, *primed(self.own_columns)))

    def times(self, vector: Expr) -> Expr:
        """The block times a tensor shaped like the parameter."""
        return einsum([*self.rows, *self.columns, (vector, self.other)], self.own)

    def column_factors(self) -> tuple[tuple[Expr, Axis], ...]:
        """The factors over the columns one by one, each over one axis.

        Raises:
            DerivationError: a factor couples j and j'.
        """
        (column,) = self.own_columns
        other = column.primed
        found: list[tuple[Expr, Axis]] = []
        for expr, labels in self.columns:
            if labels not in ((column,), (other,)):
                raise DerivationError("the columns of a parameter's block do not separate into vectors")
            found.append((rename(expr, (column,)), labels[0]))
        return tuple(found)

    def with_rows(self, block: Input, factors: tuple[Operand, ...]) -> ParameterBlock:
        """The block with factors in the place of H, over its axes and labels that are summed.

        Raises:
            DerivationError: H is not among the factors.
        """
        blocks = [operand for operand in self.rows if operand[0] is block]
        if len(blocks) != 1:
            raise DerivationError("the rows of a parameter's block have not that of its pre-activation")
        ((_, labels),) = blocks
        table = dict(zip(block.axes, labels, strict=True))
        rows = tuple((e, tuple(table.get(label, label) for label in own)) for e, own in factors)
        rest = tuple(operand for operand in self.rows if operand[0] is not block)
        return replace(self, rows=(*rows, *rest))

    def with_columns(self, columns: tuple[Operand, ...]) -> ParameterBlock:
        """The block with other factors over the columns."""
        return replace(self, columns=columns)

    def at_places(self, reading: Reading, mean: Input, moment: Input, of: Moment) -> ParameterBlock:
        """The block with Kronecker factors in its place.

        Args:
            reading: what the weight reads.
            mean, moment, of: as :meth:`Reading.factors` takes them.
        """
        row, *columns = reading.factors(mean, moment, of)
        for j, own in ((reading.column, reading.columns), (reading.column.primed, primed(reading.columns))):
            columns += reading.joining(j, own)
        columns += reading.of_rows(reading.rows)
        return replace(self, rows=(row,), columns=tuple(columns))

    def of_rows(self, reading: Reading, mean: Input) -> ParameterBlock:
        """The block of a bias with B̄ in its place, over the pairs of rows that it has."""
        return replace(self, rows=reading.of_bias(mean, self.own[0]))


def parameter_block(
    model: Model, layer: LayerParameters, parameter: Parameter, block: Input
) -> ParameterBlock:
    """The block of a parameter from the block of its pre-activation.

    Args:
        model: the model.
        layer: the layer that owns the parameter.
        parameter: whose block it is.
        block: H, over the axes of the pre-activation and again.

    Raises:
        DerivationError: the parameters are shared by several layers, or one is not linear in them.
    """
    c = owner_of(model, layer)
    own = parameter.symbol.axes
    other, below = primed(own), primed(c.axes)
    # ∂W/∂W over the slots of W, then (i, j)
    slots = tuple(a.summed(f"{a.name}.slot") for a in own)
    left, right = (
        seeded(c.pre_activation, {parameter.symbol: identity(slots, axes)}, axes) for axes in (own, other)
    )
    if parameter.symbol in inputs_of(left):
        raise DerivationError(
            f"layer '{c.layers[0]}' is not linear in '{parameter.name}': its block is not that of a state",
            hint=_EXACT,
        )
    product = einsum(
        [(block, (*c.axes, *below)), (left, (*c.axes, *own)), (right, (*below, *other))], (*own, *other)
    )
    value = expand(product)
    operands = (
        ((block, block.axes),) if value is block else value.operands if isinstance(value, Einsum) else ()
    )
    if not operands:
        raise DerivationError(f"the block of '{parameter.name}' is not one product", hint=_EXACT)
    row = _row_of(c, own, dict(operands)[block])
    if row is None:
        return ParameterBlock(parameter, c, operands, (), None)
    rows: list[Operand] = []
    columns: list[Operand] = []
    on_rows = {row, row.primed}
    for operand in operands:
        labels = set(operand[1])
        if labels <= on_rows:
            rows.append(operand)
        elif labels and labels <= {*own, *other} - on_rows:
            columns.append(operand)
        else:
            alone = len(operands) == 1 and own == (row,)
            return ParameterBlock(parameter, c, operands, (), row if alone else None)
    # Factors besides H over the rows, or columns without factors, make another matrix than H of the rows.
    if len(rows) != 1 or bool(columns) == (own == (row,)):
        return ParameterBlock(parameter, c, operands, (), None)
    return ParameterBlock(parameter, c, tuple(rows), tuple(columns), row)


def _row_of(c: Constraint, own: tuple[Axis, ...], labels: tuple[Axis, ...]) -> Axis | None:
    """The axis of a parameter that the rows of H and of H' are, if one is."""
    table = dict(zip((*c.axes, *primed(c.axes)), labels, strict=True))
    row, other = table[c.row], table[c.row.primed]
    return row if row in own and other == row.primed else None
