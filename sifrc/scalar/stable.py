"""Rewrites of scalar expressions to forms that do not overflow or cancel.

One small function per rule, each exact in real arithmetic. A rule gets one node and returns its
replacement, or None where it does not apply; :func:`stabilize` applies them bottom-up until none
does. Parameters enter with the sign assumption of their value, so that ``b`` in ``log(1 + b*exp(x))``
is known to be positive. The rules for sums of exponentials are in :mod:`sifrc.scalar.exponentials`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import sympy
from sympy import Add, Expr, Mul, Piecewise, Pow, S

from sifrc.scalar.exponentials import (
    absorb_into_sigmoid,
    log_of_exponentials,
    log_of_product,
    power_of_exponentials,
    ratio_of_exponentials,
)
from sifrc.scalar.primitives import erfc, expm1, log1p, sigmoid, softplus

__all__ = ["RULES", "Rule", "stabilize"]

Rule: TypeAlias = Callable[[Expr], Expr | None]


def log_of_cosh(node: Expr) -> Expr | None:
    """log(cosh(u)) = u + softplus(−2u) − log 2."""
    (u,) = node.args
    if not isinstance(u, sympy.cosh):
        return None
    return u.args[0] + softplus(-2 * u.args[0]) - sympy.log(2)


def log_near_one(node: Expr) -> Expr | None:
    """log(1 + u) = log1p(u)."""
    (u,) = node.args
    return log1p(u - 1) if isinstance(u, Add) and S.One in u.args else None


def log1p_of_exponential(node: Expr) -> Expr | None:
    """log1p(c exp(u)) = softplus(u + log c), c > 0."""
    return log_of_exponentials(sympy.log(1 + node.args[0], evaluate=False))


def merge_exponentials(node: Expr) -> Expr | None:
    """exp(u) exp(v) = exp(u + v)."""
    factors = [f for f in node.args if isinstance(f, sympy.exp)]
    if len(factors) < 2:
        return None
    rest = [f for f in node.args if not isinstance(f, sympy.exp)]
    return Mul(*rest, sympy.exp(Add(*(f.args[0] for f in factors))))


def merge_powers(node: Expr) -> Expr | None:
    """x^p x^q = x^(p+q): the derivative of x^p must not divide by x."""
    exponents: dict[Expr, list[Expr]] = {}
    for factor in node.args:
        base, exponent = factor.as_base_exp()
        if base is not S.Exp1 and not base.is_number:
            exponents.setdefault(base, []).append(exponent)
        else:
            exponents[factor] = [S.One]
    if len(exponents) == len(node.args):
        return None
    return Mul(*(base ** Add(*powers) for base, powers in exponents.items()))


def pull_out_number(node: Expr) -> Expr | None:
    """(2 − 2u) v = 2 (1 − u) v: so that the sum is the same wherever it occurs."""
    number, factors = S.One, []
    for factor in node.args:
        content, primitive = factor.primitive() if isinstance(factor, Add) else (S.One, factor)
        number *= content
        factors.append(primitive)
    unchanged = number == 1 or sum(not factor.is_number for factor in factors) < 2
    return None if unchanged else Mul(number, *factors)


def sinh_over_cosh(node: Expr) -> Expr | None:
    """sinh(u)/cosh(u) = tanh(u)."""
    powers = dict(factor.as_base_exp() for factor in node.args)
    for base, exponent in powers.items():
        if isinstance(base, sympy.sinh) and exponent.is_positive:
            other = sympy.cosh(base.args[0])
            if powers.get(other, S.Zero).is_negative:
                return node / base * other * sympy.tanh(base.args[0])
    return None


def _terms(node: Expr, kind: type[Expr]) -> list[tuple[Expr, Expr, Expr]]:
    """Terms of a sum that are k·g(u) with g of the given kind, as (term, k, u)."""
    found = []
    for term in node.args:
        for factor in Mul.make_args(term):
            if isinstance(factor, kind):
                found.append((term, term / factor, factor.args[0]))
    return found


def _swap(node: Expr, out: tuple[Expr, ...], into: Expr) -> Expr | None:
    """The sum with the terms ``out`` replaced by ``into``, if it has them all."""
    if not all(term in node.args for term in out):
        return None
    return Add(*(term for term in node.args if term not in out), into)


def _first(candidates: Iterable[Expr | None]) -> Expr | None:
    return next((c for c in candidates if c is not None), None)


def exp_minus_one(node: Expr) -> Expr | None:
    """k exp(u) − k = k expm1(u)."""
    return _first(_swap(node, (t, -k), k * expm1(u)) for t, k, u in _terms(node, sympy.exp))


def one_minus_sigmoid(node: Expr) -> Expr | None:
    """k − k σ(u) = k σ(−u)."""
    return _first(_swap(node, (t, -k), -k * sigmoid(-u)) for t, k, u in _terms(node, sigmoid))


def centred_sigmoid(node: Expr) -> Expr | None:
    """k σ(u) − k/2 = k/2 tanh(u/2) and k σ(u) − k σ(−u) = k tanh(u/2)."""
    return _first(
        _swap(node, (term, out), into * sympy.tanh(u / 2))
        for term, k, u in _terms(node, sigmoid)
        for out, into in ((-k / 2, k / 2), (-k * sigmoid(-u), k))
    )


def one_plus_erf(node: Expr) -> Expr | None:
    """k + k erf(u) = k erfc(−u) and k − k erf(u) = k erfc(u)."""
    signed = ((term, sign * k, sign * u) for term, k, u in _terms(node, sympy.erf) for sign in (1, -1))
    return _first(_swap(node, (term, k), k * erfc(-u)) for term, k, u in signed)


def one_plus_tanh(node: Expr) -> Expr | None:
    """k + k tanh(u) = 2k σ(2u) and k − k tanh(u) = 2k σ(−2u)."""
    signed = ((term, sign * k, sign * u) for term, k, u in _terms(node, sympy.tanh) for sign in (1, -1))
    return _first(
        _swap(node, (term, k), 2 * k * sigmoid(2 * u))
        for term, k, u in signed
        if not k.has(sympy.tanh)  # k - k tanh(u) with k = tanh(u) is a derivative; tanh is shared there
    )


RULES: Mapping[type[Expr], tuple[Rule, ...]] = MappingProxyType(
    {
        sympy.log: (log_of_exponentials, log_of_product, log_of_cosh, log_near_one),
        log1p: (log1p_of_exponential,),
        Pow: (power_of_exponentials,),
        Mul: (
            merge_exponentials,
            merge_powers,
            absorb_into_sigmoid,
            ratio_of_exponentials,
            sinh_over_cosh,
            pull_out_number,
        ),
        Add: (exp_minus_one, one_minus_sigmoid, centred_sigmoid, one_plus_erf, one_plus_tanh),
    }
)
"""The rules by the type of node they look at, in the order in which they are tried."""


def stabilize(expression: Expr, rules: Mapping[type[Expr], tuple[Rule, ...]] = RULES) -> Expr:
    """The same function in a form that neither overflows nor cancels where that can be avoided.

    Conditions of ``where`` are left as written: a comparison with infinity is a correct comparison.

    Args:
        expression: real scalar expression.
        rules: rules by node type; pass a subset to switch rules off.

    Example:
        >>> x = sympy.Symbol("x", real=True)
        >>> stabilize(sympy.log(1 + sympy.exp(x)) / (1 + sympy.exp(-x)))
        sigmoid(x)*softplus(x)
    """
    memo: dict[Expr, Expr] = {}
    begun: set[Expr] = set()

    def visit(node: Expr) -> Expr:
        # Rules undo each other where constants are concerned: the form that comes back stays.
        if node.is_Atom or (node in begun and node not in memo):
            return node
        if node not in memo:
            begun.add(node)
            memo[node] = rewrite(node)
        return memo[node]

    def rewrite(node: Expr) -> Expr:
        if isinstance(node, Piecewise):
            return Piecewise(*((visit(branch), condition) for branch, condition in node.args))
        arguments = tuple(visit(argument) for argument in node.args)
        rebuilt = node if arguments == node.args else node.func(*arguments)
        if rebuilt.is_Atom or isinstance(rebuilt, Piecewise):
            return rebuilt
        if rebuilt.func != node.func:
            return visit(rebuilt)
        for rule in rules.get(rebuilt.func, ()):
            result = rule(rebuilt)
            if result is not None and result != rebuilt:
                return visit(result)
        return rebuilt

    return visit(expression)
