"""Common subexpressions of scalar expressions, for code that computes several of them at once.

Unlike ``sympy.cse`` nothing is moved out of a branch of ``where`` unless it is computed outside as
well: what a branch alone needs stays there, where a lazy target skips it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import sympy
from sympy import Expr, Piecewise, Symbol
from sympy.logic.boolalg import Boolean

__all__ = ["share"]


def _children(node: sympy.Basic) -> Iterator[tuple[sympy.Basic, bool]]:
    """Operands, each with whether it is computed only in a branch."""
    if isinstance(node, Piecewise):
        for position, (branch, condition) in enumerate(node.args):
            yield condition, position > 0
            yield branch, True
    else:
        for argument in node.args:
            yield argument, False


def _shareable(node: sympy.Basic) -> bool:
    return isinstance(node, Expr) and not node.is_Atom and not node.is_number and not _is_negation(node)


def _is_negation(node: Expr) -> bool:
    return isinstance(node, sympy.Mul) and len(node.args) == 2 and node.args[0] == -1


def share(
    expressions: Iterable[Expr], prefix: str = "t"
) -> tuple[tuple[tuple[Symbol, Expr], ...], tuple[Expr, ...]]:
    """Name what several expressions, or several places of one, have in common.

    Args:
        expressions: in stable form; an expression that is part of another one is shared too, so that
            tanh'(x) reuses tanh(x).
        prefix: names are prefix0, prefix1, …; no symbol of the expressions may have such a name.

    Returns:
        Assignments in the order of computation, and the expressions in terms of them.

    Raises:
        ValueError: a symbol already has one of the new names.

    Example:
        >>> x = Symbol("x", real=True)
        >>> share([sympy.tanh(x), 1 - sympy.tanh(x) ** 2])
        (((t0, tanh(x)),), (t0, 1 - t0**2))
    """
    expressions = tuple(expressions)
    taken = {symbol.name for expression in expressions for symbol in expression.free_symbols}
    always: set[sympy.Basic] = set()
    uses: Counter[sympy.Basic] = Counter(expressions)
    counted: set[sympy.Basic] = set()

    def mark_always(node: sympy.Basic) -> None:
        if node not in always:
            always.add(node)
            for child, in_branch in _children(node):
                if not in_branch:
                    mark_always(child)

    def count(node: sympy.Basic) -> None:
        if node not in counted:
            counted.add(node)
            for child, _ in _children(node):
                uses[child] += 1
                count(child)

    for expression in expressions:
        mark_always(expression)
        count(expression)

    assignments: list[tuple[Symbol, Expr]] = []
    replaced: dict[sympy.Basic, sympy.Basic] = {}

    def rebuild(node: sympy.Basic) -> sympy.Basic:
        if node in replaced:
            return replaced[node]
        if not node.args:
            return node
        if isinstance(node, Piecewise):
            pairs = [(rebuild(branch), rebuild(condition)) for branch, condition in node.args]
            result: sympy.Basic = Piecewise(*pairs, evaluate=False)
        elif isinstance(node, (Expr, Boolean)):
            result = node.func(*(rebuild(argument) for argument in node.args))
        else:
            raise TypeError(f"not an expression: {type(node).__name__}")
        if node in always and uses[node] > 1 and _shareable(node):
            name = f"{prefix}{len(assignments)}"
            if name in taken:
                raise ValueError(f"the name {name} is taken; choose another prefix")
            symbol = Symbol(name, real=True)
            assignments.append((symbol, result))
            result = symbol
        replaced[node] = result
        return result

    results = tuple(rebuild(expression) for expression in expressions)
    return tuple(assignments), results
