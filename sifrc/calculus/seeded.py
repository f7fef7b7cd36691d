"""Forward differentiation along many directions at once: seeds with axes of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from sifrc.calculus.forward import jvp
from sifrc.ir.axes import Axis, primed
from sifrc.ir.build import add, einsum, identity, zero
from sifrc.ir.nodes import Expr, Input
from sifrc.ir.normal import expand, operands_of, terms_of

__all__ = ["jacobian", "seeded"]


def jacobian(expr: Expr, symbol: Input) -> Expr:
    """∂expr/∂symbol, over the axes of ``expr`` and the next axes of the symbol."""
    other = primed(symbol.axes)
    return seeded(expr, {symbol: identity(symbol.axes, other)}, other)


def seeded(expr: Expr, seeds: Mapping[Input, Expr], extra: Sequence[Axis]) -> Expr:
    """Differential of ``expr`` when each input moves along all directions of its seed.

    A seed that is a Delta gives the dense Jacobian; the normal form removes Deltas by renaming, and one
    that is left makes the result diagonal.

    Args:
        expr: any expression.
        seeds: input -> directions, over the axes of the input and then ``extra``; other inputs stay fixed.
        extra: axes that number the directions.

    Returns:
        The differentials, over the axes of ``expr`` and then ``extra``.

    Example:
        >>> from sifrc.ir import Delta, Role
        >>> from sifrc.ir.build import hadamard
        >>> i, j = Axis("fc1", 3), Axis("fc1'", 3)
        >>> x, y = Input("x", 1, (i,), Role.STATE), Input("y", 1, (i,), Role.STATE)
        >>> block = seeded(hadamard(x, y), {x: Delta(i, j)}, [j])
        >>> block is einsum([(y, (i,)), (Delta(i, j), (i, j))], (i, j))
        True
    """
    marked = {symbol: Input(f"∂{symbol.family}", symbol.index, symbol.slots, symbol.role) for symbol in seeds}
    directions = {marker.key: seeds[symbol] for symbol, marker in marked.items()}
    out = (*expr.axes, *extra)
    moved = jvp(expr, marked)
    if moved is None:
        return zero(out)
    terms: list[tuple[Fraction, Expr]] = []
    for factor, term in terms_of(expand(moved)):
        moves = [
            (directions[e.key], (*labels, *extra)) if e.key in directions else (e, labels)
            for e, labels in operands_of(term)
        ]
        terms.append((factor, einsum(moves, out)))
    return add(terms, out)
