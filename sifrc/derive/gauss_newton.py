"""The Gauss–Newton product of the data loss, from the Lagrangian of the linearised model.

The quadratic model ½ ⟨ẋ_n, ∂²ℓ/∂x_n² ẋ_n⟩ on the linearised constraints ẋ_k = dF_k(a_k) has the
gradient r = ∂²ℓ/∂x_n² ẋ_n in ẋ_n. With r at its value, the Lagrangian

    L_G = ⟨ẋ_n, r⟩ + Σ_k ⟨ẋ_k − d(F_k(a_k)), c_k⟩

gives the adjoints c_k and the derivative in the direction (N, η) as the network's own does.
"""

from __future__ import annotations

from dataclasses import dataclass

from sifrc.calculus import jvp, vjp
from sifrc.derive.elimination import solve_unit
from sifrc.derive.lagrangian import FirstOrder
from sifrc.derive.shaped import DIRECTION, GAUSS_NEWTON_PRODUCT
from sifrc.derive.system import Equation, System, abbreviate, definition, name_node
from sifrc.ir import Expr, Input, Role
from sifrc.ir.build import inner, negative, subtract, total, zero

__all__ = ["GaussNewton", "derive_gauss_newton"]


@dataclass(frozen=True)
class GaussNewton:
    """Linearised forward model, its adjoint, and the product with the Gauss–Newton matrix."""

    lagrangian: Expr
    tangent: System
    adjoint: System
    product: System


def derive_gauss_newton(first: FirstOrder) -> GaussNewton:
    """The Gauss–Newton–vector product of the data loss, for the direction (N, η)."""
    model = first.model
    moves = {c.index: c.symbol("dx", Role.TANGENT) for c in model.constraints}
    adjoints = {c.index: c.symbol("c", Role.TANGENT) for c in model.constraints}
    directions: dict[Input, Input] = {}
    for owned in model.parameters:
        directions.update(DIRECTION.pairs(owned))
    along: dict[Input, Expr] = {c.state: moves[c.index] for c in model.constraints}
    along.update(directions)
    output = model.output
    slope = vjp(model.data_loss, [output.state])[0]
    curved = jvp(slope, {output.state: moves[output.index]})
    seed = Input("r", None, output.axes, Role.TANGENT)
    linear = {c.index: jvp(c.value, along) or zero(c.state.axes) for c in model.constraints}
    lagrangian = total(
        [
            inner(moves[output.index], seed),
            *(inner(subtract(moves[k], value), adjoints[k]) for k, value in linear.items()),
        ],
        (),
    )
    nonlinear = [c for c in model.constraints if c.activation is not None]
    steps = {c.index: jvp(c.pre_activation, along) for c in nonlinear}
    inner_nodes = {k: node for k, node in steps.items() if node is not None}
    wrt: list[Expr] = [*moves.values(), *inner_nodes.values(), *directions.values()]
    derivatives = iter(vjp(lagrangian, wrt))
    by_move = {k: next(derivatives) for k in moves}
    by_step = {k: negative(next(derivatives)) for k in inner_nodes}
    by_direction = dict(zip(directions, derivatives, strict=True))
    names = dict(first.names)
    for k, node in inner_nodes.items():
        name_node(names, node, Input("da", k, moves[k].axes, moves[k].role))
        name_node(names, by_step[k], Input("dy", k, moves[k].axes, moves[k].role))
    forward: list[Equation] = []
    for c in model.constraints:
        if c.index in inner_nodes:
            symbol = c.symbol("da", Role.TANGENT)
            forward.append(definition(symbol, inner_nodes[c.index], names, c.index))
        forward.append(
            Equation(moves[c.index], abbreviate([linear[c.index]], names)[0], c.index, "definition")
        )
    curvature = zero(seed.axes) if curved is None else abbreviate([curved], names)[0]
    backward: list[Equation] = [Equation(seed, curvature, output.index, "definition")]
    for c in reversed(model.constraints):
        value = solve_unit(by_move[c.index], adjoints[c.index])
        backward.append(Equation(adjoints[c.index], abbreviate([value], names)[0], c.index, "definition"))
        if c.index in by_step and by_step[c.index] in names:
            symbol = c.symbol("dy", Role.TANGENT)
            backward.append(definition(symbol, by_step[c.index], names, c.index))
    product: list[Equation] = []
    for owned in reversed(model.parameters):
        for symbol, result in GAUSS_NEWTON_PRODUCT.pairs(owned):
            value = abbreviate([by_direction[symbol]], names)[0]
            product.append(Equation(result, value, owned.index, "definition"))
    return GaussNewton(
        lagrangian,
        System("linearized", "Linearised forward model", tuple(forward)),
        System("linearized_adjoint", "Adjoint of the linearised model", tuple(backward)),
        System("gauss_newton_product", "Gauss–Newton–vector product", tuple(product)),
    )
