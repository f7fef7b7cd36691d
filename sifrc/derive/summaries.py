"""Summaries of the derivatives along a direction, group by group of the parameters: GN3(6, 9).

For a direction u and a partition of the parameters into groups, u_s is u within group s and zero elsewhere.
With a_k and y_k in it, the Lagrangian is

    L = ℓ_R(x) + Σ_k ⟨x_k − F_k(a_k), b_k⟩ + Σ_k ⟨a_k − (W_k x_{k−1} + β_k), y_k⟩

and stationary in x, a, b and y. So at fixed multipliers, along the tangents of every group,

    ḡ_s   = dL[u_s]                     the part that is explicit in the parameters
    H̄_st  = d²L[z_s, z_t]               z = (ẋ, ȧ, u): no second backward pass
    D_s   = d³L along x + tẋ + ½t²ẍ     second-order tangents ẍ, ä, forward too
    T_stv = d³L[z_s, z_t, z_v]          z = (ẋ, ȧ, u, ḃ, ẏ): the 2n+1 rule

Everything is derived for one direction (two, three) by differentials of L and of the equations of the
first order, and then taken along the groups: a group's tangent is u_k times 1 at the position of the
group that owns the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property

from sifrc.calculus import jvp
from sifrc.derive import moves
from sifrc.derive.groups import MARK, along_groups, group_axis, of_group
from sifrc.derive.lagrangian import FirstOrder
from sifrc.derive.probabilities import probabilities_of
from sifrc.derive.scaling import Scaling
from sifrc.derive.shaped import DIRECTION
from sifrc.derive.system import Equation, System, by_layer, needed
from sifrc.ir import Expr, Input, Role
from sifrc.ir.along import spread
from sifrc.ir.build import einsum, inner, subtract, total, zero
from sifrc.ir.normal import Relation, condense, expand, reduce, relation
from sifrc.model import Constraint, Model
from sifrc.model.build import state_regularizer
from sifrc.model.partition import Partition

__all__ = ["Summaries"]


class Summaries:
    """Equations of the summaries of one model.

    Args:
        first: the first-order system.
        partition: of the parameters.
    """

    def __init__(self, first: FirstOrder, partition: Partition) -> None:
        self.first = first
        self.model: Model = first.model
        self.partition = partition
        self.groups = group_axis(partition.size)
        self._moving: dict[tuple[int, bool], Mapping[Input, Expr]] = {}

    # -- systems

    @cached_property
    def moves(self) -> System:
        """N_k x_{k−1}: the move of the pre-activations with the weights, of one group each."""
        equations = [
            Equation(symbol, value, c.index, "definition")
            for c in self.model.constraints
            for symbol, value in self._moves(c)
        ]
        return System("summary_moves", "Moves of the pre-activations with the weights", tuple(equations))

    @cached_property
    def pulls(self) -> System:
        """N_kᵀ y_k: what the moves pull back to the states below."""
        equations = [
            Equation(symbol, value, c.index, "definition")
            for c in self.model.constraints
            for symbol, value in self._pulls(c)
        ]
        return System("summary_pulls", "Adjoints of the moves", tuple(equations))

    @cached_property
    def tangent(self) -> System:
        """ȧ_k and ẋ_k of every group."""
        equations: list[Equation] = []
        for c in self.model.constraints:
            if c.activation is not None:
                value = moves.differential(c.pre_activation, [self._along()])
                equations.append(self._stacked(self._pre(c, "ȧ"), value, c, "definition"))
            value = moves.differential(self.first.forward[c.state], [self._along()])
            equations.append(self._stacked(self._state(c, "ẋ"), value, c, "GN3(7)"))
        return System("summary_tangent", "Tangents of the groups", tuple(equations))

    @property
    def second_tangent(self) -> System:
        """ä_k and ẍ_k of every group, where they are not zero."""
        return self._second[0]

    @cached_property
    def _second(self) -> tuple[System, dict[Input, Expr]]:
        """The equations of the second-order tangents, and along what first-order tangents move."""
        equations: list[Equation] = []
        curve: dict[Input, Expr] = {}

        def define(c: Constraint, expr: Expr, first: Input, second: Input) -> None:
            value = moves.differential(expr, [self._along(), {**self._along(), **curve}])
            if value is not zero(value.axes) or first in curve:
                equations.append(self._stacked(second, value, c, "definition"))
                curve[first] = second

        for c in self.model.constraints:
            for other in moves.read_early(self.model, c):
                curve[self._state(other, "ẋ")] = self._state(other, "ẍ")
                curve[self._pre(other, "ȧ")] = self._pre(other, "ä")
            if c.activation is not None:
                define(c, c.pre_activation, self._pre(c, "ȧ"), self._pre(c, "ä"))
            define(c, self.first.forward[c.state], self._state(c, "ẋ"), self._state(c, "ẍ"))
        title = "Second-order tangents of the groups"
        return System("summary_second_tangent", title, tuple(equations)), curve

    @property
    def centred(self) -> System:
        """ċ_n = ẋ_n − ⟨softmax, ẋ_n⟩, tangents of the output about their mean, where the loss has a softmax.

        Its second and third derivatives are the same along ẋ_n and ċ_n: a number that all logits have in
        common adds to log Σ exp and changes no probability. But covariances about the mean keep their digits
        where one class has all the probability, while differences of moments are rounding.
        """
        return System(
            "summary_centred", "Tangents of the output about their mean", self._centred(second=False)
        )

    @property
    def second_centred(self) -> System:
        """c̈_n, the same of the second-order tangents, where they are not zero."""
        return System(
            "summary_second_centred",
            "Second-order tangents of the output about their mean",
            self._centred(second=True),
        )

    def _centred(self, second: bool) -> tuple[Equation, ...]:
        c = self.model.constraints[-1]
        tangent = self._state(c, "ẋ")
        if second and tangent not in self._second[1]:
            return ()
        moved = self._second[1][tangent] if second else tangent
        if self.probabilities is None:
            return ()
        mean = einsum([(self.probabilities, c.axes), (moved, c.axes)], self.model.output_places)
        mean = spread(mean, c.axes)
        symbol = self._state(c, "c̈" if second else "ċ")
        return (self._stacked(symbol, subtract(moved, mean), c, "definition"),)

    @cached_property
    def probabilities(self) -> Expr | None:
        """The softmax of the output, if the loss is linear in its log softmax or log Σ exp, and otherwise."""
        return probabilities_of(self.model)

    @cached_property
    def _without_mean(self) -> list[Relation]:
        """⟨softmax, ċ_n⟩ and ⟨softmax, c̈_n⟩ are zero, for every group."""
        c, found = self.model.constraints[-1], list[Relation]()
        if self.probabilities is None:
            return found
        for family in ("ċ", *(("c̈",) if self._bent else ())):
            for number in range(3):
                axis = group_axis(self.partition.size, number)
                moved = of_group(self._state(c, family), axis)
                kept = (axis, *self.model.output_places)
                mean = einsum([(self.probabilities, c.axes), (moved, moved.axes)], kept)
                found.append(relation(f"⟨softmax, {family}⟩ = 0", mean, mean))
        return found

    @cached_property
    def _bent(self) -> dict[Input, Expr]:
        """Along what the tangents about their mean move: those of the second order."""
        c = self.model.constraints[-1]
        return {self._state(c, "ċ"): self._state(c, "c̈")} if self.second_centred.equations else {}

    @cached_property
    def adjoint_tangent(self) -> System:
        """ḃ_k and ẏ_k of every group."""
        equations: list[Equation] = []
        for equation in self.first.adjoint.equations:
            if equation.symbol.family not in ("b", "y"):
                continue
            value = jvp(equation.value, self._along(multipliers=True))
            family = {"b": "ḃ", "y": "ẏ"}[equation.symbol.family]
            c = self.model.constraints[(equation.layer or 1) - 1]
            symbol = c.symbol(family, Role.TANGENT)
            equations.append(self._stacked(symbol, value or zero(symbol.slots), c, "definition"))
        return System("summary_adjoint_tangent", "Tangents of the adjoints", tuple(equations))

    @cached_property
    def gradient(self) -> System:
        """ḡ_s."""

        def part(form: Expr, centred: bool) -> Expr:
            return jvp(form, self._direction) or zero(())

        return self._summed("summary_gradient", "Summary of order 1", "ḡ", 1, part, "GN3(9)")

    @cached_property
    def hessian(self) -> System:
        """H̄_st."""

        def part(form: Expr, centred: bool) -> Expr:
            first, second = (self._along(n, centred=centred) for n in range(2))
            bent = None if centred else moves.through_gradient(form, first, second)
            return bent or moves.differential(form, [first, second])

        return self._summed("summary_hessian", "Summary of order 2", "H̿", 2, part, "GN3(9)")

    @cached_property
    def third(self) -> System:
        """D_s, the diagonal of the summary of order 3."""

        def part(form: Expr, centred: bool) -> Expr:
            curve = {**self._along(centred=centred), **self._second[1], **self._bent}
            return moves.differential(form, [curve] * 3)

        return self._summed("summary_third", "Diagonal of the summary of order 3", "D̄", 1, part, "GN3(6)")

    @cached_property
    def tensor(self) -> System:
        """T_stv, the whole summary of order 3."""

        def part(form: Expr, centred: bool) -> Expr:
            directions = [self._along(number, multipliers=True, centred=centred) for number in range(3)]
            return moves.differential(form, directions)

        return self._summed("summary_tensor", "Summary of order 3", "T̄", 3, part, "GN3(6)")

    def of_order(self, order: int) -> System:
        """Summaries up to an order, layer by layer: what a layer needs is gone after the next one.

        Order 1 is ḡ, order 2 has H̄ too, order 3 also the diagonal D. They are computed along directions of
        length about one, see :mod:`sifrc.derive.scaling`; those results come with the mark ¹.
        """
        return self._scaled(*self.along_direction(order))[0]

    def whole(self) -> tuple[System, ...]:
        """All of order 3, in the same way: the tangents of the adjoints need those of all layers."""
        return self._scaled(*self.along_direction(None))

    def along_direction(self, order: int | None) -> tuple[System, ...]:
        """The equations of an order, or of all of order 3 (None), along the directions as they are."""
        if order is None:
            return self._whole()
        parts = [self.moves]
        if order > 1:
            parts += [self.pulls, self.tangent]
            parts += [self.centred]
        parts += [self.second_tangent, self.second_centred] if order > 2 else []
        parts.append(self.gradient)
        parts += [self.hessian] if order > 1 else []
        parts += [self.third] if order > 2 else []
        return (by_layer(f"summary_{order}", f"Summaries up to order {order}", parts),)

    def _whole(self) -> tuple[System, ...]:
        forward = by_layer(
            "summary_tangents", "Tangents of the groups", [self.moves, self.pulls, self.tangent, self.centred]
        )
        parts = [self.gradient, self.hessian, self.tensor]
        sums = by_layer("summary_whole", "Summaries up to order 3", parts)
        return forward, needed(self.adjoint_tangent, sums), sums

    @cached_property
    def scaling(self) -> Scaling:
        """Equations that take the scale out of the groups' directions, and put it back."""
        return Scaling(self.model, self.groups, self.partition.discrete)

    def _scaled(self, *systems: System) -> tuple[System, ...]:
        """The systems along directions of length about one: scaled before the first, back after the last."""
        found = [self.scaling.along(system) for system in systems]
        first, last = found[0], found[-1]
        found[0] = replace(first, equations=(*self.scaling.before(), *first.equations))
        found[-1] = replace(found[-1], equations=(*found[-1].equations, *self.scaling.after(last)))
        return tuple(found)

    # -- parts of the Lagrangian

    def _forms(self) -> Iterator[tuple[Constraint | None, Expr]]:
        """The terms of L of each constraint, with a_k and y_k in them; those of the loss last."""
        factors = dict(self.model.regularized)
        for c in self.model.constraints:
            b, own = self.first.adjoints[c.index], self.first.backpropagated(c.index)
            forms = [inner(subtract(c.state, self.first.forward[c.state]), b)]
            if c.activation is not None:
                forms.append(inner(subtract(self._pre(c, "a"), c.pre_activation), own))
            if c.index in factors:
                forms.append(state_regularizer([(factors[c.index], c.state)]))
            yield c, total(forms, ())
        yield None, self.model.data_loss

    def _summed(
        self, name: str, title: str, family: str, order: int, part: Callable[[Expr, bool], Expr], source: str
    ) -> System:
        """Differentials of the terms of L, added up layer by layer."""
        axes = tuple(group_axis(self.partition.size, n) for n in range(order))
        equations: list[Equation] = []
        known: list[Expr] = []
        for c, form in self._forms():
            # Where order 1 is all that is asked for, nothing is pulled back.
            named = self._named_moves if family == "ḡ" else self._relations
            known_products = self._without_mean if c is None else named[c.index]
            value = condense(along_groups(part(form, c is None), self.partition, order), known_products)
            letter, index = (family, None) if c is None else (f"{family}∑", c.index)
            symbol = Input(letter, index, axes, Role.DIRECTION)
            if value is zero(value.axes) and c is not None:
                continue
            whole = condense(total([*known, spread(value, axes)], axes))
            equations.append(Equation(symbol, whole, index, source))
            known = [symbol]
        return System(name, title, tuple(equations))

    @cached_property
    def _relations(self) -> dict[int, list[Relation]]:
        """By constraint: N_k x_{k−1} and N_kᵀ y_k by their symbols, where they occur within a product."""
        return {
            c.index: self._named_moves[c.index] + moves.relations_of(self._pulls(c))
            for c in self.model.constraints
        }

    @cached_property
    def _named_moves(self) -> dict[int, list[Relation]]:
        """The same of N_k x_{k−1} alone."""
        return {c.index: moves.relations_of(self._moves(c)) for c in self.model.constraints}

    # -- directions

    @cached_property
    def _direction(self) -> Mapping[Input, Expr]:
        return self._marked("")

    def _moves(self, c: Constraint) -> Iterator[tuple[Input, Expr]]:
        return moves.moves_of(c, self._whole_direction)

    def _pulls(self, c: Constraint) -> Iterator[tuple[Input, Expr]]:
        return moves.pulls_of(self.first, c, self._whole_direction)

    @cached_property
    def _whole_direction(self) -> Mapping[Input, Expr]:
        """Parameters along the direction, where it is whole: it is in parts where every number is a group."""
        return {} if self.partition.discrete else self._direction

    def _marked(self, mark: str) -> dict[Input, Expr]:
        """The parameters along the first direction, or along another one by its mark."""
        found: dict[Input, Expr] = {}
        for owned in self.model.parameters:
            for symbol, direction in DIRECTION.marked(mark).pairs(owned):
                found[symbol] = direction
        return found

    def _along(
        self, number: int = 0, *, multipliers: bool = False, centred: bool = False
    ) -> Mapping[Input, Expr]:
        """What moves when the parameters do, along the first, second or third direction.

        The parameters, x and a; with ``multipliers`` also b and y. Where ``centred``, x_n along its tangents
        about their mean, if there are such.
        """
        if centred and self.probabilities is not None:
            c = self.model.constraints[-1]
            own = self._state(c, "ċ" + MARK * number)
            return {**self._along(number, multipliers=multipliers), c.state: own}
        if (number, multipliers) not in self._moving:
            self._moving[number, multipliers] = self._tangents(number, multipliers)
        return self._moving[number, multipliers]

    def _tangents(self, number: int, multipliers: bool) -> Mapping[Input, Expr]:
        mark = MARK * number
        found: dict[Input, Expr] = self._marked(mark)
        for c in self.model.constraints:
            found[c.state] = self._state(c, f"ẋ{mark}")
            if c.activation is not None:
                found[self._pre(c, "a")] = self._pre(c, f"ȧ{mark}")
            if multipliers:
                found[self.first.adjoints[c.index]] = self._state(c, f"ḃ{mark}")
                if c.activation is not None:
                    found[self.first.backpropagated(c.index)] = self._state(c, f"ẏ{mark}")
        return found

    def _state(self, c: Constraint, family: str) -> Input:
        return c.symbol(family, Role.TANGENT)

    def _pre(self, c: Constraint, family: str) -> Input:
        role = Role.STATE if family == "a" else Role.TANGENT
        return c.symbol(family, role)

    # -- from one direction to all groups

    def _stacked(self, symbol: Input, value: Expr, c: Constraint, source: str) -> Equation:
        """The equation for every group."""
        value = reduce(along_groups(value, self.partition, 1), self._relations[c.index])
        stacked = of_group(symbol, self.groups)
        return Equation(stacked, expand(spread(value, stacked.axes)), c.index, source)
