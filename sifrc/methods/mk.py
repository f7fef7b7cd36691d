"""The Mehouachi–Kasmi direction: saddle-free stochastic Newton as a scaled gradient, with damping."""

from __future__ import annotations

from dataclasses import replace

from sifrc.derive.derived import Derived
from sifrc.derive.elimination import solve_shifted_outer
from sifrc.derive.system import Equation
from sifrc.ir import Expr, Input, Role, Solve
from sifrc.ir.build import apply, inner, negative, rename, subtract, total, zero
from sifrc.ir.normal import expand, reduce
from sifrc.ir.traverse import inputs_of, rewrite
from sifrc.methods.base import (
    Choices,
    Method,
    MethodOption,
    StepPlan,
    check_regularised,
    constraint_index,
    number,
    ruled_layers,
    scalar_factors,
    step_of_coefficients,
)
from sifrc.methods.esn import convex_granular
from sifrc.scalar import ABS, RECIPROCAL

__all__ = ["MehouachiKasmi"]

_DAMPING = Input("damping", None, (), Role.HYPERPARAMETER)


class MehouachiKasmi(Method):
    """Solves, in each layer, (damping·I + g gᵀ / c) N = G, MK(41); without damping MK(40)."""

    name = "mk"
    title = "Mehouachi–Kasmi"
    paper = "MK"
    options = (
        MethodOption(
            "white_layer", True, "identity layer before the input that gives the first layer its rule"
        ),
        number("learning_rate", 0.01, "step size"),
        number("damping", 1.0, "μ of MK(42); 0 gives MK(40)"),
    )

    def step(self, derived: Derived, chosen: Choices) -> StepPlan:
        check_regularised(derived)
        newton, model = derived.newton, derived.model
        first = newton.second.first
        numbers: list[Equation] = []
        directions: dict[Input, Expr] = {}
        for layer in ruled_layers(derived):
            assert layer.bias is not None
            k = layer.index
            gradient = {symbol: first.gradients[symbol] for symbol in layer.symbols}
            owns_output = model.output.parameters is layer
            bias_part = newton.biases[k]
            if owns_output:
                bias_part = subtract(bias_part, newton.granular)
            # ⟨g, η⟩ without the granular part is −λ‖x‖², MK(37); the sign is inverted, MK(39)
            plain = reduce(negative(inner(gradient[layer.bias], bias_part)), newton.relations)
            stretch = [first.short(plain)]
            if owns_output:
                # a saturated sample has no exact v: what M can see of the adjoint is kept
                granular = least_norm(convex_granular(newton))
                kick = inner(gradient[layer.bias], rename(granular, layer.bias.axes))
                stretch.append(apply(ABS, first.short(kick)))
            c = Input("c_mk", k, (), Role.STATE)
            stretched = total(stretch, ())
            numbers.append(Equation(c, stretched, k, "MK(39)"))
            curvatures: dict[Input, Expr | None] = {layer.weight: _weight_factor(derived, k)}
            if stretched is not zero():
                curvatures[layer.bias] = c
            for symbol, curvature in curvatures.items():
                if curvature is None:
                    continue
                value = _damped(derived, gradient[symbol], k, curvature)
                more, directions[symbol] = scalar_factors(
                    value, "cN" if symbol is layer.weight else "cη", k, Role.STATE
                )
                numbers += more
        notes = (
            "A batch takes the mean of its samples' directions: not a Newton step of the batch.",
            "In the last layer the direction keeps only the inner product of η_n with the gradient.",
        )
        return step_of_coefficients(derived, numbers, directions, separable=True, notes=notes)


def least_norm(expr: Expr) -> Expr:
    """The expression with linear systems solved in the least-squares sense instead of refused."""

    def rule(node: Expr) -> Expr | None:
        return replace(node, checked=False) if isinstance(node, Solve) else None

    return rewrite([expr], rule)[0]


def _weight_factor(derived: Derived, layer: int) -> Expr | None:
    """λ_{k−1}: the coefficient of x in N_kᵀ y_k + λ x = 0, which the elimination left; None for zero."""
    condition = derived.newton.weight_conditions[layer]
    return next((symbol for symbol in inputs_of(condition) if symbol.family == "λ"), None)


def _damped(derived: Derived, gradient: Expr, layer: int, curvature: Expr) -> Expr:
    """(damping·I + g gᵀ / c)⁻¹ applied to a gradient, which is a multiple of g: MK(41, 42)."""
    y = derived.first.backpropagated(constraint_index(derived.model, layer))
    weight = apply(RECIPROCAL, curvature)
    return expand(solve_shifted_outer(_DAMPING, weight, y, expand(derived.first.short(gradient))))
