"""Stable forms of logarithms, powers and ratios of sums of exponentials.

Throughout, a *sum of exponentials* is Σ c_j exp(e_j); what carries no exponential is the term with
e = 0, and ``expm1(u)`` counts as exp(u) − 1.
"""

from __future__ import annotations

import sympy
from sympy import Add, Expr, Mul, S

from sifrc.scalar.primitives import expm1, sigmoid, softplus

__all__ = [
    "absorb_into_sigmoid",
    "log_of_exponentials",
    "log_of_product",
    "power_of_exponentials",
    "ratio_of_exponentials",
]


def exponential_terms(expression: Expr) -> dict[Expr, Expr]:
    """Coefficients of a sum of exponentials by exponent, the constant first.

    Example:
        >>> x = sympy.Symbol("x", real=True)
        >>> exponential_terms(3 * sympy.exp(x) + 1 + x)
        {0: x + 1, x: 3}
    """
    collected: dict[Expr, list[Expr]] = {S.Zero: []}
    for term in Add.make_args(expression):
        exponents, rest, shifted = [], [], None
        for factor in Mul.make_args(term):
            if isinstance(factor, sympy.exp):
                exponents.append(factor.args[0])
            elif isinstance(factor, expm1) and shifted is None:
                shifted = factor.args[0]
            else:
                rest.append(factor)
        exponent = Add(*exponents)
        if shifted is not None:
            collected.setdefault(exponent + shifted, []).extend([Mul(*rest)])
            rest = [S.NegativeOne, *rest]
        collected.setdefault(exponent, []).append(Mul(*rest))
    terms = {exponent: Add(*coefficients) for exponent, coefficients in collected.items()}
    return {exponent: coefficient for exponent, coefficient in terms.items() if coefficient != 0}


def _positive_terms(expression: Expr) -> dict[Expr, Expr] | None:
    """The terms of a sum of exponentials, if there is an exponential and all coefficients are positive."""
    terms = exponential_terms(expression)
    if all(exponent == 0 for exponent in terms):
        return None
    return terms if all(coefficient.is_positive for coefficient in terms.values()) else None


def _growth_free(exponent: Expr) -> Expr | None:
    """exp(exponent) if it is a constant or turns into a power of parameters, else None."""
    exponent = sympy.expand(exponent)
    value = sympy.exp(exponent)
    return value if exponent.is_number or not value.has(sympy.exp) else None


def log_of_exponentials(node: Expr) -> Expr | None:
    """log(Σ c_j exp(e_j)), c_j > 0: L ← log c_0 + e_0, then L ← L + softplus(log c_j + e_j − L).

    So log(1 + exp(u)) is softplus(u), and log(c exp(u)) is log c + u.
    """
    terms = _positive_terms(node.args[0])
    if terms is None:
        return None
    result: Expr | None = None
    for exponent, coefficient in terms.items():
        logarithm = sympy.log(coefficient) + exponent
        result = logarithm if result is None else result + softplus(logarithm - result)
    return result


def log_of_product(node: Expr) -> Expr | None:
    """log(r exp(u) σ(v)^n) = log r + u − n softplus(−v)."""
    (argument,) = node.args
    rest, result = [], []
    for factor in Mul.make_args(argument):
        base, exponent = factor.as_base_exp()
        if isinstance(factor, sympy.exp):
            result.append(factor.args[0])
        elif isinstance(base, sigmoid):
            result.append(-exponent * softplus(-base.args[0]))
        else:
            rest.append(factor)
    return Add(sympy.log(Mul(*rest)), *result) if result else None


def power_of_exponentials(node: Expr) -> Expr | None:
    """(c + k exp(u))^−n = c^−n σ(−(u + log(k/c)))^n, c, k > 0."""
    base, exponent = node.args
    if not exponent.is_negative or not isinstance(base, Add):
        return None
    terms = _positive_terms(base)
    if terms is None or len(terms) != 2 or S.Zero not in terms:
        return None
    (u,) = (e for e in terms if e != 0)
    constant, coefficient = terms[S.Zero], terms[u]
    shifted = u + sympy.log(coefficient / constant)
    return constant**exponent * sigmoid(-shifted) ** (-exponent)


def absorb_into_sigmoid(node: Expr) -> Expr | None:
    """exp(−v) σ(v) = σ(−v), and likewise Σ_j c_j exp(−j v) · σ(v)^n for sums of exponentials.

    With m the highest j, the sum times σ(v)^m is Σ_j c_j σ(−v)^j σ(v)^(m−j).
    """
    for i, factor in enumerate(node.args):
        base, power = factor.as_base_exp()
        if not isinstance(base, sigmoid) or not power.is_Rational or power < 1:
            continue
        for j, other in enumerate(node.args):
            if i == j:
                continue
            found = _absorb(base.args[0], int(power), other)
            if found is not None:
                used, replacement = found
                rest = [f for k, f in enumerate(node.args) if k not in (i, j)]
                return Mul(*rest, replacement, base ** (power - used))
    return None


def _absorb(v: Expr, available: int, other: Expr) -> tuple[int, Expr] | None:
    """σ(v)^m · other for the m it takes, as (m, product); None if ``other`` has no matching exp."""
    if isinstance(other, sympy.exp):
        return _absorb_single(v, available, other.args[0])
    base, power = other.as_base_exp()
    if not isinstance(base, (Add, expm1)) or not power.is_Integer or power < 1:
        return None
    matched = []
    for exponent, coefficient in exponential_terms(base).items():
        for degree in range(available + 1):
            scale = _growth_free(exponent + degree * v)
            if scale is not None:
                matched.append((degree, coefficient * scale))
                break
        else:
            return None
    used = max((degree for degree, _ in matched), default=0)
    if used == 0:
        return None
    absorbed = Add(*(c * sigmoid(-v) ** d * sigmoid(v) ** (used - d) for d, c in matched))
    return used, absorbed * base ** (power - 1)


def _absorb_single(v: Expr, available: int, exponent: Expr) -> tuple[int, Expr] | None:
    """σ(v)^m exp(exponent) = σ(−v)^m exp(exponent + m v) where the exponent is a multiple of −v."""
    for degree in range(1, available + 4):
        if _growth_free(exponent + degree * v) is not None:
            used = min(degree, available)
            return used, sigmoid(-v) ** used * sympy.exp(sympy.expand(exponent + used * v))
    return None


def ratio_of_exponentials(node: Expr) -> Expr | None:
    """(α e^a + β e^b) / (γ e^a + δ e^b) = α/γ σ(w) + β/δ σ(−w), w = a − b + log(γ/δ), γ, δ > 0."""
    for i, factor in enumerate(node.args):
        base, power = factor.as_base_exp()
        if not isinstance(base, Add) or not power.is_Integer or power > -1:
            continue
        below = _positive_terms(base)
        if below is None or len(below) != 2:
            continue
        (a, gamma), (b, delta) = below.items()
        w = a - b + sympy.log(gamma / delta)
        parts = {a: sigmoid(w) / gamma, b: sigmoid(-w) / delta}
        for j, other in enumerate(node.args):
            above = exponential_terms(other)
            top, repeat = other, S.One
            if not isinstance(other, sympy.exp):
                top, repeat = other.as_base_exp()
                above = exponential_terms(top)
            if i == j or not repeat.is_Integer or repeat < 1 or not set(above) <= set(parts):
                continue
            if set(above) == {S.Zero}:
                continue
            rest = [f for k, f in enumerate(node.args) if k not in (i, j)]
            ratio = Add(*(coefficient * parts[e] for e, coefficient in above.items()))
            return Mul(*rest, ratio, top ** (repeat - 1), base ** (power + 1))
    return None
