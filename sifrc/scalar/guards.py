"""Branches that are harmless where they are not taken, for targets that evaluate both.

``np.where`` and ``torch.where`` compute both branches. In the branch that holds for x <= 0 the
exponential of x = 1000 would overflow: no harm to the value, but NumPy warns, and automatic
differentiation through ``torch.where`` makes NaN of it. Inside the functions that can overflow or
leave their domain, x is therefore replaced by min(x, 0), which is x wherever the branch is taken.
Branches on other conditions than "symbol against number" are left as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import sympy
from sympy import Expr, Max, Min, Piecewise, Pow, Symbol
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean

from sifrc.scalar.primitives import expm1, log1p, where

__all__ = ["guard_branches"]

_OVERFLOWS = (sympy.exp, expm1, sympy.sinh, sympy.cosh)
_LEAVES_DOMAIN = (sympy.log, log1p)


@dataclass(frozen=True)
class _Bounds:
    """lower <= symbol <= upper wherever a branch is taken."""

    lower: Expr | None = None
    upper: Expr | None = None


def _tighten(bounds: dict[Symbol, _Bounds], condition: Boolean) -> dict[Symbol, _Bounds]:
    if not isinstance(condition, Relational):
        return bounds
    left, right = condition.args
    if not (isinstance(left, Symbol) and right.is_number):
        return bounds
    old = bounds.get(left, _Bounds())
    if condition.rel_op in (">", ">="):
        lower = right if old.lower is None else sympy.Max(old.lower, right)
        return bounds | {left: replace(old, lower=lower)}
    if condition.rel_op in ("<", "<="):
        upper = right if old.upper is None else sympy.Min(old.upper, right)
        return bounds | {left: replace(old, upper=upper)}
    return bounds


def _clamped(symbol: Symbol, bounds: _Bounds) -> Expr:
    value: Expr = symbol
    if bounds.upper is not None:
        value = Min(value, bounds.upper)
    return value if bounds.lower is None else Max(value, bounds.lower)


def _interior(symbol: Symbol, bounds: _Bounds) -> Expr:
    """The symbol strictly inside the bounds, else a point that is: log(0) is no better than log(−1)."""
    lower, upper = bounds.lower, bounds.upper
    if lower is not None and upper is not None:
        inside = (lower + upper) / 2
        return where(symbol > lower, where(symbol < upper, symbol, inside), inside)
    if lower is not None:
        return where(symbol > lower, symbol, lower + 1)
    if upper is not None:
        return where(symbol < upper, symbol, upper - 1)
    return symbol


def _guard(branch: Expr, bounds: dict[Symbol, _Bounds]) -> Expr:
    if branch.is_Atom or not bounds or not branch.free_symbols & set(bounds):
        return branch
    if isinstance(branch, _OVERFLOWS):
        return branch.xreplace({s: _clamped(s, b) for s, b in bounds.items()})
    fractional = isinstance(branch, Pow) and not (branch.exp.is_Integer and branch.exp > 0)
    if isinstance(branch, _LEAVES_DOMAIN) or fractional:
        return branch.xreplace({s: _interior(s, b) for s, b in bounds.items()})
    if isinstance(branch, Piecewise):
        return _guard_piecewise(branch, bounds)
    return branch.func(*(_guard(argument, bounds) for argument in branch.args))


def _guard_piecewise(node: Piecewise, bounds: dict[Symbol, _Bounds]) -> Expr:
    pairs = []
    for branch, condition in node.args:
        pairs.append((_guard(branch, _tighten(bounds, condition)), condition))
        bounds = _tighten(bounds, sympy.Not(condition))
    return Piecewise(*pairs)


def guard_branches(expression: Expr) -> Expr:
    """The expression with every branch finite where it is not taken, as far as its conditions tell.

    Example:
        >>> x = sympy.Symbol("x", real=True)
        >>> guard_branches(where(x > 0, x, expm1(x)))
        Piecewise((x, x > 0), (expm1(Min(0, x)), True))
    """
    if expression.is_Atom or not expression.has(Piecewise):
        return expression
    if isinstance(expression, Piecewise):
        return _guard_piecewise(expression, {})
    return expression.func(*(guard_branches(argument) for argument in expression.args))
