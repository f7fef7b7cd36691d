"""Factored curvature: outer products of scores that propagate as vectors.

Where a block is Σ_c s_c s_cᵀ and the residual is dropped, each s_c goes back through the network as an
adjoint does: y = F'(a) ∘ s, s_{k−1} = W_kᵀ y. The pre-activation's block is E[Σ_c y_c y_cᵀ].
"""

from __future__ import annotations

from sifrc.calculus import seeded
from sifrc.derive.curvature.kinds import Kind
from sifrc.derive.curvature.recursion import Recursion
from sifrc.derive.curvature.scores import score
from sifrc.derive.lagrangian import FirstOrder
from sifrc.derive.system import Equation
from sifrc.ir import Expr, Input, Role
from sifrc.ir.build import einsum
from sifrc.ir.normal import expand

__all__ = ["factored"]


def factored(first: FirstOrder, kind: Kind) -> Recursion:
    """The batch mean of the blocks of a factored kind.

    Raises:
        DerivationError: the kind needs a distribution of targets, and none is known for the loss.
    """
    model = first.model
    start = score(model, kind)
    equations: list[Equation] = list(start.equations)
    mark = "ᶜ" if start.extra else ""
    moved: dict[Input, Expr] = {}
    for c in reversed(model.constraints):
        adjoint = first.adjoints[c.index]
        if c is model.output:
            value = start.value
        else:
            value = seeded(first.adjoint[adjoint], moved, start.extra)
        symbol = Input(f"S{mark}", c.index, (c.axis, *start.extra), Role.ADJOINT)
        equations.append(Equation(symbol, expand(value), c.index, "definition"))
        own = first.backpropagated(c.index)
        if own is not adjoint:
            through = seeded(first.adjoint[own], {adjoint: symbol}, start.extra)
            symbol = Input(f"T{mark}", c.index, symbol.slots, Role.ADJOINT)
            equations.append(Equation(symbol, expand(through), c.index, "definition"))
        moved[own] = symbol
        row, column = c.axis, c.axis.primed
        product = einsum([(symbol, (row, *start.extra)), (symbol, (column, *start.extra))], (row, column))
        block = Input("H̄", c.index, (row, column), Role.DIRECTION)
        equations.append(Equation(block, product, c.index, "definition"))
    return Recursion(tuple(equations), ())
