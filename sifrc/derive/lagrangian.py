"""First order: the Lagrangian, back-propagation and the gradient.

    L(x, θ, b) = ℓ(x_n, t) + R(x) + R(θ) + Σ_k ⟨x_k − F_k(a_k), b_k⟩             ESN(5), MK(13)

∂L/∂x_k = 0 is triangular in the adjoints b_k and solved in reverse graph order (back-propagation,
ESN(9), MK(17)); ∂L/∂θ at its solution is the gradient (ESN(10), MK(20)). Everything is for one sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from sifrc.calculus import vjp
from sifrc.derive.elimination import solve_unit
from sifrc.derive.shaped import GRADIENT
from sifrc.derive.system import Equation, System, abbreviate, definition, name_node
from sifrc.ir import Expr, Input, Role
from sifrc.ir.build import apply, einsum, inner, negative, subtract, total, zero
from sifrc.ir.normal import Relation, reduce, relation
from sifrc.ir.traverse import inputs_of
from sifrc.model import Model
from sifrc.model.build import state_regularizer
from sifrc.scalar.function import RECIPROCAL

__all__ = ["FirstOrder", "derive_first_order"]


@dataclass(frozen=True)
class FirstOrder:
    """What the Lagrangian gives.

    Args:
        model: the model.
        lagrangian: L, a scalar expression.
        adjoints: k -> b[k].
        slopes: k -> y_k as an inner node of the derivatives, for constraints with an activation.
        stationarity: k -> ∂L/∂x_k, before it is solved for b_k.
        gradients: parameter symbol -> ∂L/∂parameter.
        names: inner node -> the symbol that abbreviates it (a[k], y[k]).
        forward: x_k := F_k(a_k).
        evaluation: the same after training, e.g. with running statistics in the place of those of the batch.
        evaluation_loss: ℓ after it.
        normalization: κ := 1/ω̄, where not all targets count.
        statistics: running statistics := theirs after a step.
        objective: ℓ and ℓ + R.
        adjoint: b_k := ….
        gradient: G_k, g_k := ….
    """

    model: Model
    lagrangian: Expr
    adjoints: Mapping[int, Input]
    slopes: Mapping[int, Expr]
    stationarity: Mapping[int, Expr]
    gradients: Mapping[Input, Expr]
    names: Mapping[Expr, Expr]
    forward: System
    evaluation: System
    evaluation_loss: System
    normalization: System
    statistics: System
    objective: System
    adjoint: System
    gradient: System

    def backpropagated(self, index: int) -> Input:
        """y_k = F'(a_k) ∘ b_k; b_k itself where the activation is the identity."""
        if index not in self.slopes:
            return self.adjoints[index]
        adjoint = self.adjoints[index]
        return Input("y", index, adjoint.axes, adjoint.role)

    def short(self, expr: Expr) -> Expr:
        """The expression with a_k and y_k abbreviated."""
        return abbreviate([expr], self.names)[0]

    def folded(self, expr: Expr) -> Expr:
        """The expanded expression with a_k and every product F'(a_k) ∘ b_k = y_k abbreviated."""
        relations: list[Relation] = []
        present = {symbol.index for symbol in inputs_of(expr) if symbol.family == "b"}
        for equation in self.adjoint.equations:
            if equation.symbol.family == "y" and equation.symbol.index in present:
                difference = subtract(equation.value, equation.symbol)
                relations.append(relation(equation.symbol.name, difference, equation.value))
        return reduce(self.short(expr), relations)


def derive_first_order(model: Model) -> FirstOrder:
    """Back-propagation and gradient of a model, from its Lagrangian.

    Raises:
        DerivationError: the stationarity system is not triangular (cannot happen for a graph).
    """
    adjoints = {c.index: c.symbol("b", Role.ADJOINT) for c in model.constraints}
    products = [inner(subtract(c.state, c.value), adjoints[c.index]) for c in model.constraints]
    lagrangian = total([model.data_loss, model.regularizer, model.penalty, *products], ())
    nonlinear = [c for c in model.constraints if c.activation is not None]
    states = [c.state for c in model.constraints]
    pre_activations = [c.pre_activation for c in nonlinear]
    members = [symbol for owned in model.parameters for symbol in owned.symbols]
    derivatives = iter(vjp(lagrangian, [*states, *pre_activations, *members]))
    stationarity = {c.index: next(derivatives) for c in model.constraints}
    slopes = {c.index: negative(next(derivatives)) for c in nonlinear}
    gradients = dict(zip(members, derivatives, strict=True))

    names: dict[Expr, Expr] = {}
    for c in nonlinear:
        name_node(names, c.pre_activation, c.symbol("a", Role.STATE))
        name_node(names, slopes[c.index], c.symbol("y", Role.ADJOINT))
    forward = _forward(model, names)
    return FirstOrder(
        model=model,
        lagrangian=lagrangian,
        adjoints=MappingProxyType(adjoints),
        slopes=MappingProxyType(slopes),
        stationarity=MappingProxyType(stationarity),
        gradients=MappingProxyType(gradients),
        names=MappingProxyType(names),
        forward=forward,
        evaluation=_evaluation(model, forward),
        evaluation_loss=System("evaluation_loss", "Loss of one sample after training", (_loss(model),)),
        normalization=_normalization(model),
        statistics=_statistics(model),
        objective=_objective(model),
        adjoint=_adjoint(model, stationarity, adjoints, slopes, names),
        gradient=_gradient(model, gradients, names),
    )


def _forward(model: Model, names: Mapping[Expr, Expr]) -> System:
    equations: list[Equation] = []
    for c in model.constraints:
        value = c.value
        if c.pre_activation in names:
            symbol = c.symbol("a", Role.STATE)
            equations.append(Equation(symbol, c.pre_activation, c.index, "definition"))
            (value,) = abbreviate([c.value], {c.pre_activation: symbol})
        equations.append(Equation(c.state, value, c.index, "ESN(2)"))
    return System("forward", "Forward model", tuple(equations))


def _evaluation(model: Model, forward: System) -> System:
    """What the network computes after training."""
    apart = {
        c.state if c.activation is None else c.symbol("a", Role.STATE): c.evaluated
        for c in model.constraints
        if c.evaluated is not None
    }
    equations = tuple(
        replace(equation, value=apart.get(equation.symbol, equation.value)) for equation in forward.equations
    )
    return System("evaluation", "Forward model after training", equations)


def _normalization(model: Model) -> System:
    equations: tuple[Equation, ...] = ()
    found = model.normalization
    if found is not None:
        mean = Equation(found.mean, found.count, None, "definition")
        equations = (mean, Equation(found.factor, apply(RECIPROCAL, found.mean), None, "definition"))
    return System("normalization", "What means over targets divide by", equations)


def _statistics(model: Model) -> System:
    equations = tuple(
        Equation(buffer.symbol, buffer.update, buffer.symbol.index, "definition")
        for buffer in model.buffers
        if buffer.update is not None
    )
    return System("statistics", "Running statistics after a step", equations)


def _objective(model: Model) -> System:
    """ℓ, and ℓ + R with R summed up layer by layer, that of the parameters too."""
    objective = Input("objective", None, (), Role.STATE)
    equations = [_loss(model)]
    data: Expr = equations[0].symbol
    if model.loss_factor is not None:
        data = einsum([(model.loss_factor, ()), (data, ())], ())
    parts: list[Expr] = []
    for k, factor in sorted(model.regularized):
        partial = Input("R", k, (), Role.STATE)
        value = total([*parts, state_regularizer([(factor, model.state(k))])], ())
        equations.append(Equation(partial, value, k, "ESN(4)"))
        parts = [partial]
    of_parameters: list[Expr] = []
    for owned in model.parameters:
        value = model.penalty_of(owned.symbols)
        if value is not zero():
            partial = Input("Rθ", owned.index, (), Role.DIRECTION)
            equations.append(Equation(partial, total([*of_parameters, value], ()), owned.index, "definition"))
            of_parameters = [partial]
    equations.append(Equation(objective, total([data, *parts, *of_parameters], ()), None, "ESN(4)"))
    return System("objective", "Loss and objective of one sample", tuple(equations))


def _loss(model: Model) -> Equation:
    return Equation(Input("loss", None, (), Role.STATE), model.loss, None, "definition")


def _adjoint(
    model: Model,
    stationarity: Mapping[int, Expr],
    adjoints: Mapping[int, Input],
    slopes: Mapping[int, Expr],
    names: Mapping[Expr, Expr],
) -> System:
    equations: list[Equation] = []
    for c in reversed(model.constraints):
        value = solve_unit(stationarity[c.index], adjoints[c.index])
        (value,) = abbreviate([value], names)
        # A product with a number is one with its factors: y_k of a state without axes is no node of it.
        numbers = [e for e in equations if e.symbol.family == "y" and not e.symbol.axes]
        if numbers:
            known = [relation(e.symbol.name, subtract(e.value, e.symbol), e.value) for e in numbers]
            value = reduce(value, known)
        equations.append(Equation(adjoints[c.index], value, c.index, "ESN(9)"))
        if c.index in slopes:
            symbol = c.symbol("y", Role.ADJOINT)
            equations.append(definition(symbol, slopes[c.index], names, c.index))
    return System("adjoint", "Back-propagation", tuple(equations))


def _gradient(model: Model, gradients: Mapping[Input, Expr], names: Mapping[Expr, Expr]) -> System:
    equations: list[Equation] = []
    for owned in reversed(model.parameters):
        for symbol, result in GRADIENT.pairs(owned):
            (value,) = abbreviate([gradients[symbol]], names)
            equations.append(Equation(result, value, owned.index, "ESN(10)"))
    return System("gradient", "Gradient", tuple(equations))
