"""Level 1: identities that the derived systems must satisfy, as expressions that must be zero.

Derivations take derivatives in reverse; the identities take the same ones forward. They hold for
every value of the symbols in them, except those of the Newton direction, which hold on a sample's own states
and adjoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sifrc.calculus import jvp
from sifrc.derive.derived import Derived
from sifrc.derive.gauss_newton import GaussNewton
from sifrc.derive.lagrangian import FirstOrder
from sifrc.derive.samples import SAMPLE_GRADIENT, SECOND_MOMENT, SQUARED_NORM, sample_system
from sifrc.derive.shaped import DIRECTION, GAUSS_NEWTON_PRODUCT, GRADIENT, HESSIAN_PRODUCT
from sifrc.derive.sifrian import SecondOrder
from sifrc.derive.system import System
from sifrc.ir import Expr, Input, Role
from sifrc.ir.build import apply, hadamard, inner, negative, subtract, total, zero
from sifrc.ir.traverse import inputs_of, substitute
from sifrc.model import Constraint

__all__ = [
    "Identity",
    "first_order_identities",
    "gauss_newton_identities",
    "sample_identities",
    "second_order_identities",
    "unfold",
]

_ABBREVIATIONS = frozenset({"a", "y", "u", "z", "da", "dy", *SAMPLE_GRADIENT.families})


@dataclass(frozen=True)
class Identity:
    """An expression that must be zero.

    Args:
        label: what it says, e.g. ``∂L/∂x[2] = 0``.
        residual: the expression.
    """

    label: str
    residual: Expr


def unfold(expr: Expr, systems: Iterable[System]) -> Expr:
    """The expression with abbreviations (a_k, y_k, …) replaced by their definitions."""
    equations = [equation for system in systems for equation in system.equations]
    for equation in reversed(equations):  # a definition uses earlier symbols only
        if equation.symbol.family in _ABBREVIATIONS:
            expr = substitute(expr, {equation.symbol: equation.value})
    return expr


def first_order_identities(derived: Derived) -> Iterator[Identity]:
    """Back-propagation makes L stationary in every state; the gradient is its differential."""
    first = derived.first
    systems = (first.forward, first.adjoint)
    for c in first.model.constraints:
        value = unfold(first.adjoint[first.adjoints[c.index]], systems)
        yield Identity(
            f"∂L/∂x[{c.index}] = 0",
            _stationary(first.lagrangian, c.state, first.adjoints[c.index], value),
        )
        if c.activation is not None:
            yield Identity(f"y[{c.index}] = F'(a[{c.index}]) ∘ b[{c.index}]", _slope(first, c, systems))
    for owned in first.model.parameters:
        for symbol, result in GRADIENT.pairs(owned):
            value = unfold(first.gradient[result], systems)
            yield Identity(
                f"{result.name} = ∂L/∂{symbol.name}", _differential(first.lagrangian, symbol, value)
            )


def _slope(first: FirstOrder, c: Constraint, systems: tuple[System, ...]) -> Expr:
    """⟨y, δ⟩ − ⟨b, dF(a)[δ]⟩: the sign of y, which methods use by name."""
    assert c.activation is not None
    argument = Input("α", c.index, c.axes, Role.STATE)
    shift = Input("δ", None, c.axes, Role.TANGENT)
    moved = jvp(apply(c.activation, argument), {argument: shift}) or zero(c.axes)
    value = substitute(inner(moved, first.adjoints[c.index]), {argument: c.pre_activation})
    named = first.backpropagated(c.index)
    return subtract(inner(unfold(first.adjoint[named], systems), shift), value)


def second_order_identities(derived: Derived) -> Iterator[Identity]:
    """The Sifrian's equations are the tangents of the first-order ones; the systems solve them."""
    second, first = derived.second, derived.first
    moves, tangents = _tangents(second)
    for c in first.model.constraints:
        pairs = (
            ("(3)", second.by_state[c.index], first.stationarity[c.index], c.state.name),
            ("(4)", second.by_adjoint[c.index], subtract(c.state, c.value), first.adjoints[c.index].name),
        )
        for number, equation, original, name in pairs:
            moved = jvp(original, moves) or zero(equation.axes)
            residual = total([substitute(equation, tangents), moved], equation.axes)
            yield Identity(f"{number} ∂S/∂{name} is a tangent", residual)
    for symbol, equation in second.by_parameter.items():
        moved = jvp(first.gradients[symbol], moves) or zero(equation.axes)
        residual = total([substitute(equation, tangents), moved], equation.axes)
        yield Identity(f"∂S/∂{symbol.name} is minus the tangent of the gradient", residual)
    yield from _second_order_systems(first, second)


def _second_order_systems(first: FirstOrder, second: SecondOrder) -> Iterator[Identity]:
    systems = (first.forward, first.adjoint, second.tangent, second.adjoint_tangent)
    for c in first.model.constraints:
        zeta, gamma = second.adjoint_multipliers[c.index], second.forward_multipliers[c.index]
        value = unfold(second.tangent[zeta], systems)
        yield Identity(f"(4) solved for {zeta.name}", _solved(second.by_adjoint[c.index], zeta, value))
        value = unfold(second.adjoint_tangent[gamma], systems)
        yield Identity(f"(3) solved for {gamma.name}", _solved(second.by_state[c.index], gamma, value))
    for owned in first.model.parameters:
        for symbol, result in HESSIAN_PRODUCT.pairs(owned):
            value = unfold(second.product[result], systems)
            yield Identity(
                f"{result.name} = −∂S/∂{symbol.name}", _differential(negative(second.sifrian), symbol, value)
            )


def gauss_newton_identities(derived: Derived) -> Iterator[Identity]:
    """The linearised model, its adjoint and the product, from the second differential of the loss."""
    first, gauss_newton = derived.first, derived.gauss_newton
    lagrangian = gauss_newton.lagrangian
    systems = (first.forward, first.adjoint, gauss_newton.tangent, gauss_newton.adjoint)
    moves = _linear_moves(first, gauss_newton)
    for c in first.model.constraints:
        move = moves[c.state]
        assert isinstance(move, Input)
        tangent = jvp(c.value, moves) or zero(c.state.axes)
        solved = unfold(gauss_newton.tangent[move], systems)
        yield Identity(f"{move.name} is the tangent of {c.state.name}", subtract(solved, tangent))
        adjoint = _symbol(gauss_newton.adjoint, "c", c.index)
        value = unfold(gauss_newton.adjoint[adjoint], systems)
        yield Identity(f"adjoint of {move.name}", _stationary(lagrangian, move, adjoint, value))
    output = first.model.output
    seed = _symbol(gauss_newton.adjoint, "r", None)
    shift = Input("δ", None, output.state.axes, Role.TANGENT)
    once = jvp(first.model.loss, {output.state: shift}) or zero()
    twice = jvp(once, {output.state: moves[output.state]}) or zero()
    value = unfold(gauss_newton.adjoint[seed], systems)
    yield Identity("r is the curvature of the loss", subtract(inner(value, shift), twice))
    for owned in first.model.parameters:
        pairs = zip(DIRECTION.pairs(owned), GAUSS_NEWTON_PRODUCT.pairs(owned), strict=True)
        for (_, direction), (_, result) in pairs:
            value = unfold(gauss_newton.product[result], systems)
            yield Identity(
                f"{result.name} = ∂/∂{direction.name}", _differential(lagrangian, direction, value)
            )


def _tangents(second: SecondOrder) -> tuple[dict[Input, Expr], dict[Input, Expr]]:
    """Directions of states, adjoints and parameters; and ζ = −ẋ, γ = −ḃ in those terms."""
    first = second.first
    moves: dict[Input, Expr] = dict(second.directions)
    tangents: dict[Input, Expr] = {}
    for c in first.model.constraints:
        state = Input("ẋ", c.index, c.axes, Role.TANGENT)
        adjoint = Input("ḃ", c.index, c.axes, Role.TANGENT)
        moves |= {c.state: state, first.adjoints[c.index]: adjoint}
        tangents[second.adjoint_multipliers[c.index]] = negative(state)
        tangents[second.forward_multipliers[c.index]] = negative(adjoint)
    return moves, tangents


def _linear_moves(first: FirstOrder, gauss_newton: GaussNewton) -> dict[Input, Expr]:
    moves: dict[Input, Expr] = {
        c.state: _symbol(gauss_newton.tangent, "dx", c.index) for c in first.model.constraints
    }
    for owned in first.model.parameters:
        moves |= dict(DIRECTION.pairs(owned))
    return moves


def _symbol(system: System, family: str, index: int | None) -> Input:
    return next(s for s in system.symbols if s.family == family and s.index == index)


def _stationary(lagrangian: Expr, symbol: Input, adjoint: Input, value: Expr) -> Expr:
    """⟨∂L/∂symbol, δ⟩ with the solution put in."""
    shift = Input("δ", None, symbol.axes, Role.TANGENT)
    form = jvp(lagrangian, {symbol: shift}) or zero()
    if adjoint not in inputs_of(value):
        return substitute(form, {adjoint: value})
    return subtract(form, inner(subtract(adjoint, value), shift))


def _solved(equation: Expr, symbol: Input, value: Expr) -> Expr:
    """An equation with the solution for a symbol put in.

    A solution that refers to the symbol at other steps says what the equation says, symbol − value = 0: put
    in, it would come back at every step.
    """
    if symbol not in inputs_of(value):
        return substitute(equation, {symbol: value})
    return subtract(equation, subtract(symbol, value))


def _differential(scalar: Expr, symbol: Input, derivative: Expr) -> Expr:
    """⟨derivative, δ⟩ minus the differential of the scalar along δ."""
    shift = Input("δ", None, symbol.axes, Role.TANGENT)
    moved = jvp(scalar, {symbol: shift}) or zero()
    return subtract(inner(derivative, shift), moved)


def sample_identities(derived: Derived) -> Iterator[Identity]:
    """Squares and norms of the gradient of a sample, which are never formed, are those of the gradient."""
    first = derived.first
    systems = (first.forward, first.adjoint)
    norms, squares = sample_system(first, "norm"), sample_system(first, "second")
    for owned in first.model.parameters:
        for (_, result), (_, square), (_, norm) in zip(
            GRADIENT.pairs(owned), SECOND_MOMENT.pairs(owned), SQUARED_NORM.pairs(owned), strict=True
        ):
            value = unfold(first.gradient[result], systems)
            size = Input(norm.family, norm.index, (), Role.STATE)
            own, whole = hadamard(value, value), inner(value, value)
            found = unfold(squares[square], (*systems, squares))
            yield Identity(f"{square.name} = {result.name}²", subtract(own, found))
            found = unfold(norms[size], (*systems, norms))
            yield Identity(f"{size.name} = ‖{result.name}‖²", subtract(whole, found))
