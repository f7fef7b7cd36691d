"""Derivatives of a function written through its value, which is in an array already."""

from __future__ import annotations

import sympy

from sifrc.scalar.primitives import expm1

__all__ = ["through_value"]


def through_value(derivative: sympy.Expr, value: sympy.Expr, state: sympy.Symbol) -> sympy.Expr | None:
    """The derivative with the function's value in place of what it computes again, or None.

    Either the derivative contains the value (tanh' = 1 − tanh²), or both have the same branches and a
    branch of the value is a multiple of exp(u) − 1 (elu' = elu + 1 below zero).

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
        Piecewise((1, x > 0), (s + 2, True))
    """
    if value.is_Function and not isinstance(value, sympy.Piecewise) and derivative.has(value):
        return derivative.xreplace({value: state})
    (outer, own), (factor, pieces) = derivative.as_coeff_Mul(), value.as_coeff_Mul()
    if not (isinstance(own, sympy.Piecewise) and isinstance(pieces, sympy.Piecewise)):
        return None
    if [condition for _, condition in own.args] != [condition for _, condition in pieces.args]:
        return None
    branches = []
    for (slope, condition), (piece, _) in zip(own.args, pieces.args, strict=True):
        number, rest = piece.as_coeff_Mul()
        if isinstance(rest, expm1):
            known = state / (factor * number) + 1
            slope = sympy.expand(slope.xreplace({sympy.exp(rest.args[0]): known}))
        branches.append((slope, condition))
    changed = outer * sympy.Piecewise(*branches)
    return changed if changed.has(state) and not changed.has(sympy.exp) else None
