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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from sifrc.calculus import jvp
from sifrc.derive import moves
from sifrc.derive.centring import Centred, centred_states
from sifrc.derive.groups import MARK, along_groups, group_axis, of_group
from sifrc.derive.lagrangian import FirstOrder
from sifrc.derive.scaling import Scaling
from sifrc.derive.shaped import DIRECTION
from sifrc.derive.system import Equation, System, by_layer, needed
from sifrc.derive.terms import terms_by_constraint
from sifrc.ir import Expr, Input, Role
from sifrc.ir.along import spread
from sifrc.ir.build import total, zero
from sifrc.ir.normal import Relation, condense, expand, reduce, relation
from sifrc.model import Constraint, Model
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
                equations.append(self._tangent(c, c.pre_activation, self._pre(c, "ȧ"), "definition"))
            equations.append(self._tangent(c, self.first.forward[c.state], self._state(c, "ẋ"), "GN3(7)"))
        return System("summary_tangent", "Tangents of the groups", tuple(equations))

    def _tangent(self, c: Constraint, expr: Expr, symbol: Input, source: str) -> Equation:
        value = moves.differential(expr, [self._along(of=expr)])
        return self._stacked(symbol, value, c, source, self._softmaxes(expr))

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
            along = self._along(of=expr)
            value = moves.differential(expr, [along, {**along, **curve, **self._bent(curve)}])
            if value is not zero(value.axes) or first in curve:
                known = self._softmaxes(expr)
                equations.append(self._stacked(second, value, c, "definition", known))
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
        """ċ_k = ẋ_k − ⟨softmax, ẋ_k⟩, tangents about their mean, of states that a softmax reads."""
        return System("summary_centred", "Tangents about their mean", self._centred(second=False))

    @property
    def second_centred(self) -> System:
        """c̈_k, the same of the second-order tangents, where they are not zero."""
        return System(
            "summary_second_centred", "Second-order tangents about their mean", self._centred(second=True)
        )

    def _centred(self, second: bool) -> tuple[Equation, ...]:
        found: list[Equation] = []
        for centred in self.centred_states:
            c = centred.constraint
            tangent = self._state(c, "ẋ")
            if second and tangent not in self._second[1]:
                continue
            moved = self._second[1][tangent] if second else tangent
            symbol = self._state(c, "c̈" if second else "ċ")
            found.append(self._stacked(symbol, centred.about_mean(moved), c, "definition"))
        return tuple(found)

    @cached_property
    def centred_states(self) -> tuple[Centred, ...]:
        """The states that a softmax reads."""
        return centred_states(self.model)

    def _about(self, expr: Expr) -> list[Centred]:
        """Those that an expression reads through their softmax; of the loss that of the output."""
        loss = expr is self.model.data_loss
        return [c for c in self.centred_states if c.reads(expr) or (loss and c.within is None)]

    def _without_mean(self, centred: Centred) -> Iterator[Relation]:
        """⟨softmax, ċ_k⟩ and ⟨softmax, c̈_k⟩ are zero, for every group."""
        for family in ("ċ", "c̈"):
            for number in range(3):
                axis = group_axis(self.partition.size, number)
                mean = centred.mean(of_group(self._state(centred.constraint, family), axis))
                yield relation(f"⟨softmax, {family}⟩ = 0", mean, mean)

    def _softmaxes(self, expr: Expr) -> list[Relation]:
        """What holds of the tangents about their mean along which an expression is differentiated."""
        read = self._about(expr)
        found = [known for centred in read for known in self._without_mean(centred)]
        return found + [known for centred in read for known in centred.pulled_back(self.first)]

    def _bent(self, curve: Mapping[Input, Expr]) -> dict[Input, Expr]:
        """Along what the tangents about their mean move, where tangents move along a curve."""
        return {
            self._state(centred.constraint, "ċ"): self._state(centred.constraint, "c̈")
            for centred in self.centred_states
            if self._state(centred.constraint, "ẋ") in curve
        }

    @cached_property
    def adjoint_tangent(self) -> System:
        """ḃ_k and ẏ_k of every group."""
        equations: list[Equation] = []
        for equation in self.first.adjoint.equations:
            if equation.symbol.family not in ("b", "y"):
                continue
            value = jvp(equation.value, self._along(multipliers=True, of=equation.value))
            family = {"b": "ḃ", "y": "ẏ"}[equation.symbol.family]
            c = self.model.constraints[(equation.layer or 1) - 1]
            symbol = c.symbol(family, Role.TANGENT)
            known = self._softmaxes(equation.value)
            equations.append(self._stacked(symbol, value or zero(symbol.slots), c, "definition", known))
        return System("summary_adjoint_tangent", "Tangents of the adjoints", tuple(equations))

    @cached_property
    def gradient(self) -> System:
        """ḡ_s."""

        def part(form: Expr) -> Expr:
            return jvp(form, self._direction) or zero(())

        return self._summed("summary_gradient", "Summary of order 1", "ḡ", 1, part, "GN3(9)")

    @cached_property
    def hessian(self) -> System:
        """H̄_st."""

        def part(form: Expr) -> Expr:
            first, second = (self._along(n, of=form) for n in range(2))
            bent = None if self._about(form) else moves.through_gradient(form, first, second)
            return bent or moves.differential(form, [first, second])

        return self._summed("summary_hessian", "Summary of order 2", "H̿", 2, part, "GN3(9)")

    @cached_property
    def third(self) -> System:
        """D_s, the diagonal of the summary of order 3."""

        def part(form: Expr) -> Expr:
            curve = {**self._along(of=form), **self._second[1], **self._bent(self._second[1])}
            return moves.differential(form, [curve] * 3)

        return self._summed("summary_third", "Diagonal of the summary of order 3", "D̄", 1, part, "GN3(6)")

    @cached_property
    def tensor(self) -> System:
        """T_stv, the whole summary of order 3."""

        def part(form: Expr) -> Expr:
            directions = [self._along(number, multipliers=True, of=form) for number in range(3)]
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

    def _summed(
        self, name: str, title: str, family: str, order: int, part: Callable[[Expr], Expr], source: str
    ) -> System:
        """Differentials of the terms of L, added up layer by layer."""
        axes = tuple(group_axis(self.partition.size, n) for n in range(order))
        equations: list[Equation] = []
        known: list[Expr] = []
        for c, form in terms_by_constraint(self.first):
            # Where order 1 is all that is asked for, nothing is pulled back.
            named = self._named_moves if family == "ḡ" else self._relations
            known_products = [] if c is None else named[c.index]
            known_products = known_products + ([] if family == "ḡ" else self._softmaxes(form))
            value = condense(along_groups(part(form), self.partition, order), known_products)
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
        self, number: int = 0, *, multipliers: bool = False, of: Expr | None = None
    ) -> Mapping[Input, Expr]:
        """What moves when the parameters do, along the first, second or third direction.

        The parameters, x and a; with ``multipliers`` also b and y. States move along their tangents about
        the mean, where ``of`` reads them so.
        """
        if (number, multipliers) not in self._moving:
            self._moving[number, multipliers] = self._tangents(number, multipliers)
        found = self._moving[number, multipliers]
        centred = [] if of is None else [each.constraint for each in self._about(of)]
        return {**found, **{c.state: self._state(c, "ċ" + MARK * number) for c in centred}}

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

    def _stacked(
        self, symbol: Input, value: Expr, c: Constraint, source: str, known: Sequence[Relation] = ()
    ) -> Equation:
        """The equation for every group."""
        value = reduce(along_groups(value, self.partition, 1), [*self._relations[c.index], *known])
        stacked = of_group(symbol, self.groups)
        return Equation(stacked, expand(spread(value, stacked.axes)), c.index, source)
