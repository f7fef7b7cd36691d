"""Arrays that are made again where they are read, and not kept for it.

What a function computes for a later one is kept in between: of every layer, until the later function comes to
it. Two kinds of arrays need not be. A tangent that a few sums and products make of arrays that are there
anyway costs no more to make than to read. And a product that is larger than its factors, as attention's
scores, is with all that is made of it entry by entry larger than what it is made from: where that is asked
for (``large``), each function that reads it computes it from its factors, so that none leaves any behind.

An array that is made again gets an equation of its own before the first that reads it, with a family of its
own: ζ~again is ζ for one function.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from types import MappingProxyType

from sifrc.catalogue.phase import Phase
from sifrc.derive.recurrence import Name, Recursion, name_of, recursions
from sifrc.derive.system import Equation
from sifrc.ir import Add, Einsum, Expr, Input, Role
from sifrc.ir.traverse import inputs_of, postorder, substitute
from sifrc.lower.products import contracted
from sifrc.lower.row_blocks import in_row_blocks

__all__ = ["Again", "base_of", "is_made_again", "made_again"]

_MARK = "~again"
_MARKS = (_MARK, "~block")
_FEW = 3
"""Sums and products of an entry that are no more work than to read it."""


@dataclass(frozen=True)
class Again:
    """What is made again.

    Args:
        entries: number of entries of a sample, by name of each array that is not kept for later phases.
    """

    entries: Mapping[Name, int] = field(default_factory=lambda: MappingProxyType({}))

    def hides(self, symbol: Input, parts: Mapping[str, str]) -> bool:
        """Whether what an earlier phase holds is not there: such an array, or as large a part of it.

        Args:
            symbol: of the array.
            parts: family -> that of the array that it is an intermediate one of.
        """
        if is_made_again(symbol.family):
            return True
        name = base_of(parts.get(symbol.family, symbol.family)), symbol.index
        return name in self.entries and _entries(symbol) >= self.entries[name]


def is_made_again(family: str) -> bool:
    """Whether a family is of arrays that are made again, or of parts of them."""
    return any(mark in family for mark in _MARKS)


def base_of(family: str) -> str:
    """The family that an array is of which is made again; of others, their own."""
    return family.partition("~")[0] if is_made_again(family) else family


def made_again(
    phases: Sequence[Phase], *, large: bool, blocks: int = 1, results: Collection[str | Name] = frozenset()
) -> tuple[list[Phase], Again]:
    """The phases with equations for what each makes again.

    Args:
        phases: of one form, each after those that always ran before it.
        large: whether products that are larger than their factors are made again, and what is made of them.
        blocks: of rows, in which they are made.
        results: families and arrays that are returned whole.
    """
    with_steps = {phase.name for phase in phases if _has_steps(phase)}
    defined: dict[str, dict[Name, Equation]] = {}
    for phase in phases:
        equations = phase.system.equations if phase.name not in with_steps else ()
        defined[phase.name] = {name_of(e.symbol): e for e in equations if _may_be(e.symbol)}
    found = _large(phases) if large else frozenset()
    result: list[Phase] = []
    made: dict[Name, int] = {}
    for phase in phases:
        before: dict[Name, Equation] = {}
        for name in phase.after:
            before |= defined.get(name, {})
        own = {name_of(equation.symbol) for equation in phase.system.equations}
        chosen = {n: e for n, e in before.items() if n in found and n not in own}
        if phase.name not in with_steps:
            chosen |= {n: e for n, e in _at_hand(phase, before).items() if n not in own}
            phase = _with(phase, chosen)
            made |= {name: _entries(equation.symbol) for name, equation in chosen.items()}
        result.append(phase)
    if blocks > 1:
        whole = {name for phase in result for name in _given(phase)}
        for number, phase in enumerate(result):
            rows = {n for n in _large([phase]) - whole if n[0] not in results and n not in results}
            if phase.name not in with_steps:
                result[number] = in_row_blocks(phase, frozenset(rows), blocks)
    return result, Again(MappingProxyType(made))


def _has_steps(phase: Phase) -> bool:
    return any(isinstance(each, Recursion) for each in recursions(phase.system.equations))


def _given(phase: Phase) -> set[Name]:
    """What a phase reads of others."""
    equations = phase.system.equations
    return {name_of(s) for e in equations for s in inputs_of(e.value)} - {
        name_of(e.symbol) for e in equations
    }


def _may_be(symbol: Input) -> bool:
    """Whether it is of samples, and not of groups of parameters, of which there are those that have begun."""
    return symbol.role.per_sample and not any(axis.is_group for axis in symbol.axes)


def _entries(symbol: Input) -> int:
    """Entries of a sample."""
    return prod(axis.entries for axis in symbol.axes if not axis.is_sample)


def _at_hand(phase: Phase, before: Mapping[Name, Equation]) -> dict[Name, Equation]:
    """Tangents that a few sums and products make of arrays that the phase reads anyway."""
    read = {name_of(symbol) for e in phase.system.equations for symbol in inputs_of(e.value)}
    found: dict[Name, Equation] = {}
    for name in before:
        equation = before[name]
        if name in read and equation.symbol.role is Role.TANGENT:
            sources = _sources(equation.value, _entries(equation.symbol))
            if sources is not None and all(name_of(s) in read - set(found) for s in sources):
                found[name] = equation
    return found


def _sources(value: Expr, entries: int) -> list[Input] | None:
    """The arrays that an expression is a few sums and products of; None if it is not that.

    Sums over an axis are arrays of their own, which are smaller.
    """
    work, sources, waiting = 0, list[Input](), [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Input):
            if not node.role.per_sample:
                return None
            sources.append(node)
        elif isinstance(node, Einsum) and contracted(node):
            if _size(node) >= entries:
                return None
        elif isinstance(node, Add | Einsum):
            work += max(len(node.children()) - 1, 0)
            waiting += node.children()
        else:
            return None
    return sources if 0 < work <= _FEW else None


def _large(phases: Iterable[Phase]) -> frozenset[Name]:
    """Products that are larger than their factors, and what is made of them that is as large."""
    found: dict[Name, int] = {}
    for phase in phases:
        for equation in phase.system.equations:
            entries = _entries(equation.symbol)
            grown = any(entries >= found.get(name_of(s), entries + 1) for s in inputs_of(equation.value))
            if _may_be(equation.symbol) and (grown or _grows(equation.value, entries)):
                found[name_of(equation.symbol)] = entries
    return frozenset(found)


def _grows(value: Expr, entries: int) -> bool:
    """Whether a product in it of two arrays of a sample is larger than both."""
    for node in postorder(value):
        if isinstance(node, Einsum) and contracted(node):
            factors = [
                prod(axis.entries for axis in operand.axes if not axis.is_sample)
                for operand, _ in node.operands
                if any(symbol.role.per_sample for symbol in inputs_of(operand))
            ]
            if len(factors) > 1 and _size(node) == entries > max(factors):
                return True
    return False


def _size(product: Einsum) -> int:
    """Entries of a sample of what is computed, which may then stand for all of further axes."""
    labels = {label for _, slots in product.operands for label in slots}
    return prod(axis.entries for axis in product.out if axis in labels and not axis.is_sample)


def _with(phase: Phase, chosen: Mapping[Name, Equation]) -> Phase:
    """The phase with an equation for each of these that it reads, before the first that does."""
    table = {e.symbol: replace(e.symbol, family=e.symbol.family + _MARK) for e in chosen.values()}
    there: set[Name] = set()
    equations: list[Equation] = []

    def define(name: Name, layer: int | None) -> None:
        there.add(name)
        equation = chosen[name]
        for source in inputs_of(equation.value):
            if (other := name_of(source)) in chosen and other not in there:
                define(other, layer)
        symbol = table[equation.symbol]
        equations.append(Equation(symbol, substitute(equation.value, table), layer, equation.source))

    for equation in phase.system.equations:
        for source in inputs_of(equation.value):
            if (name := name_of(source)) in chosen and name not in there:
                define(name, equation.layer)
        equations.append(replace(equation, value=substitute(equation.value, table)))
    return replace(phase, system=replace(phase.system, equations=tuple(equations)))
