"""Branches that are harmless where they are not taken, for targets that evaluate both.

``np.where`` and ``torch.where`` compute both branches. In the branch that holds for x <= 0 the
exponential of x = 1000 would overflow: no harm to the value, but NumPy warns, and automatic
differentiation through ``torch.where`` makes NaN of it. Inside the functions that can overflow or
leave their domain, x is therefore replaced by min(x, 0), which is x wherever the branch is taken.
Branches on other conditions than "symbol against number" are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import sympy
from sympy import Expr, Max, Min, Piecewise, Pow, Symbol
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean

from sifrc.scalar.branches import where
from sifrc.scalar.primitives import expm1, log1p

__all__ = ["guard_branches"]

_OVERFLOWS = (sympy.exp, expm1, sympy.sinh, sympy.cosh)
_LEAVES_DOMAIN = (sympy.log, log1p)
_NO_NUMBERS = (sympy.nan, sympy.zoo, sympy.oo, -sympy.oo)
_TRIES = 4


@dataclass(frozen=True)
class _Bounds:
    """lower <= symbol <= upper wherever a branch is taken; a bound that is ``open`` is not reached."""

    lower: Expr | None = None
    upper: Expr | None = None
    lower_open: bool = False
    upper_open: bool = False


def _tighten(bounds: dict[Symbol, _Bounds], condition: Boolean) -> dict[Symbol, _Bounds]:
    if not isinstance(condition, Relational):
        return bounds
    left, right = condition.args
    if not (isinstance(left, Symbol) and right.is_number):
        return bounds
    old = bounds.get(left, _Bounds())
    is_open = condition.rel_op in ("<", ">")
    if condition.rel_op in (">", ">=") and (old.lower is None or right >= old.lower):
        is_open = is_open or (right == old.lower and old.lower_open)
        return bounds | {left: replace(old, lower=right, lower_open=is_open)}
    if condition.rel_op in ("<", "<=") and (old.upper is None or right <= old.upper):
        is_open = is_open or (right == old.upper and old.upper_open)
        return bounds | {left: replace(old, upper=right, upper_open=is_open)}
    return bounds


def _clamped(symbol: Symbol, bounds: _Bounds) -> Expr:
    value: Expr = symbol
    if bounds.upper is not None:
        value = Min(value, bounds.upper)
    return value if bounds.lower is None else Max(value, bounds.lower)


def _points(bounds: _Bounds) -> Iterator[Expr]:
    """Numbers strictly inside the bounds; none where nothing is."""
    lower, upper = bounds.lower, bounds.upper
    for step in range(1, _TRIES + 1):
        if lower is None:
            assert upper is not None
            yield upper - step
        elif upper is None:
            yield lower + step
        elif (upper - lower).is_positive:
            yield lower + (upper - lower) / (step + 1)


def _inside(branch: Expr, bounds: Mapping[Symbol, _Bounds]) -> Expr:
    """The branch with every symbol where the branch is taken, else at a point where the branch is a number.

    An open bound is not where it is taken: log(0) is no better than log(−1), and 1/(x − 1) no better at 1.
    A branch that is taken at one point, or at none, stays.
    """
    for points in zip(*(_points(b) for b in bounds.values()), strict=False):
        chosen = dict(zip(bounds, points, strict=True))
        if _is_number(branch.xreplace(chosen)):
            return branch.xreplace({s: _within(s, bounds[s], point) for s, point in chosen.items()})
    return branch


def _is_number(value: Expr) -> bool:
    return not value.has(*_NO_NUMBERS) and not (value.is_number and value.is_extended_real is False)


def _within(symbol: Symbol, bounds: _Bounds, otherwise: Expr) -> Expr:
    value: Expr = symbol
    if bounds.upper is not None:
        below = symbol < bounds.upper if bounds.upper_open else symbol <= bounds.upper
        value = where(below, value, otherwise)
    if bounds.lower is None:
        return value
    above = symbol > bounds.lower if bounds.lower_open else symbol >= bounds.lower
    return where(above, value, otherwise)


def _guard(branch: Expr, bounds: dict[Symbol, _Bounds]) -> Expr:
    if branch.is_Atom or not bounds or not branch.free_symbols & set(bounds):
        return branch
    if isinstance(branch, _OVERFLOWS):
        return branch.xreplace({s: _clamped(s, b) for s, b in bounds.items()})
    fractional = isinstance(branch, Pow) and not (branch.exp.is_Integer and branch.exp > 0)
    if isinstance(branch, _LEAVES_DOMAIN) or fractional:
        return _inside(branch, {s: b for s, b in bounds.items() if s in branch.free_symbols})
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
