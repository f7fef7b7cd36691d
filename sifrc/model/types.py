"""The model: a network as a system of constraints, and what is minimised on it.

Everything is for one sample. States are numbered in topological order: x_0 is the first input of the network
and x_k = F_k(a_k) the state of constraint k; further inputs are data d_1, d_2, … A dense layer and the
activation after it are one constraint unless something else reads the pre-activation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

from sifrc.ir import Axis, Expr, Input, Role
from sifrc.ir.build import einsum, scale, total
from sifrc.model.draws import Draw
from sifrc.model.parameters import Buffer, LayerParameters, Parameter
from sifrc.model.sample_loss import Normalization
from sifrc.model.tables import Table
from sifrc.scalar.function import ScalarFunction
from sifrc.spec.types import Spec

__all__ = ["Constraint", "Model"]


@dataclass(frozen=True)
class Constraint:
    """x_k = F_k(a_k): one state as a function of earlier states and of parameters.

    It may also read itself or later states, at steps before (or after) along one axis.

    Args:
        index: k.
        name: name of the state: of the last spec layer in ``layers``.
        layers: spec layers that it fuses, in order.
        state: x[k].
        sources: indices of the states that a_k reads.
        pre_activation: a_k.
        activation: F_k, or None where it is the identity up to a constant.
        value: F_k(a_k).
        parameters: of the layer in it that has some, or None.
        row: the axis of x_k that the rows of its weight make; the others are places, where they do so each. A
            number has none: an axis of one entry stands for it.
        inside: whether it is a state inside of a layer that has several: users do not see it.
        evaluated: a_k where the network is evaluated, if that is another than in training; x_k itself where
            F_k is None.
    """

    index: int
    name: str
    layers: tuple[str, ...]
    state: Input
    sources: tuple[int, ...]
    pre_activation: Expr
    activation: ScalarFunction | None
    value: Expr
    parameters: LayerParameters | None
    row: Axis
    inside: bool = False
    evaluated: Expr | None = None

    @property
    def of_batch(self) -> bool:
        """Whether it is one state of the whole batch, without a value per sample."""
        return self.state.role is Role.STATISTIC

    def symbol(self, family: str, role: Role) -> Input:
        """A quantity of the state: its adjoint, its tangent; one of the batch where the state is."""
        return Input(family, self.index, self.axes, Role.STATISTIC if self.of_batch else role)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of the state."""
        return self.state.axes

    @property
    def places(self) -> tuple[Axis, ...]:
        """All of them but that of its rows."""
        return tuple(axis for axis in self.axes if axis != self.row)


@dataclass(frozen=True)
class Model:
    """Constraints and objective of one sample.

    Args:
        spec: what it was built from.
        input: x[0], the first input of the network.
        tables: fixed tables that expressions read.
        others: those after it: data d[1], d[2], …, in the expressions that read them.
        draws: what layers draw for each sample: data too, numbered after the inputs.
        target: t, over the axis of the output.
        constraints: k = 1..n in topological order; the last one is the output.
        parameters: of the dense layers that own them, in order.
        loss: ℓ(x_n, t).
        regularized: state index k -> λ[k], for the states with regularisation.
        regularizer: R(x) = ½ Σ λ_k ⟨x_k, x_k⟩.
        lambda_values: state index k -> value of λ_k, where it is a number of the spec.
        buffers: what layers keep besides parameters, in order.
        penalties: parameter, λ of it, and its value, for the parameters with regularisation.
        normalization: what a mean divides by, where not all targets count alike; the loss has its factor.
        loss_factor: λ[n] where the spec asks for MK(67, 68): a value per sample that multiplies the loss.
    """

    spec: Spec
    input: Input
    target: Input
    constraints: tuple[Constraint, ...]
    parameters: tuple[LayerParameters, ...]
    loss: Expr
    regularized: tuple[tuple[int, Input], ...]
    regularizer: Expr
    lambda_values: tuple[tuple[int, float], ...]
    buffers: tuple[Buffer, ...] = ()
    normalization: Normalization | None = None
    loss_factor: Input | None = None
    others: tuple[Input, ...] = ()
    tables: tuple[Table, ...] = ()
    draws: tuple[Draw, ...] = ()
    penalties: tuple[tuple[Parameter, Input, float], ...] = ()

    @property
    def penalty(self) -> Expr:
        """½ Σ λ ⟨θ, θ⟩ over the parameters with regularisation."""
        return self.penalty_of([parameter.symbol for parameter, _, _ in self.penalties])

    def penalty_of(self, symbols: Collection[Input]) -> Expr:
        """The part of it of some parameters."""
        squares = [
            einsum([(factor, ()), (own.symbol, own.symbol.axes), (own.symbol, own.symbol.axes)], ())
            for own, factor, _ in self.penalties
            if own.symbol in symbols
        ]
        return scale(Fraction(1, 2), total(squares, ()))

    @property
    def data_loss(self) -> Expr:
        """What the objective has of the loss: ℓ, or λ_n ℓ."""
        if self.loss_factor is None:
            return self.loss
        return einsum([(self.loss_factor, ()), (self.loss, ())], ())

    @property
    def tensors(self) -> tuple[Parameter, ...]:
        """All parameters, layer by layer."""
        return tuple(parameter for owned in self.parameters for parameter in owned.members)

    @property
    def depth(self) -> int:
        """n, the number of constraints."""
        return len(self.constraints)

    @property
    def output(self) -> Constraint:
        """The last constraint."""
        return self.constraints[-1]

    @property
    def couples(self) -> bool:
        """Whether samples of a batch act on each other: by a statistic of all of them."""
        return self.normalization is not None or any(c.of_batch for c in self.constraints)

    @property
    def separates(self) -> bool:
        """Whether every weight acts at one place of its input: its gradient is a product of vectors."""
        return all(len(c.axes) == 1 for c in self.constraints if c.parameters is not None)

    @property
    def output_places(self) -> tuple[Axis, ...]:
        """The axes of the output but that of the vectors that the loss is of."""
        return self.spec.loss.of_places(self.output.axes)

    @property
    def output_axis(self) -> Axis:
        """The axis of the output along which there are the vectors that the loss is of."""
        return self.output.axes[self.spec.loss.axis]

    def state(self, index: int) -> Input:
        """x[index]; x[0] is the network input."""
        return self.input if index == 0 else self.constraints[index - 1].state

    @property
    def is_chain(self) -> bool:
        """Whether every constraint is a dense layer on the state before it, with parameters of its own."""
        owned = [c.parameters.index for c in self.constraints if c.parameters is not None]
        apart = len(owned) == len(set(owned)) == self.depth
        return apart and all(c.sources == (c.index - 1,) for c in self.constraints)
