"""Sums over the uses of shared parameters, one use after the other, so that equal uses become a loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from sifrc.derive.system import Equation
from sifrc.ir import Add, Axis, Expr, Input
from sifrc.ir.build import add, total
from sifrc.ir.traverse import inputs_of, last_layer

__all__ = ["accumulates", "by_use"]

_MOST = 2
"""Uses that are added up in one statement."""


def by_use(
    layer: int | None, equations: Sequence[Equation], parameters: frozenset[tuple[Axis, ...]]
) -> Iterator[tuple[int | None, list[Equation]]]:
    """Equations of one layer, and what they add at further uses of its parameters, by the layer of the use.

    Args:
        layer: of the equations.
        equations: that stand together.
        parameters: axes of the parameters.
    """
    first: list[Equation] = []
    further: dict[int, list[Equation]] = {}
    after: list[Equation] = []
    waiting: set[Input] = set()
    for equation in equations:
        if waiting and waiting & set(inputs_of(equation.value)):  # of a sum that is not whole yet
            after.append(equation)
            waiting.add(equation.symbol)
            continue
        own, others = _uses(equation, parameters)
        first.append(own)
        for part in others:
            assert part.layer is not None
            further.setdefault(part.layer, []).append(part)
            waiting.add(part.symbol)
    yield layer, first
    yield from sorted(further.items())
    if after:
        yield layer, after


def accumulates(equation: Equation) -> bool:
    """Whether an equation adds to what its symbol is already."""
    return equation.symbol in inputs_of(equation.value)


def _uses(equation: Equation, parameters: frozenset[tuple[Axis, ...]]) -> tuple[Equation, list[Equation]]:
    """The part of the first use, and what the others add to it; the equation alone for few uses."""
    value, symbol = equation.value, equation.symbol
    shaped = tuple(axis for axis in symbol.axes if not axis.is_sample) in parameters
    if not isinstance(value, Add) or equation.layer is None or not shaped:
        return equation, []
    terms: dict[int, list[tuple[Fraction, Expr]]] = {}
    for factor, term in value.terms:
        terms.setdefault(last_layer(term), []).append((factor, term))
    if len(terms) <= _MOST:
        return equation, []
    parts = {k: add(found, value.out) for k, found in sorted(terms.items())}
    (_, start), *rest = parts.items()
    others = [replace(equation, value=total([symbol, part], value.out), layer=k) for k, part in rest]
    return replace(equation, value=start), others
