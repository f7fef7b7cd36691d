"""Derivatives of a function written through its value, which is in an array already."""

from __future__ import annotations

import sympy

from sifrc.scalar.primitives import expm1

__all__ = ["through_value"]


def through_value(derivative: sympy.Expr, value: sympy.Expr, state: sympy.Symbol) -> sympy.Expr | None:
    """The derivative with the function's value in place of what it computes again, or None.

    Either the derivative contains the value (tanh' = 1 − tanh²), or both are powers of one thing
    (u^(−1/2)' = −(u^(−1/2))³/2), or both have the same branches and a branch of the value is a multiple
    of exp(u) − 1 (elu' = elu + 1 below zero). Branches by the sign of x are by that of the value, where it
    has the same one.

    Args:
        derivative: of any order.
        value: of the function.
        state: stands for the value.

    Example:
        >>> x, s = sympy.symbols("x s", real=True)
        >>> through_value(1 - sympy.tanh(x) ** 2, sympy.tanh(x), s)
        1 - s**2
        >>> elu = sympy.Piecewise((x, x > 0), (2 * expm1(x), True))
        >>> through_value(sympy.Piecewise((1, x > 0), (2 * sympy.exp(x), True)), elu, s)
        Piecewise((1, s > 0), (s + 2, True))
        >>> relu = sympy.Piecewise((0, x <= 0), (x, True))
        >>> through_value(sympy.Piecewise((0, x <= 0), (1, True)), relu, s)
        Piecewise((0, s <= 0), (1, True))
        >>> through_value(-((x + 1) ** sympy.Rational(-3, 2)) / 2, 1 / sympy.sqrt(x + 1), s)
        -s**3/2
    """
    if value.is_Function and not isinstance(value, sympy.Piecewise) and derivative.has(value):
        return derivative.xreplace({value: state})
    if isinstance(value, sympy.Pow) and value.base.free_symbols:
        return _through_power(derivative, value, state)
    (outer, own), (factor, pieces) = derivative.as_coeff_Mul(), value.as_coeff_Mul()
    if not (isinstance(own, sympy.Piecewise) and isinstance(pieces, sympy.Piecewise)):
        return None
    if [condition for _, condition in own.args] != [condition for _, condition in pieces.args]:
        return None
    branches: list[tuple[sympy.Expr, sympy.Basic]] = []
    for (slope, condition), (piece, _) in zip(own.args, pieces.args, strict=True):
        number, rest = piece.as_coeff_Mul()
        if isinstance(rest, expm1):
            known = state / (factor * number) + 1
            slope = sympy.expand(slope.xreplace({sympy.exp(rest.args[0]): known}))
        branches.append((slope, condition))
    if _keeps_sign(pieces, factor):
        x = pieces.args[0][1].lhs
        branches = [(slope, condition.xreplace({x: state})) for slope, condition in branches]
    changed = outer * sympy.Piecewise(*branches)
    return changed if changed.has(state) and not changed.has(sympy.exp) else None


def _through_power(derivative: sympy.Expr, value: sympy.Pow, state: sympy.Symbol) -> sympy.Expr | None:
    """A multiple of a power of what the value is a power of, where that is a whole power of the value."""
    number, power = derivative.as_coeff_Mul()
    if not isinstance(power, sympy.Pow) or power.base != value.base:
        return None
    ratio = power.exp / value.exp
    return number * state**ratio if ratio.is_Integer and ratio > 1 else None


def _keeps_sign(pieces: sympy.Expr, factor: sympy.Expr) -> bool:
    """Whether the choice is by the sign of a symbol, and its value is positive exactly where that is."""
    if len(pieces.args) != 2:
        return False
    (first, condition), (second, _) = pieces.args
    above, below = (first, second) if isinstance(condition, sympy.StrictGreaterThan) else (second, first)
    if not isinstance(condition, sympy.StrictGreaterThan | sympy.LessThan) or condition.rhs != 0:
        return False
    x = condition.lhs
    (slope, rest), (number, other) = above.as_coeff_Mul(), below.as_coeff_Mul()
    falls = below == 0 or (number > 0 and other in (x, expm1(x)))
    return bool(x.is_Symbol and rest == x and slope > 0 and factor > 0 and falls)
