"""Branches: choices between expressions, and derivatives at their kinks.

SymPy's ``Abs``, ``sign``, ``Max``, ``Min`` and ``Heaviside`` differentiate into distributions
(``DiracDelta``). Here a kink has a convention instead, and no distribution can appear:

==================  ==============================================================================
``where(c, a, b)``  differentiated branch by branch: at the kink, the branch that ``c`` selects
``absolute(x)``     derivative ``signum(x)``, 0 at 0, as torch
``signum(x)``       derivative 0
``maximum``,        the branch that is taken; at a tie the number, if one operand is a number (so
``minimum``         that ``max(x, 0)`` is relu, with slope 0 at 0), otherwise the second operand.
                    torch splits the gradient of a tie in halves instead.
==================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import sympy
from sympy import Abs, Expr, Heaviside, Max, Min, Piecewise, S
from sympy import sign as sympy_sign
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean

from sifrc.errors import ModelError
from sifrc.scalar.primitives import absolute, sigmoid, signum, softplus

__all__ = [
    "comparison",
    "differentiate",
    "maximum",
    "minimum",
    "normalize",
    "settled",
    "substituted",
    "where",
]

_DIGITS = 50
_MOST_CASES = 64


def settled(condition: Boolean) -> Boolean:
    """A condition that SymPy leaves as it is, whatever its symbols are called later.

    A comparison of numbers becomes its truth. SymPy's form of a comparison with sums or signs on both sides
    is not always one that it keeps: such a one becomes a comparison of the difference with a number.

    Example:
        >>> x, y = sympy.symbols("x y", real=True)
        >>> settled(y - x > 2 * (x - y)), settled(sympy.sqrt(8) <= 2 * sympy.sqrt(2)), settled(x < y)
        (-3*x + 3*y > 0, True, x < y)
    """
    if not isinstance(condition, Relational):
        return condition
    left, right = condition.args
    if not condition.free_symbols:
        return sympy.true if _holds(condition) else sympy.false
    if right.is_number or left.is_number or (_keeps_its_side(left) and _keeps_its_side(right)):
        return condition
    return comparison(condition.func, left - right, S.Zero)


def _keeps_its_side(side: Expr) -> bool:
    """Whether no sign and no number can be moved to the other side of a comparison."""
    return isinstance(side, (sympy.Symbol, Piecewise, sympy.exp, softplus, sigmoid, absolute, Abs))


def _holds(condition: Relational) -> bool:
    """The truth of a comparison of numbers; equal to 50 digits is equal.

    Raises:
        ModelError: one of them is not a real number.
    """
    left, right = (side.evalf(_DIGITS) for side in condition.args)
    if not (left.is_real and right.is_real):
        raise _no_real_number()
    difference = (condition.lhs - condition.rhs).evalf(_DIGITS, chop=True)
    size = max(abs(left), abs(right))
    if abs(difference) <= size * sympy.Float(10, _DIGITS) ** (2 - _DIGITS):
        difference = S.Zero
    return bool(condition.func(difference, S.Zero))


def _no_real_number() -> ModelError:
    return ModelError(
        "a comparison of something that is not a finite real number",
        hint="a branch divides by zero, or takes a root or a logarithm of a negative number",
    )


def where(condition: Boolean, chosen: Expr, otherwise: Expr) -> Expr:
    """The value of ``chosen`` where ``condition`` holds, else of ``otherwise``.

    Example:
        >>> x = sympy.Symbol("x", real=True)
        >>> differentiate(where(x > 0, x, x / 10), x)
        Piecewise((1, x > 0), (1/10, True))
    """
    condition = settled(condition)
    if condition in (sympy.true, sympy.false):
        return chosen if condition == sympy.true else otherwise
    inner = condition.atoms(Piecewise)
    if not inner:
        return Piecewise(
            (_decided(chosen, condition, True), condition), (_decided(otherwise, condition, False), True)
        )
    # A choice inside the condition is decided first, the outermost one: conditions stay plain comparisons.
    choice = max(inner, key=lambda node: (node.count_ops(), str(node)))
    pairs: list[tuple[Expr, Boolean]] = []
    for branch, case in choice.args:
        table = {choice: branch}
        test = comparison(condition.func, *(substituted(side, table) for side in condition.args))
        parts = [test, substituted(chosen, table), substituted(otherwise, table)]
        for _, before in pairs:
            parts = [_decided(part, before, False) for part in parts]
        pairs.append((where(*(_decided(part, case, True) for part in parts)), case))
        if sum(_cases(value) for value, _ in pairs) > _MOST_CASES:
            raise ModelError(
                "too many cases: conditions that depend on other conditions",
                hint=f"at most {_MOST_CASES} branches; use fewer where, max and min within each other",
            )
    return Piecewise(*pairs)


def comparison(relation: type[Relational], left: Expr, right: Expr) -> Boolean:
    """A comparison of two expressions.

    Raises:
        ModelError: one of them is not a real number.
    """
    try:
        return relation(left, right)
    except TypeError:
        raise _no_real_number() from None


def _cases(expression: Expr) -> int:
    """Number of branches, those of branches of a choice counted each."""
    if not expression.has(Piecewise):
        return 1
    if isinstance(expression, Piecewise):
        return sum(_cases(branch) for branch, _ in expression.args)
    return max(1, sum(_cases(argument) for argument in expression.args if argument.has(Piecewise)))


def _decided(expression: Any, condition: Boolean, holds: bool) -> Any:
    """An expression, or a comparison, within which a condition is known to hold or not to hold."""
    if not isinstance(expression, sympy.Basic) or not expression.has(Piecewise):
        return expression
    if not isinstance(expression, Piecewise):
        return expression.func(*(_decided(argument, condition, holds) for argument in expression.args))
    pairs = []
    for branch, case in expression.args:
        if case == condition and not holds:
            continue
        always = case == condition
        pairs.append((_decided(branch, condition, holds), sympy.true if always else case))
        if always:
            break
    return Piecewise(*pairs)


def maximum(a: Expr, b: Expr) -> Expr:
    """The larger of two; what a network computes comes out as NaN where it is NaN, beside what is given.

    Example:
        >>> y, t = sympy.symbols("y t", real=True)
        >>> maximum(y, t), maximum(t, y)
        (Piecewise((t, t >= y), (y, True)), Piecewise((t, t > y), (y, True)))
    """
    return _extreme(sympy.LessThan, sympy.StrictGreaterThan, a, b)


def minimum(a: Expr, b: Expr) -> Expr:
    """The smaller of two, as :func:`maximum`."""
    return _extreme(sympy.GreaterThan, sympy.StrictLessThan, a, b)


def _extreme(second: type[Relational], first: type[Relational], a: Expr, b: Expr) -> Expr:
    """One of two by how ``a`` compares with ``b``; a tie goes to ``b``, which is a number if one of them is.

    A comparison with NaN does not hold: the branch without a condition is the one that may be NaN.
    """
    if a.is_number:
        a, b = b, a
    if _is_computed(b) and not _is_computed(a):
        return where(comparison(first, a, b), a, b)
    return where(comparison(second, a, b), b, a)


def _is_computed(expression: Expr) -> bool:
    """Whether it is NaN where what a network computes is: x, y, or a part of a loss with a name as ``_0``.

    Targets t, parts of a loss that are made of them, as ``_t0``, and parameters are given. Of branches the
    last one counts: no comparison with NaN holds.
    """
    while expression.has(Piecewise):
        expression = expression.replace(Piecewise, lambda *pairs: pairs[-1][0])
    names = (symbol.name for symbol in expression.free_symbols)
    return any(name in ("x", "y") or (name[:1] == "_" and name[:2] != "_t") for name in names)


def substituted(expression: Expr, table: Mapping[Expr, Expr]) -> Expr:
    """The expression with all keys replaced at once, and conditions that SymPy leaves as they then are.

    Example:
        >>> x, y = sympy.symbols("x y", real=True)
        >>> substituted(where(x > y, x, y), {x: 2 * y - 3})
        Piecewise((2*y - 3, y > 3), (y, True))
    """
    if expression in table:
        return table[expression]
    if not expression.has(*table):
        return expression
    if not expression.has(Piecewise):
        return expression.xreplace(table)
    if not isinstance(expression, Piecewise):
        return expression.func(*(substituted(argument, table) for argument in expression.args))
    result: Expr | None = None
    for branch, condition in reversed(expression.args):
        chosen = substituted(branch, table)
        if result is None and condition == sympy.true:
            result = chosen
        elif result is None or not isinstance(condition, Relational):
            return expression.xreplace(table)
        else:
            sides = (substituted(side, table) for side in condition.args)
            result = where(comparison(condition.func, *sides), chosen, result)
    assert result is not None
    return result


def normalize(expression: Expr) -> Expr:
    """Replace the SymPy functions that would differentiate into distributions.

    Example:
        >>> x = sympy.Symbol("x", real=True)
        >>> normalize(sympy.sqrt(x**2))
        absolute(x)
    """
    if not expression.has(Abs, sympy_sign, Max, Min, Heaviside):
        return expression
    expression = expression.replace(Abs, absolute).replace(sympy_sign, signum)
    expression = expression.replace(Max, lambda *values: reduce(maximum, values))
    expression = expression.replace(Min, lambda *values: reduce(minimum, values))
    return expression.replace(Heaviside, lambda x, *_: where(x > 0, S.One, S.Zero))


def differentiate(expression: Expr, symbol: sympy.Symbol) -> Expr:
    """Partial derivative under the conventions of this module, not yet in stable form."""
    return normalize(normalize(expression).diff(symbol))
