"""The block recursion: second derivatives of the objective by pre-activations, layer by layer.

With V the objective as a function of the states that are still to be eliminated, C = ∂²V/∂x∂x and
q_k = −∂V/∂a_k (y_k, or b_k where the activation is the identity), eliminating x_k = F_k(a_k) gives

    H_k  = −dq_k / da_k        with da_k a Delta and db_k = −C_kk dx_k            EA-CG(4a, 4b)
    E_kj = −dq_k / dx_j        with db_k = −C_kj, for states j that other layers read too
    C_ij += J_iᵀ H_k J_j + J_iᵀ E_kj + E_kiᵀ J_j,   J_j = da_k / dx_j
    C_ij −= d(J_iᵀ q_k) / dx_j with q_k held, where a_k is not linear in the states

Each is a differential of an equation of the first-order system; nothing about a layer or an activation
is known here. On a chain E is empty and C_{k−1} = W_kᵀ H_k W_k: the recursion of EA-CG(4b).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction

from sifrc.calculus import jacobian, seeded, vjp
from sifrc.derive.curvature.kinds import Kind
from sifrc.derive.elimination import diagonal_of
from sifrc.derive.lagrangian import FirstOrder
from sifrc.derive.system import Condition, Equation
from sifrc.errors import DerivationError
from sifrc.ir import Axis, Expr, Input, Role, Spectral, primed
from sifrc.ir.build import add, apply, einsum, identity, negative, rename, total, zero
from sifrc.ir.normal import expand
from sifrc.ir.traverse import inputs_of
from sifrc.model import Constraint
from sifrc.scalar import ABS

__all__ = ["Recursion", "output_block", "recursion"]


@dataclass(frozen=True)
class Recursion:
    """Blocks of the pre-activations.

    Args:
        equations: in the order of evaluation; H_k over (i, i'), per sample or the batch mean.
        conditions: what rewrites assume.
    """

    equations: tuple[Equation, ...]
    conditions: tuple[Condition, ...]


def recursion(first: FirstOrder, kind: Kind, convex: bool) -> Recursion:
    """The block recursion with the rewrites of a kind.

    Args:
        first: the first-order system it differentiates.
        kind: not a factored one.
        convex: whether the loss is known to be convex in the output.
    """
    work = _Elimination(first, kind, convex)
    for c in reversed(first.model.constraints):
        work.eliminate(c)
    return Recursion(tuple(work.equations), tuple(work.conditions))


def output_block(first: FirstOrder, kind: Kind, convex: bool) -> Recursion:
    """Its beginning: the block of the output's pre-activation.

    Args:
        first, kind, convex: as in :func:`recursion`.
    """
    work = _Elimination(first, kind, convex)
    work.eliminate(first.model.output)
    return Recursion(tuple(work.equations), tuple(work.conditions))


@dataclass
class _Elimination:
    """State of one elimination: C over pairs of states that are left, each in the order (later, earlier)."""

    first: FirstOrder
    kind: Kind
    convex: bool
    equations: list[Equation] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    pending: dict[tuple[int, int], Expr] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model = self.first.model
        objective = model.data_loss
        if self.kind.source == "objective":
            objective = total([objective, model.regularizer], ())
        held = set(inputs_of(objective))
        states = [c.state for c in model.constraints if c.state in held]
        for state, slope in zip(states, vjp(objective, states), strict=True):
            for other in (s for s in states if s in inputs_of(slope) and _index(s) <= _index(state)):
                self._leave(state, other, jacobian(slope, other))

    def eliminate(self, c: Constraint) -> None:
        """Take x_k out: the blocks of a_k, and what it leaves to the states that are left."""
        model = self.first.model
        outer = self.pending.pop((c.index, c.index), zero((*c.axes, *primed(c.axes))))
        cross = {j: self.pending.pop((k, j)) for k, j in sorted(self.pending) if k == c.index}
        block = self._block(c, outer)
        mixed = {j: self._mixed(c, j, value) for j, value in cross.items()}
        steps = {j: jacobian(c.pre_activation, model.state(j)) for j in dict.fromkeys(c.sources) if j > 0}
        left = sorted({*mixed, *steps})
        for later in left:
            for earlier in (j for j in left if j <= later):
                parts = []
                if later in steps:
                    parts.append(self._through_adjoint(c, later, earlier, block, steps, mixed))
                if later in mixed and earlier in steps:
                    parts.append(_between(mixed[later], steps[earlier], c.axes))
                if later in steps and earlier in steps:
                    parts.append(self._bent(c, later, earlier))
                state, other = model.state(later), model.state(earlier)
                for part in parts:
                    self._leave(state, other, part)

    def _leave(self, state: Input, other: Input, part: Expr) -> None:
        """Add to C of two states that are left."""
        axes = (*state.axes, *primed(other.axes))
        key = (_index(state), _index(other))
        self.pending[key] = total([self.pending.get(key, zero(axes)), rename(part, axes)], axes)

    def _through_adjoint(
        self,
        c: Constraint,
        later: int,
        earlier: int,
        block: Input,
        steps: dict[int, Expr],
        mixed: dict[int, Input],
    ) -> Expr:
        """−db_later where q_k moves with x_earlier: through a_k, and directly."""
        columns = primed(self.first.model.state(earlier).axes)
        moves = []
        if earlier in steps:
            moves.append(_product(block, steps[earlier], c.axes))
        if earlier in mixed:
            moves.append(mixed[earlier])
        own = self.first.backpropagated(c.index)
        axes = (*c.axes, *columns)
        seed = negative(total([rename(move, axes) for move in moves], axes))
        return negative(seeded(self.first.adjoint[self.first.adjoints[later]], {own: seed}, columns))

    def _bent(self, c: Constraint, later: int, earlier: int) -> Expr:
        """−d(J_laterᵀ q_k) / dx_earlier with q_k held: zero where a_k is linear in the states.

        Raises:
            DerivationError: it is not, and the kind has rewrites for activations alone.
        """
        state, other = self.first.model.state(later), self.first.model.state(earlier)
        axes = (*state.axes, *primed(other.axes))
        dropped = self.kind.residual == "dropped"
        if dropped and not self.kind.expectation:
            return zero(axes)
        (pulled,) = vjp(c.pre_activation, [state], self.first.backpropagated(c.index))
        bent = rename(negative(jacobian(pulled, other)), axes)
        if bent is not zero(axes) and (self.kind.residual != "kept" or self.kind.expectation):
            raise DerivationError(
                f"kind '{self.kind.name}' approximates what activations bend, and layer '{c.layers[0]}' is "
                "not linear in what it reads",
                hint="hessian and ggn are exact there, and so is hessian_vector_product",
            )
        return bent

    def _block(self, c: Constraint, outer: Expr) -> Input:
        """H_k = −dq_k / da_k, with the rewrites of the kind."""
        below = primed(c.axes)
        curved, residual = outer, zero(outer.axes)
        if c.activation is not None:
            a, b, y = self._symbols(c)
            seed = identity(c.axes, below)
            move = seeded(self.first.forward[c.state], {a: seed}, below)
            passed = negative(_product(outer, move, c.axes))
            curved = negative(seeded(self.first.adjoint[y], {b: passed}, below))
            residual = negative(seeded(self.first.adjoint[y], {a: seed}, below))
        if self.kind.residual == "dropped":
            residual = zero(outer.axes)
        if c is self.first.model.output and self.kind.output != "kept":
            return self._output(c, total([curved, residual], curved.axes), residual)
        if self.kind.residual != "kept" and residual is not zero(residual.axes):
            residual = self._definite(c, residual)
        return self._define(c, total([curved, residual], curved.axes))

    def _symbols(self, c: Constraint) -> tuple[Input, Input, Input]:
        a = Input("a", c.index, c.axes, Role.STATE)
        return a, self.first.adjoints[c.index], self.first.backpropagated(c.index)

    def _define(self, c: Constraint, value: Expr, family: str = "H") -> Input:
        symbol = self._symbol(family, c.index, value.axes)
        self.equations.append(Equation(symbol, expand(value), c.index, self._paper("4b", "6", c)))
        return symbol

    def _symbol(self, family: str, index: int, axes: tuple[Axis, ...]) -> Input:
        """A value per sample; with the expectation approximation one for the batch, its mean."""
        if self.kind.expectation:
            return Input(f"{family}\u0304", index, axes, Role.DIRECTION)
        return Input(family, index, axes, Role.STATE)

    def _paper(self, exact: str, mean: str, c: Constraint) -> str:
        if c is self.first.model.output:
            return "EA-CG(8a)" if self.kind.output != "kept" else "EA-CG(4a)"
        return f"EA-CG({mean if self.kind.expectation else exact})"

    def _definite(self, c: Constraint, residual: Expr) -> Expr:
        """The residual's diagonal, its absolute value or its positive part in its place."""
        entries = diagonal_of(expand(residual), c.axes, primed(c.axes))
        if entries is None:
            raise DerivationError(
                f"the residual of layer '{c.name}' is not diagonal: EA-CG(8b) does not apply",
                hint="choose residual: kept or dropped",
            )
        symbol = self._symbol("ρ", c.index, c.axes)
        self.equations.append(Equation(symbol, entries, c.index, "EA-CG(8b)"))
        size = apply(ABS, symbol)
        if self.kind.residual == "clipped":
            half = Fraction(1, 2)
            size = add([(half, size), (half, symbol)], symbol.axes)
        return einsum([(size, c.axes), (identity(c.axes, primed(c.axes)), residual.axes)], residual.axes)

    def _output(self, c: Constraint, value: Expr, residual: Expr) -> Input:
        """The output's block without negative eigenvalues, EA-CG(8a)."""
        if self.convex and residual is zero(residual.axes):
            self.conditions.append(Condition("the loss is convex in the output", None, "proved"))
            return self._define(c, value)
        if len(c.axes) > 1:
            raise DerivationError(
                f"kind '{self.kind.name}' takes eigenvalues of the output's block, and the output has "
                f"{len(c.axes)} axes",
                location=self.first.model.spec.loss.location,
                hint="output: kept, or one of the kinds ggn, fisher, sampled_fisher and empirical_fisher",
            )
        plain = self._define(c, value, "H°")
        symbol = self._symbol("H", c.index, value.axes)
        self.equations.append(Equation(symbol, Spectral(plain, self.kind.output), c.index, "EA-CG(8a)"))
        return symbol

    def _mixed(self, c: Constraint, other: int, value: Expr) -> Input:
        """E_kj = −dq_k / dx_j, j an earlier state that other layers read too."""
        if c.activation is not None:
            _, b, y = self._symbols(c)
            value = negative(seeded(self.first.adjoint[y], {b: negative(value)}, value.axes[len(c.axes) :]))
        symbol = self._symbol(f"E{c.index - other}", c.index, value.axes)
        self.equations.append(Equation(symbol, expand(value), c.index, "definition"))
        return symbol


def _index(state: Input) -> int:
    assert state.index is not None
    return state.index


def _product(block: Expr, step: Expr, rows: tuple[Axis, ...]) -> Expr:
    """Σ_m block[i, m] step[m, j], i over the rows."""
    between, columns = primed(primed(rows)), step.axes[len(rows) :]
    return einsum([(block, (*rows, *between)), (step, (*between, *columns))], (*rows, *columns))


def _between(mixed: Expr, step: Expr, rows: tuple[Axis, ...]) -> Expr:
    """Σ_i mixed[i, u] step[i, v] over (u, v), i over the rows."""
    count = len(rows)
    left = tuple(replace(axis, primes=axis.primes - 1) for axis in mixed.axes[count:])
    columns = step.axes[count:]
    return einsum([(mixed, (*rows, *left)), (step, (*rows, *columns))], (*left, *columns))
