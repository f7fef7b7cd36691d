"""Level 1 for summaries: what must hold between them, as expressions that must be zero.

The derivation takes differentials of the Lagrangian at fixed multipliers, so that H̿ needs no tangents of the
adjoints and D̄ none of second order. The identities take the other ways:

    ḡ_s = Σ ⟨u_s, gradient⟩                 the gradient is from reverse differentiation
    Σ_t H̿_st c_t = dḡ_s[Σ_t c_t u_t]        with the tangents of the adjoints
    H̿_st = H̿_ts,  T̄_stv = T̄_tsv = T̄_svt     no tensor is made symmetric by hand
    D̄_s = T̄_sss                             second tangents of states against first tangents of adjoints

They hold for every value of states, adjoints, parameters and directions. Tangents are put in by their
equations, in which they are linear; where those of the output are about their mean, the probabilities that it
is made with sum to one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sifrc.calculus import jvp
from sifrc.derive.derived import Derived
from sifrc.derive.groups import OWNER, SINGLE, group_axis
from sifrc.derive.recurrence import Recursion, recursions
from sifrc.derive.shaped import DIRECTION, GRADIENT
from sifrc.derive.summaries import Summaries
from sifrc.derive.system import System
from sifrc.ir import Axis, Expr, Input, Role
from sifrc.ir.build import einsum, ones, rename, subtract, total, zero
from sifrc.ir.normal import reduce, relation
from sifrc.ir.traverse import inputs_of, substitute
from sifrc.verify.symbolic.identities import Identity

__all__ = ["summary_identities"]

_NEAR, _FURTHER = 4, 12
"""Layers, up to which identities are looked at with all tangents put in, or those of second order."""


def summary_identities(derived: Derived) -> Iterator[Identity]:
    """The identities of the summaries of all orders."""
    work = _Work(derived)
    yield Identity("ḡ = ⟨u, gradient⟩", work.without_vanished(subtract(work.gradient, work.slopes())))
    s, t, v = (group_axis(work.groups.entries, number) for number in range(3))
    yield Identity("H̿ is symmetric", _swapped(work.hessian, (s, t), (t, s)))
    yield Identity("T̄ is symmetric in s and t", _swapped(work.tensor, (s, t, v), (t, s, v)))
    yield Identity("T̄ is symmetric in t and v", _swapped(work.tensor, (s, t, v), (s, v, t)))
    if derived.model.depth <= _NEAR:
        yield Identity("H̿ is the differential of ḡ", work.differential())
    if derived.model.depth <= _FURTHER:
        yield Identity("D̄ is the diagonal of T̄", work.diagonal())


class _Work:
    """The summaries of a model, their sums over the layers put together.

    Args:
        derived: of the model.
    """

    def __init__(self, derived: Derived) -> None:
        self.first = derived.first
        self.summaries: Summaries = derived.summaries
        self.groups = self.summaries.groups
        shorts = (self.summaries.moves, self.summaries.pulls)
        self.gradient = _whole(self.summaries.gradient, shorts)
        self.hessian = _whole(self.summaries.hessian, shorts)
        self.third = _whole(self.summaries.third, shorts)
        self.tensor = _whole(self.summaries.tensor, shorts)
        self._back = _whole_of((self.first.adjoint,), ("y",))

    def slopes(self) -> Expr:
        """⟨u_s, gradient⟩ of every group, from the gradient of the first-order system."""
        terms: list[Expr] = []
        for owned in self.first.model.parameters:
            pairs = zip(GRADIENT.pairs(owned), DIRECTION.pairs(owned), strict=True)
            for (_, slope), (_, direction) in pairs:
                value = self.first.gradient[slope]
                part = self._part(direction, owned.index)
                terms.append(
                    einsum([(part, (self.groups, *value.axes)), (value, value.axes)], (self.groups,))
                )
        return total(terms, (self.groups,))

    def without_vanished(self, residual: Expr) -> Expr:
        """The residual with zero for every y_k that is zero: F_k is constant, and no gradient names y_k."""
        equations = self.first.adjoint.equations
        table = {e.symbol: e.value for e in equations if e.value is zero(e.value.axes)}
        return substitute(residual, table)

    def _part(self, direction: Input, index: int) -> Expr:
        """The direction within every group, for one tensor."""
        axes = (self.groups, *direction.slots)
        if self.summaries.partition.discrete:
            return Input(SINGLE[direction.family], index, axes, Role.DIRECTION)
        owner = Input(OWNER[direction.family], index, (self.groups,), Role.HYPERPARAMETER)
        return einsum([(owner, (self.groups,)), (direction, direction.axes)], axes)

    def differential(self) -> Expr:
        """Σ_t H̿_st c_t − dḡ_s along Σ_t c_t u_t, all tangents put in."""
        s, t = self.groups, self.groups.primed
        weights = Input("c", None, (s,), Role.DIRECTION)
        moves: dict[Input, Expr] = {}
        for c in self.first.model.constraints:
            symbols = {"ẋ": c.state, "ḃ": self.first.adjoints[c.index]}
            if c.activation is not None:
                own = self.first.backpropagated(c.index)
                assert isinstance(own, Input)
                symbols["ẏ"] = own
            for family, symbol in symbols.items():
                tangent = Input(family, c.index, (s, *c.axes), Role.TANGENT)
                moves[symbol] = einsum([(tangent, (s, *c.axes)), (weights, (s,))], c.axes)
        for owned in self.first.model.parameters:
            for symbol, direction in DIRECTION.pairs(owned):
                part = self._part(direction, owned.index)
                moves[symbol] = einsum([(part, (s, *symbol.axes)), (weights, (s,))], symbol.axes)
        moved = jvp(self.gradient, moves) or zero((s,))
        product = einsum([(self.hessian, (s, t)), (rename(weights, (t,)), (t,))], (s,))
        tangents = (self.summaries.tangent, self.summaries.centred, self.summaries.adjoint_tangent)
        return self._solved(subtract(product, moved), tangents)

    def diagonal(self) -> Expr:
        """D̄_s − T̄_sss, with second tangents and tangents of adjoints put in; any first tangents do."""
        s = self.groups
        diagonal = einsum([(self.tensor, (s, s, s))], (s,))
        own = self.summaries
        tangents = (own.centred, own.second_tangent, own.second_centred, own.adjoint_tangent)
        return self._solved(subtract(self.third, diagonal), tangents)

    def _solved(self, residual: Expr, systems: Sequence[System]) -> Expr:
        table: dict[Input, Expr] = {}
        shorts = _whole_of((self.summaries.moves, self.summaries.pulls))
        for each in (each for system in systems for each in recursions(system.equations)):
            equations = each.equations if isinstance(each, Recursion) else (each,)
            values = {e.symbol: substitute(_one_axis(e.value), shorts) for e in equations}
            if isinstance(each, Recursion):
                # From zero, once for each step: shifts by as many leave nothing of it.
                table |= {symbol: zero(symbol.axes) for symbol in values}
            for _ in range(each.steps if isinstance(each, Recursion) else 1):
                for symbol, value in values.items():
                    table[symbol] = substitute(value, table)
        residual = substitute(substitute(residual, table), self._back)
        # What is about its mean was made with probabilities that sum to one.
        known = []
        for centred in self.summaries.centred_states:
            whole = einsum([(centred.probabilities, centred.constraint.axes)], centred.places)
            known.append(relation("Σ softmax = 1", subtract(whole, ones(centred.places)), whole))
        return reduce(residual, known) if known else residual


def _whole(system: System, shorts: Sequence[System]) -> Expr:
    """The last of the sums over layers, with the others and abbreviations put in."""
    table = dict(_whole_of(shorts))
    for equation in system.equations:
        table[equation.symbol] = substitute(_one_axis(equation.value), table)
    return table[system.equations[-1].symbol]


def _whole_of(systems: Sequence[System], families: Sequence[str] = ()) -> dict[Input, Expr]:
    """Symbol -> value, of some families or all."""
    return {
        equation.symbol: equation.value
        for system in systems
        for equation in system.equations
        if not families or equation.symbol.family in families
    }


def _one_axis(value: Expr) -> Expr:
    """Tangents of groups along a later axis of theirs are those along the first, read there."""
    table: dict[Input, Expr] = {}
    for symbol in inputs_of(value):
        if any(axis.is_group and axis.primes for axis in symbol.slots) and _groups(symbol) == 1:
            slots = tuple(replace(a, primes=0) if a.is_group else a for a in symbol.slots)
            plain = Input(symbol.family, symbol.index, slots, symbol.role)
            table[symbol] = rename(plain, symbol.slots)
    return substitute(value, table)


def _groups(symbol: Input) -> int:
    return sum(axis.is_group for axis in symbol.slots)


def _swapped(value: Expr, axes: tuple[Axis, ...], order: tuple[Axis, ...]) -> Expr:
    """The tensor minus the one with its axes in another order."""
    return subtract(value, einsum([(value, order)], axes))
