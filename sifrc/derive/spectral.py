"""The spectral choice of the state regularisation, MK(65).

    λ_k = ‖y°_{k+1}‖₂ / ‖F'(a_k)‖_∞

with y° from the back-propagation without regularisation. The λ_k are values per sample and are held
constant under differentiation: they are inputs of the Lagrangian.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sifrc.derive.lagrangian import FirstOrder, derive_first_order
from sifrc.derive.system import Equation, System
from sifrc.errors import DerivationError
from sifrc.ir import Expr, Input, Map, Reduce, Role
from sifrc.ir.build import apply, einsum, inner, ones, zero
from sifrc.ir.traverse import substitute
from sifrc.model import Model
from sifrc.scalar import ABS, RECIPROCAL, SQRT

__all__ = ["Spectral", "derive_spectral", "norm_over_slope"]


@dataclass(frozen=True)
class Spectral:
    """The unregularised adjoints and λ_k, in the order of evaluation."""

    system: System


def derive_spectral(model: Model, white_layer: bool) -> Spectral:
    """λ_k for every hidden state, λ_0 of the white layer, and λ_n where it multiplies the loss.

    Raises:
        DerivationError: the network is not a chain (MK(65) has one successor for each state), or an
            activation that it divides by the slope of has none.
    """
    if not model.is_chain:
        raise DerivationError(
            "spectral regularisation (MK(65)) is defined on chains of dense layers",
            location=model.spec.regularization.location,
            hint="give a number, or one for each state",
        )
    plain = derive_first_order(replace(model, regularizer=zero(), regularized=(), loss_factor=None))
    table = {s: Input(f"{s.family}°", s.index, s.slots, s.role) for s in plain.adjoint.symbols}
    equations = [
        Equation(table[e.symbol], substitute(e.value, table), e.layer, "definition")
        for e in plain.adjoint.equations
    ]
    factors = dict(model.regularized)
    if white_layer:
        factors[0] = Input("λ", 0, (), Role.STATE)
    if model.loss_factor is not None:
        n = model.output.index
        own = substitute(plain.adjoints[n], table)
        equations.append(Equation(model.loss_factor, norm_over_slope(own, _slope(plain, n)), n, "MK(68)"))
    for k in sorted(factors, reverse=True):
        following = substitute(plain.backpropagated(k + 1), table)
        equations.append(Equation(factors[k], norm_over_slope(following, _slope(plain, k)), k, "MK(65)"))
    return Spectral(System("spectral", "Spectral regularisation", tuple(equations)))


def _slope(plain: FirstOrder, index: int) -> Expr:
    """F'(a_k), with a_k abbreviated; ones for the identity and for the input."""
    model = plain.model
    constraint = None if index == 0 else model.constraints[index - 1]
    if constraint is None or constraint.activation is None:
        return ones(model.state(index).axes)
    value = plain.short(constraint.value)
    if not isinstance(value, Map) or value.function.value_form((1,)) == 0:
        layers = {layer.name: layer for layer in model.spec.layers}
        raise DerivationError(
            f"spectral regularisation (MK(65)) divides by the largest slope of an activation; that of "
            f"'{constraint.name}' is zero everywhere",
            location=layers[constraint.layers[-1]].location,
            hint="use an activation that is not constant, or give a number for each state",
        )
    return Map(value.function, (1,), value.operands, value.out)


def norm_over_slope(vector: Expr, slope: Expr) -> Expr:
    """‖vector‖₂ / ‖slope‖_∞, as in MK(65) and MK(68)."""
    norm = apply(SQRT, inner(vector, vector))
    if slope is ones(slope.axes):
        return norm
    largest = apply(ABS, slope)
    for axis in slope.axes:
        largest = Reduce(largest, axis)
    return einsum([(norm, ()), (apply(RECIPROCAL, largest), ())], ())
