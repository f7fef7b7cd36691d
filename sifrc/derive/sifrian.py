"""Second order: the Sifrian, its four equations, and the Hessian–vector product.

The Sifrian pairs every first-order equation with a multiplier (ESN(11), MK(21)):

    S = Σ ⟨x_k − F_k(a_k), γ_k⟩ + Σ ⟨∂L/∂x_k, ζ_k⟩ + Σ ⟨G_k − ∂L/∂W_k, N_k⟩ + Σ ⟨g_k − ∂L/∂β_k, η_k⟩

Its stationarity in the states and adjoints gives equations (3) and (4) of the tetrad; its derivatives in
the parameters are −H(N, η), so that ∂S/∂W_k = −G_k and ∂S/∂β_k = −g_k, equations (1) and (2), say that
(N, η) is a Newton direction (ESN(13–16), MK(23–30)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sifrc.calculus import vjp
from sifrc.derive.elimination import solve_unit
from sifrc.derive.lagrangian import FirstOrder
from sifrc.derive.shaped import DIRECTION, GRADIENT, HESSIAN_PRODUCT
from sifrc.derive.system import Equation, System, abbreviate, definition, name_node
from sifrc.ir import Expr, Input, Role
from sifrc.ir.build import inner, negative, subtract, total, zero

__all__ = ["SecondOrder", "derive_second_order"]


@dataclass(frozen=True)
class SecondOrder:
    """What the Sifrian gives.

    Args:
        first: the first-order derivation it builds on.
        sifrian: S, a scalar expression.
        forward_multipliers: k -> γ[k]; along a direction γ_k = −ḃ_k.
        adjoint_multipliers: k -> ζ[k]; along a direction ζ_k = −ẋ_k.
        directions: parameter -> N[k] or η[k].
        by_state: k -> ∂S/∂x_k (equation 3).
        by_adjoint: k -> ∂S/∂b_k (equation 4).
        by_parameter: parameter -> ∂S/∂W_k or ∂S/∂β_k (equations 1 and 2, without their right sides).
        names: inner node -> abbreviation: a[k], y[k], u[k] = ∂S/∂y_k and z[k] = ∂S/∂a_k.
        tangent: ζ_k := …, forward in k.
        adjoint_tangent: γ_k := …, backward in k.
        product: H(N, η) := −∂S/∂θ.
    """

    first: FirstOrder
    sifrian: Expr
    forward_multipliers: Mapping[int, Input]
    adjoint_multipliers: Mapping[int, Input]
    directions: Mapping[Input, Input]
    by_state: Mapping[int, Expr]
    by_adjoint: Mapping[int, Expr]
    by_parameter: Mapping[Input, Expr]
    names: Mapping[Expr, Expr]
    tangent: System
    adjoint_tangent: System
    product: System


def derive_second_order(first: FirstOrder) -> SecondOrder:
    """The Sifrian of a model and what follows from it for a given direction (N, η)."""
    model = first.model
    gamma = {c.index: c.symbol("γ", Role.TANGENT) for c in model.constraints}
    zeta = {c.index: c.symbol("ζ", Role.TANGENT) for c in model.constraints}
    directions: dict[Input, Input] = {}
    gradients: dict[Input, Input] = {}
    for owned in model.parameters:
        directions.update(DIRECTION.pairs(owned))
        gradients.update(GRADIENT.pairs(owned))
    sifrian = total(
        [
            *(inner(subtract(c.state, c.value), gamma[c.index]) for c in model.constraints),
            *(inner(first.stationarity[c.index], zeta[c.index]) for c in model.constraints),
            *(
                inner(subtract(gradients[symbol], first.gradients[symbol]), direction)
                for symbol, direction in directions.items()
            ),
        ],
        (),
    )
    states = [c.state for c in model.constraints]
    adjoints = [first.adjoints[c.index] for c in model.constraints]
    nonlinear = [c for c in model.constraints if c.activation is not None]
    # A slope that is zero is no variable: zero also stands where something else vanishes.
    sloped = [c for c in nonlinear if first.slopes[c.index] is not zero(c.state.axes)]
    slopes = [first.slopes[c.index] for c in sloped]
    pre_activations = [c.pre_activation for c in nonlinear]
    members = list(directions)
    derivatives = iter(vjp(sifrian, [*states, *adjoints, *slopes, *pre_activations, *members]))
    by_state = {c.index: next(derivatives) for c in model.constraints}
    by_adjoint = {c.index: next(derivatives) for c in model.constraints}
    by_slope = {c.index: next(derivatives) for c in sloped}
    by_pre_activation = {c.index: next(derivatives) for c in nonlinear}
    by_parameter = dict(zip(members, derivatives, strict=True))

    names = dict(first.names)
    for family, nodes in (("u", by_slope), ("z", by_pre_activation)):
        for index, node in nodes.items():
            name_node(names, node, Input(family, index, node.axes, gamma[index].role))
    return SecondOrder(
        first=first,
        sifrian=sifrian,
        forward_multipliers=MappingProxyType(gamma),
        adjoint_multipliers=MappingProxyType(zeta),
        directions=MappingProxyType(directions),
        by_state=MappingProxyType(by_state),
        by_adjoint=MappingProxyType(by_adjoint),
        by_parameter=MappingProxyType(by_parameter),
        names=MappingProxyType(names),
        tangent=_tangent(first, by_adjoint, zeta, by_slope, names),
        adjoint_tangent=_adjoint_tangent(first, by_state, gamma, by_pre_activation, names),
        product=_product(first, by_parameter, names),
    )


def _tangent(
    first: FirstOrder,
    by_adjoint: Mapping[int, Expr],
    zeta: Mapping[int, Input],
    by_slope: Mapping[int, Expr],
    names: Mapping[Expr, Expr],
) -> System:
    equations: list[Equation] = []
    for c in first.model.constraints:
        node = by_slope.get(c.index)
        if node is not None and node in names:
            symbol = c.symbol("u", Role.TANGENT)
            equations.append(definition(symbol, node, names, c.index))
        (value,) = abbreviate([solve_unit(by_adjoint[c.index], zeta[c.index])], names)
        equations.append(Equation(zeta[c.index], value, c.index, "ESN(16.4)"))
    return System("tangent", "Sifrian (4): forward in k", tuple(equations))


def _adjoint_tangent(
    first: FirstOrder,
    by_state: Mapping[int, Expr],
    gamma: Mapping[int, Input],
    by_pre_activation: Mapping[int, Expr],
    names: Mapping[Expr, Expr],
) -> System:
    equations: list[Equation] = []
    for c in reversed(first.model.constraints):
        (value,) = abbreviate([solve_unit(by_state[c.index], gamma[c.index])], names)
        equations.append(Equation(gamma[c.index], value, c.index, "ESN(16.3)"))
        node = by_pre_activation.get(c.index)
        if node is not None and node in names:
            symbol = c.symbol("z", Role.TANGENT)
            equations.append(definition(symbol, node, names, c.index))
    return System("adjoint_tangent", "Sifrian (3): backward in k", tuple(equations))


_SOURCES = {"weight": "ESN(16.1)", "bias": "ESN(16.2)"}


def _product(first: FirstOrder, by_parameter: Mapping[Input, Expr], names: Mapping[Expr, Expr]) -> System:
    equations: list[Equation] = []
    for owned in reversed(first.model.parameters):
        for parameter in owned.members:
            (value,) = abbreviate([negative(by_parameter[parameter.symbol])], names)
            source = _SOURCES.get(parameter.slot, "ESN(16)")
            equations.append(Equation(HESSIAN_PRODUCT.of(parameter), value, owned.index, source))
    return System("hessian_product", "Sifrian (1), (2): the Hessian–vector product", tuple(equations))
