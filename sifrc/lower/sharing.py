"""Common subexpressions across phases.

An expensive function (a transcendental one that no array holds yet), a log-sum-exp or a log-softmax, that
several equations use gets a symbol of its own. It is defined in the first phase that uses it, and used
afterwards only by phases that always run later.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache

import sympy

from sifrc.catalogue.phase import Phase
from sifrc.derive.system import Equation, abbreviate
from sifrc.ir import ArgMax, Expr, Input, LogSoftmax, LogSumExp, Map, Role
from sifrc.ir.traverse import inputs_of, postorder
from sifrc.scalar import EXP

__all__ = ["share_subexpressions"]


def share_subexpressions(phases: Iterable[Phase]) -> list[Phase]:
    """The phases with shared functions defined once."""
    result = list(phases)
    held = {equation.value.key for phase in result for equation in phase.system.equations}
    functions = cache(_functions_of)  # most phases come before many others
    for position, phase in enumerate(result):
        users = [q for q in range(position, len(result)) if q == position or phase.name in result[q].after]
        while found := _candidates([result[q] for q in users], held, functions):
            # Also in phases that do not see this one: an array has one meaning in a module.
            taken = {e.symbol for phase in result for e in phase.system.equations}
            names: dict[Expr, Input] = {}
            for node, layer in found:
                names[node] = _symbol(node, layer, taken)
                taken.add(names[node])
                held.add(node.key)
            for q in users:
                result[q] = _replace(result[q], names)
            result[position] = _define(result[position], names, dict(found))
    return result


def _functions_of(value: Expr) -> tuple[Expr, ...]:
    """Nodes that may be expensive, children first."""
    return tuple(node for node in postorder(value) if isinstance(node, Map | LogSumExp | LogSoftmax | ArgMax))


def _candidates(
    phases: list[Phase], held: set[str], functions: Callable[[Expr], tuple[Expr, ...]]
) -> list[tuple[Expr, int | None]]:
    """Expensive nodes that the first phase and one more equation use, none within another."""
    uses: dict[str, int] = {}
    first: dict[str, tuple[Expr, int | None]] = {}
    for number, phase in enumerate(phases):
        for equation in phase.system.equations:
            for node in functions(equation.value):
                if node.key not in held and _is_expensive(node, held):
                    uses[node.key] = uses.get(node.key, 0) + 1
                    if number == 0:
                        first.setdefault(node.key, (node, equation.layer))
    chosen = {key: entry for key, entry in first.items() if uses[key] > 1}
    inside = {n.key for node, _ in chosen.values() for n in postorder(node) if n is not node}
    return [entry for key, entry in chosen.items() if key not in inside]


def _is_expensive(node: Expr, held: set[str]) -> bool:
    if isinstance(node, LogSumExp | LogSoftmax | ArgMax):
        return True
    if not isinstance(node, Map):
        return False
    value = node.function.value_form(node.orders)
    plain = (0,) * len(node.orders)
    if Map(node.function, plain, node.operands, node.out).key in held:
        value = value.xreplace({node.function.value_form(plain): sympy.Symbol("known", real=True)})
    cheap = (sympy.Piecewise, sympy.Abs)
    return any(
        not isinstance(f, cheap) and type(f).__name__ not in ("absolute", "signum")
        for f in value.atoms(sympy.Function)
    )


def _symbol(node: Expr, layer: int | None, taken: set[Input]) -> Input:
    """A name of its own: F', F'' for derivatives of activations, softmax, else a number in its layer."""
    # A family has a member for each layer, or one without.
    clashes = {s.family for s in taken if s.index == layer or None in (s.index, layer)}
    family = next(name for name in _names(node) if name not in clashes)
    samples = any(symbol.role.per_sample for symbol in inputs_of(node))
    return Input(family, layer, node.axes, Role.STATE if samples else Role.STATISTIC)


def _names(node: Expr) -> Iterator[str]:
    """Names for a shared function, the best first, without end."""
    if isinstance(node, LogSoftmax):
        yield from _numbered("log_softmax")
    if isinstance(node, Map) and node.function == EXP and isinstance(node.operands[0][0], LogSoftmax):
        yield from _numbered("softmax")
    if isinstance(node, Map) and len(node.orders) == 1 and any(node.orders) and node.function.name != "loss":
        yield "F" + "'" * node.orders[0]
    yield from (f"s{number}" for number in itertools.count(1))


def _replace(phase: Phase, names: Mapping[Expr, Input]) -> Phase:
    values = abbreviate([e.value for e in phase.system.equations], names)
    equations = tuple(
        replace(equation, value=value) for equation, value in zip(phase.system.equations, values, strict=True)
    )
    return replace(phase, system=replace(phase.system, equations=equations))


def _define(phase: Phase, names: Mapping[Expr, Input], layers: Mapping[Expr, int | None]) -> Phase:
    """Put each definition before the first equation that uses it."""
    waiting = {symbol: node for node, symbol in names.items()}
    equations: list[Equation] = []
    for equation in phase.system.equations:
        for symbol in inputs_of(equation.value):
            node = waiting.pop(symbol, None)
            if node is not None:
                equations.append(Equation(symbol, node, layers[node], "definition"))
        equations.append(equation)
    return replace(phase, system=replace(phase.system, equations=tuple(equations)))


def _numbered(name: str) -> Iterator[str]:
    """A name and further ones like it, without end.

    Example:
        >>> names = _numbered("softmax")
        >>> next(names), next(names), next(names)
        ('softmax', 'softmax2', 'softmax3')
    """
    yield name
    yield from (f"{name}{number}" for number in itertools.count(2))
