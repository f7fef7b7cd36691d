"""Where an expression is a real number, as it was written and as it came out of simplification.

SymPy simplifies what it builds: √x² is x, exp(2 log x) is x², 0·log x is 0. Each is right where the left side
is a number, and the right side is one elsewhere too. A domain is a list of expressions that must not be
negative; what the simplified form no longer asks for is asked for by a guard, so that both are numbers in the
same places.

Only sets with an interior count: a quotient has its limit where numerator and denominator vanish together,
and a boundary belongs to the domain. ``where`` takes the second branch where its condition is not a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import singledispatch
from types import MappingProxyType

import sympy
from sympy import Expr, Piecewise, Pow, S, Symbol
from sympy.core.relational import Relational

from sifrc.scalar.branches import comparison, settled, substituted, where
from sifrc.scalar.primitives import log1p, undefined
from sifrc.scalar.stable import stabilize
from sifrc.spec.expression import (
    Binary,
    Call,
    Compare,
    Expression,
    Name,
    Negative,
    Number,
    children,
    with_children,
)

__all__ = ["Domain", "enforced", "guarded", "missing", "with_conditions", "written"]

Domain = tuple[Expr, ...]
"""Expressions that are not negative where another one is a real number."""

Build = Callable[[Expression], Expr]

_NEVER = S.NegativeOne


def written(tree: Expression, build: Build, values: Mapping[Symbol, Expr]) -> Domain:
    """The domain of an expression as it was written.

    Args:
        tree: elementwise expression.
        build: the SymPy expression of a part of it.
        values: of the parameters; they decide which exponents are integers.
    """
    return tuple(dict.fromkeys(_written(tree, _Context(build, values))))


def with_conditions(tree: Expression, build: Build, values: Mapping[Symbol, Expr]) -> Expression:
    """The tree with every comparison that simplification makes true or false elsewhere decided by its domain.

    √x² > −1 does not hold at −1, where it is no comparison of numbers, and x > −1 does not at −2 alone: it
    becomes where(x >= 0, where(√x² > −1, a, b), b).

    Args:
        tree, build, values: as for :func:`written`.
    """
    context = _Context(build, values)

    def rebuilt(node: Expression) -> Expression:
        whole = with_children(node, rebuilt)
        match node, whole:
            case Call(function="where", arguments=(Compare() as condition, *_)), Call(arguments=(*_, other)):
                for part, least in _unasked(condition, context):
                    test = Compare(">=", part, Number(Fraction(least)), condition.location)
                    whole = Call("where", (test, whole, other), node.location)
        return whole

    return rebuilt(tree)


def _unasked(condition: Compare, context: _Context) -> list[tuple[Expression, int]]:
    """Parts of a comparison and their least values, where the simplified comparison does not see them."""
    parts = [item for side in (condition.left, condition.right) for item in _parts(side, context)]
    if not parts:
        return []
    test = settled(compared(condition, context.build(condition.left), context.build(condition.right)))
    kept = tuple(u for side in test.args for u in enforced(side)) if isinstance(test, Relational) else ()
    asked = [(part, least, context.build(part) - least) for part, least in parts]
    return [
        (part, least)
        for part, least, u in asked
        if missing(_not_negative(substituted(u, context.values)), kept)
    ]


def _parts(tree: Expression, context: _Context) -> list[tuple[Expression, int]]:
    """The parts that must not be below a number, outside ``where``."""
    match tree:
        case Negative(operand=operand):
            return _parts(operand, context)
        case Binary(operator=operator, left=left, right=right):
            found = [*_parts(left, context), *_parts(right, context)]
            return [*found, (left, 0)] if operator == "**" and context.real_power(left, right) else found
        case Call(function=function, arguments=arguments) if function != "where":
            found = [item for argument in arguments for item in _parts(argument, context)]
            if function in _LEAST:
                found.append((arguments[0], _LEAST[function]))
            return found
    return []


_LEAST: Mapping[str, int] = MappingProxyType({"sqrt": 0, "log": 0, "log1p": -1})
"""Functions of numbers that are not below one."""


class _Context:
    def __init__(self, build: Build, values: Mapping[Symbol, Expr]) -> None:
        self.build = build
        self.values = values

    def all_of(self, trees: Iterable[Expression]) -> Domain:
        return tuple(u for tree in trees for u in _written(tree, self))

    def is_zero(self, tree: Expression) -> bool:
        """Whether a part is the number zero."""
        return bool(substituted(self.build(tree), self.values).is_zero)

    def real_power(self, base: Expression, exponent: Expression) -> Domain:
        """What a power asks of its base: nothing where the exponent is an integer."""
        power = substituted(self.build(exponent), self.values)
        return () if power.is_integer else _not_negative(self.build(base))


@singledispatch
def _written(tree: Expression, context: _Context) -> Domain:
    raise TypeError(f"no domain of {type(tree).__name__}")


@_written.register
def _(tree: Number | Name | Negative | Compare, context: _Context) -> Domain:
    return context.all_of(children(tree))


@_written.register
def _(tree: Binary, context: _Context) -> Domain:
    if tree.operator == "**" and context.is_zero(tree.right):
        return ()  # 1, whatever the base is
    own = context.real_power(tree.left, tree.right) if tree.operator == "**" else ()
    return (*context.all_of((tree.left, tree.right)), *own)


@_written.register
def _(tree: Call, context: _Context) -> Domain:
    if tree.function == "where":
        condition, chosen, otherwise = tree.arguments
        assert isinstance(condition, Compare)
        test = compared(condition, *(context.build(side) for side in (condition.left, condition.right)))
        asked = _written(condition, context)
        branches = [_within(test, u, True) for u in _written(chosen, context)]
        branches += [_within(test, u, False) for u in _written(otherwise, context)]
        return tuple(u for branch in branches for u in _not_negative(_where_asked(asked, branch)))
    if tree.function in ("leaky_relu", "elu") and len(tree.arguments) == 2:
        argument, factor = tree.arguments
        below = (_within(context.build(argument) > 0, u, False) for u in _written(factor, context))
        return (*_written(argument, context), *(v for u in below for v in _not_negative(u)))
    own: Domain = ()
    if tree.function in _LEAST:
        own = _not_negative(context.build(tree.arguments[0]) - _LEAST[tree.function])
    return (*context.all_of(tree.arguments), *own)


def compared(tree: Compare, left: Expr, right: Expr) -> sympy.logic.boolalg.Boolean:
    """The SymPy condition of a comparison of two expressions."""
    return comparison(_RELATIONS[tree.operator], left, right)


_RELATIONS: Mapping[str, type[Relational]] = MappingProxyType(
    {"<": sympy.StrictLessThan, "<=": sympy.LessThan, ">": sympy.StrictGreaterThan, ">=": sympy.GreaterThan}
)


def _not_negative(expression: Expr) -> Domain:
    """The condition that an expression is not negative; none where that is known."""
    expression = stabilize(expression)
    if isinstance(expression, Piecewise) and all(b.is_nonnegative for b, _ in expression.args):
        return ()
    return () if expression.is_nonnegative else (expression,)


def _where_asked(asked: Domain, branch: Expr) -> Expr:
    """A condition of a branch, none where the comparison before it is not a number."""
    for u in asked:
        branch = where(u >= 0, branch, S.One)
    return branch


def _within(condition: object, expression: Expr, holds: bool) -> Expr:
    """What must not be negative where a condition holds (or does not), and is 1 elsewhere."""
    if condition in (sympy.true, sympy.false):
        return expression if bool(condition) == holds else S.One
    assert isinstance(condition, Relational)
    above = (
        condition.lhs - condition.rhs if condition.rel_op in (">", ">=") else condition.rhs - condition.lhs
    )
    if _follows(expression, above if holds else -above):
        return S.One
    return where(condition, expression, S.One) if holds else where(condition, S.One, expression)


def _follows(expression: Expr, fact: Expr) -> bool:
    """Whether an expression is not negative where another one is not: it is larger, or a multiple."""
    more, ratio = sympy.expand(expression - fact), expression / fact if fact != 0 else S.NegativeOne
    return bool((more.is_number and more.is_nonnegative) or ratio.is_nonnegative)


def enforced(expression: Expr) -> Domain:
    """The domain that evaluating a SymPy expression enforces: elsewhere it is not a number.

    Example:
        >>> x = Symbol("x", real=True)
        >>> enforced(sympy.sqrt(x) + sympy.log(x**2 + 1)), enforced(where(x > 0, 1, undefined(x)))
        ((x,), (Piecewise((1, x > 0), (-1, True)),))
    """
    return tuple(dict.fromkeys(_enforced(expression)))


def _enforced(node: Expr) -> Domain:
    if node.is_Atom:
        return ()
    if isinstance(node, Piecewise):
        return _of_choice(node)
    if isinstance(node, undefined):
        return (_NEVER,)
    own: Domain = ()
    if isinstance(node, Pow) and not node.exp.is_integer:
        own = _not_negative(node.base)
    elif isinstance(node, sympy.log):
        own = _not_negative(node.args[0])
    elif isinstance(node, log1p):
        own = _not_negative(node.args[0] + 1)
    return (*(u for argument in node.args for u in _enforced(argument)), *own)


def _of_choice(node: Piecewise) -> Domain:
    """What holds in all branches, and what the branches ask for each."""
    *firsts, (last, _) = node.args
    domain = _enforced(last)
    for branch, condition in reversed(firsts):
        if not isinstance(condition, Relational):
            return ()
        own, sides = _enforced(branch), tuple(u for side in condition.args for u in _enforced(side))
        always = [u for u in domain if u in own or u in sides]
        ask = [v for u in own if u not in always for v in _not_negative(_within(condition, u, True))]
        ask += [v for u in domain if u not in always for v in _not_negative(_within(condition, u, False))]
        domain = (*always, *ask)
    return domain


def missing(asked: Domain, kept: Domain) -> Domain:
    """What of one domain another one does not ask for."""
    return tuple(u for u in asked if not any(u == v or (_plain(u, v) and _follows(u, v)) for v in kept))


def _plain(*expressions: Expr) -> bool:
    return not any(expression.has(Piecewise) for expression in expressions)


def guarded(expression: Expr, lost: Domain, arguments: Iterable[Symbol]) -> Expr:
    """The expression where nothing of a domain is negative, and not a number elsewhere.

    Example:
        >>> x = Symbol("x", real=True)
        >>> guarded(x, (x,), [x])
        Piecewise((x, x >= 0), (undefined(x), True))
    """
    nothing = undefined(*sorted(arguments, key=str))
    needed: list[Expr] = []
    for u in lost:
        if missing((u,), tuple(needed)):
            needed = [v for v in needed if missing((v,), (u,))] + [u]
    for u in reversed(needed):
        expression = where(u >= 0, expression, nothing)
    return expression
