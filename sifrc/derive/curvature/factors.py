"""Factored curvature: outer products of scores that propagate as vectors.

Where a block is Σ_c s_c s_cᵀ and the residual is dropped, each s_c goes back through the network as an
adjoint does: y = F'(a) ∘ s, s_{k−1} = W_kᵀ y. T_k has these y_c for columns: the pre-activation's block is
T_k T_kᵀ for one sample.
"""

from __future__ import annotations

from sifrc.calculus import seeded
from sifrc.derive.curvature.kinds import Kind
from sifrc.derive.curvature.recursion import Recursion
from sifrc.derive.curvature.scores import score
from sifrc.derive.lagrangian import FirstOrder
from sifrc.derive.system import Equation
from sifrc.ir import Axis, Expr, Input, Role
from sifrc.ir.build import transpose
from sifrc.ir.normal import expand
from sifrc.model import Constraint

__all__ = ["factored", "scores_of", "through_activation"]


def factored(first: FirstOrder, kind: Kind) -> Recursion:
    """The factors of the blocks of a factored kind.

    Raises:
        DerivationError: the kind needs a distribution of targets, and none is known for the loss.
    """
    model = first.model
    start = score(model, kind)
    equations: list[Equation] = list(start.equations)
    mark = _mark(start.extra)
    moved: dict[Input, Expr] = {}
    for c in reversed(model.constraints):
        adjoint = first.adjoints[c.index]
        if c is model.output:
            value = start.value
        else:
            value = seeded(first.adjoint[adjoint], moved, start.extra)
        symbol = scores_of(c, start.extra)
        equations += through_activation(first, c, value, f"S{mark}", symbol)
        moved[first.backpropagated(c.index)] = transpose(symbol, (*c.axes, *start.extra))
    return Recursion(tuple(equations), ())


def through_activation(
    first: FirstOrder, c: Constraint, value: Expr, family: str, symbol: Input
) -> list[Equation]:
    """Rows at the state of a constraint, and what they are at its pre-activation, as an adjoint gets there.

    Args:
        first: the first-order system.
        c: the constraint.
        value: the rows at the state, over its axes and one that numbers them, if there are several.
        family: of the rows at the state.
        symbol: the rows at the pre-activation, their own axis first.
    """
    adjoint, own = first.adjoints[c.index], first.backpropagated(c.index)
    extra = symbol.axes[: len(symbol.axes) - len(c.axes)]
    equations = []
    if own is not adjoint:
        before = Input(family, c.index, symbol.slots, Role.ADJOINT)
        equations.append(Equation(before, expand(transpose(value, before.axes)), c.index, "definition"))
        value = seeded(first.adjoint[own], {adjoint: transpose(before, (*c.axes, *extra))}, extra)
    return [*equations, Equation(symbol, expand(transpose(value, symbol.axes)), c.index, "definition")]


def scores_of(c: Constraint, extra: tuple[Axis, ...]) -> Input:
    """T_kᵀ, over ``extra``, the axis of the classes or (), and the pre-activation of the constraint k."""
    return Input(f"T{_mark(extra)}", c.index, (*extra, *c.axes), Role.ADJOINT)


def _mark(extra: tuple[Axis, ...]) -> str:
    return "ᶜ" if extra else ""
