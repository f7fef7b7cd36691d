"""Randomised Newton directions: least squares over samples, ESN(22–26).

One sample gives the two equations that the elimination left for each layer, ESN(22),

    N_kᵀ y_k + ∂ℓ_R/∂x_{k−1} = 0        N_k x_{k−1} + η_k = 0.

For random samples they are solved in the least-squares sense, ESN(23). The derivatives of the criterion,
with every product of per-sample quantities replaced by its moment, give the Sylvester system ESN(24).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from sifrc.calculus import vjp
from sifrc.derive.elimination import solve_scaled, solve_two_sided
from sifrc.derive.newton import Newton
from sifrc.ir import Add, Axis, Expr, Input, Operand, Role
from sifrc.ir.build import add, einsum, ones, rename, scale, total
from sifrc.ir.normal import expand, operands_of, terms_of
from sifrc.ir.relative import ordered_terms
from sifrc.ir.traverse import substitute

__all__ = ["LeastSquares", "Moment", "derive_least_squares"]


@dataclass(frozen=True)
class Moment:
    """E[product]: a symbol, and the product of one sample."""

    symbol: Input
    product: Expr


@dataclass(frozen=True)
class LeastSquares:
    """The randomised system of one layer: A N + N V = −C and η = −N m, ESN(24).

    Args:
        layer: index of the layer.
        left: A = E[y yᵀ], over (i, i').
        right: V = E[x xᵀ] − m mᵀ, over (j, j').
        total_weight: E[w]; the number one without sample weights.
        rhs: C = E[y (∂ℓ_R/∂x)ᵀ], over (i, j).
        mean_bias: −η/N: the vector m that η = −N m multiplies, over (j,).
        moments: all moments that occur.
    """

    layer: int
    left: Expr
    right: Expr
    total_weight: Expr
    rhs: Expr
    mean_bias: Expr
    moments: tuple[Moment, ...]


def derive_least_squares(newton: Newton, layer: int, sample_weight: Expr | None = None) -> LeastSquares:
    """The stationarity of ESN(23) for one layer.

    Args:
        newton: elimination that left the equations ESN(22).
        layer: index of the layer.
        sample_weight: w of a sample (ESN A.6), a scalar; one by default.
    """
    symbols = newton.second.directions
    owned = next(p for p in newton.second.first.model.parameters if p.index == layer)
    assert owned.bias is not None
    weight, bias = symbols[owned.weight], symbols[owned.bias]
    first = newton.second.first.folded(newton.weight_conditions[layer])
    second = newton.second.first.folded(newton.bias_conditions[layer])
    criterion = scale(Fraction(1, 2), total([_square(first), _square(second)], ()))
    if sample_weight is not None:
        criterion = einsum([(sample_weight, ()), (criterion, ())], ())
    by_weight, by_bias = (expand(derivative) for derivative in vjp(criterion, [weight, bias]))
    moments: dict[str, Moment] = {}
    by_weight = _expectation(by_weight, (weight, bias), layer, moments)
    by_bias = _expectation(by_bias, (weight, bias), layer, moments)
    value = solve_scaled(by_bias, bias)
    left, right, rhs = solve_two_sided(expand(substitute(by_weight, {bias: value})), weight)
    mass = ones()
    if sample_weight is not None:
        mass = next(moment.symbol for moment in moments.values() if not moment.symbol.axes)
    applied = _applied_to(value, weight)
    return LeastSquares(layer, left, right, mass, rhs, applied, tuple(moments.values()))


def _square(expr: Expr) -> Expr:
    return einsum([(expr, expr.axes), (expr, expr.axes)], ())


def _expectation(expr: Expr, constants: tuple[Input, ...], layer: int, moments: dict[str, Moment]) -> Expr:
    """Replace the per-sample part of every product by its moment."""
    terms: list[tuple[Fraction, Expr]] = []
    ordered = ordered_terms(expr, layer) if isinstance(expr, Add) else list(terms_of(expr))
    for factor, term in ordered:
        operands = operands_of(term)
        fixed = [op for op in operands if op[0] in constants]
        varying = [op for op in operands if op[0] not in constants]
        if varying:
            fixed.append(_moment(varying, fixed, term.axes, layer, moments))
        terms.append((factor, einsum(fixed, term.axes)))
    return add(terms, expr.axes)


def _moment(
    varying: list[Operand],
    fixed: list[Operand],
    out: tuple[Axis, ...],
    layer: int,
    moments: dict[str, Moment],
) -> Operand:
    outside = set(out) | {label for _, labels in fixed for label in labels}
    free = tuple(dict.fromkeys(label for _, labels in varying for label in labels if label in outside))
    own: dict[Axis, Axis] = {}
    for expr, labels in varying:
        for slot, label in zip(expr.axes, labels, strict=True):
            if label in free and label not in own:
                axis = slot
                while axis in own.values():
                    axis = replace(axis, primes=axis.primes + 1)
                own[label] = axis
    product = einsum(
        [(expr, tuple(own.get(label, label) for label in labels)) for expr, labels in varying],
        tuple(own[label] for label in free),
    )
    if product.key not in moments:
        symbol = Input(f"E{len(moments) + 1}", layer, product.axes, Role.DIRECTION)
        moments[product.key] = Moment(symbol, product)
    return moments[product.key].symbol, free


def _applied_to(value: Expr, weight: Input) -> Expr:
    """m of η = −N m."""
    ((factor, term),) = terms_of(expand(value))
    others = [op for op in operands_of(term) if op[0] is not weight]
    label = next(labels for expr, labels in operands_of(term) if expr is weight)[1]
    vector = einsum(others, (label,))
    return rename(scale(-factor, vector), (weight.axes[1],))
