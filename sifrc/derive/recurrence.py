"""Equations that define symbols by each other, and by themselves at another step of one axis.

h_t = F(U x_t + W h_{t−1} + β) is one equation over all steps: h_{t−1} is h times a constant shift. It has one
solution, found step by step, because every way from a symbol back to itself goes through a shift, and all
shifts go one way. Such equations are found here by what they read, whichever derivation they come from; an
adjoint reads the step after, and is solved from the last step to the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatchmethod
from types import MappingProxyType
from typing import TypeAlias

from sifrc.derive.system import Equation
from sifrc.errors import DerivationError
from sifrc.ir import Add, Affine, Axis, Einsum, Expr, Input, Map
from sifrc.ir.nodes import AlongAxis, Operand
from sifrc.ir.traverse import inputs_of
from sifrc.spec.order import after_needs

__all__ = [
    "Name",
    "Reads",
    "Recursion",
    "Unbound",
    "is_shift",
    "name_of",
    "recursions",
    "shifted_labels",
    "strictly_shifted",
]

Name: TypeAlias = tuple[str, int | None]
"""Family and index: what a symbol is, whatever its axes are called."""
Bound: TypeAlias = Mapping[Axis, int]
"""Axes that are the step, each with how many steps after the one that is computed."""


@dataclass(frozen=True)
class Recursion:
    """Equations that are solved together, one step after the other.

    Args:
        equations: in the order in which a step computes them.
        slots: position, among the axes of each symbol, of that of the steps.
        backwards: whether the last step comes first.
        steps: how many there are.
    """

    equations: tuple[Equation, ...]
    slots: Mapping[Name, int]
    backwards: bool
    steps: int


def name_of(symbol: Input) -> Name:
    """Family and index of a symbol."""
    return symbol.family, symbol.index


def is_shift(expr: Expr) -> bool:
    """Whether a relation reads one axis of an index at a distance: i − j = offset."""
    if not isinstance(expr, Affine) or len(expr.sizes) != 2:
        return False
    first, second = expr.coefficients
    return expr.sizes[0] == expr.sizes[1] and first == -second and abs(first) == 1


def shifted_labels(operands: Iterable[Operand], bound: Bound) -> dict[Axis, int]:
    """Labels of a product that are the step, directly or through shifts.

    Args:
        operands: of the product.
        bound: labels of its result that are.
    """
    found = dict(bound)
    shifts = [(expr, labels) for expr, labels in operands if is_shift(expr)]
    grown = True
    while grown:
        grown = False
        for expr, (first, second) in shifts:
            assert isinstance(expr, Affine)
            distance = expr.offset * expr.coefficients[0]
            if second in found and first not in found:
                found[first], grown = found[second] + distance, True
            elif first in found and second not in found:
                found[second], grown = found[first] - distance, True
    return found


class Unbound(Exception):
    """A symbol of a recursion is read at all steps, or in another way than at a distance."""


@dataclass(frozen=True)
class Reads:
    """Which symbols an expression reads at which steps.

    Args:
        members: the symbols that are of interest.
    """

    members: frozenset[Name]

    def of(self, expr: Expr, bound: Bound) -> Iterator[tuple[Name, int, int]]:
        """Name, slot of the steps, and distance of each reading.

        Raises:
            Unbound: there is none such.
        """
        if any(name_of(symbol) in self.members for symbol in inputs_of(expr)):
            yield from self._of(expr, bound)

    @singledispatchmethod
    def _of(self, expr: Expr, bound: Bound) -> Iterator[tuple[Name, int, int]]:
        raise Unbound

    @_of.register
    def _(self, expr: Input, bound: Bound) -> Iterator[tuple[Name, int, int]]:
        slots = [slot for slot, axis in enumerate(expr.axes) if axis in bound]
        if len(slots) != 1:
            raise Unbound
        yield name_of(expr), slots[0], bound[expr.axes[slots[0]]]

    @_of.register
    def _(self, expr: Add, bound: Bound) -> Iterator[tuple[Name, int, int]]:
        for _, term in expr.terms:
            yield from self.of(term, bound)

    @_of.register(Einsum)
    @_of.register(Map)
    def _(self, expr: Einsum | Map, bound: Bound) -> Iterator[tuple[Name, int, int]]:
        labels_at = shifted_labels(expr.operands, bound)
        for operand, labels in expr.operands:
            inner = {
                own: labels_at[label]
                for own, label in zip(operand.axes, labels, strict=True)
                if label in labels_at
            }
            yield from self.of(operand, inner)

    @_of.register
    def _(self, expr: AlongAxis, bound: Bound) -> Iterator[tuple[Name, int, int]]:
        if expr.over in bound:
            raise Unbound
        yield from self.of(expr.operand, bound)


def strictly_shifted(expr: Expr, symbol: Input) -> bool:
    """Whether an expression reads a symbol at other steps of one axis only, all before or all after.

    Example:
        >>> from sifrc.ir import Role
        >>> from sifrc.ir.build import einsum
        >>> t, s, i = Axis("step", 4), Axis("before", 4), Axis("h", 2)
        >>> h = Input("h", 1, (t, i), Role.STATE)
        >>> before = einsum([(Affine((4, 4), (1, -1), -1), (s, t)), (h, (s, i))], (t, i))
        >>> strictly_shifted(before, h), strictly_shifted(h, h)
        (True, False)
    """
    reads = Reads(frozenset({name_of(symbol)}))
    for slot, axis in enumerate(symbol.axes):
        try:
            found = list(reads.of(expr, {axis: 0} if axis in expr.axes else {}))
        except Unbound:
            continue
        if all(at == slot for _, at, _ in found):
            distances = [distance for _, _, distance in found]
            return all(d < 0 for d in distances) or all(d > 0 for d in distances)
    return False


def recursions(equations: Sequence[Equation]) -> tuple[Equation | Recursion, ...]:
    """Equations in an order in which they can be evaluated, those that are solved together as one.

    What does not refer to itself or to what comes later stays as it is.

    Raises:
        DerivationError: a symbol is defined by itself at the same step.
    """
    defined = {name_of(equation.symbol): number for number, equation in enumerate(equations)}
    reads = [
        {defined[name] for name in map(name_of, inputs_of(equation.value)) if name in defined}
        for equation in equations
    ]
    late = any(
        equations[number].symbol.role.per_sample and any(other >= number for other in read)
        for number, read in enumerate(reads)
    )
    if not late or len(defined) < len(equations):
        return tuple(equations)
    parts = _components(reads)
    of = {number: min(part) for part in parts for number in part}
    needs = {min(part): {of[other] for number in part for other in reads[number]} for part in parts}
    members = {min(part): part for part in parts}
    found: list[Equation | Recursion] = []
    for first in after_needs({part: needed - {part} for part, needed in needs.items()}):
        together = sorted(members[first])
        if len(together) > 1 or first in reads[first]:
            found.append(_recursion([equations[number] for number in together]))
        else:
            found.append(equations[first])
    return tuple(found)


def _components(reads: Sequence[set[int]]) -> list[set[int]]:
    """Sets of numbers that can be reached from each other (Tarjan, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on: set[int] = set()
    found: list[set[int]] = []
    for root in range(len(reads)):
        if root in index:
            continue
        work = [(root, iter(sorted(reads[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on.add(root)
        while work:
            node, others = work[-1]
            following = next(others, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    part: set[int] = set()
                    while node not in part:
                        part.add(stack.pop())
                    on -= part
                    found.append(part)
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                on.add(following)
                work.append((following, iter(sorted(reads[following]))))
            elif following in on:
                low[node] = min(low[node], index[following])
    return found


def _recursion(equations: Sequence[Equation]) -> Recursion:
    """The axis of the steps, their direction, and the order within one."""
    first = equations[0].symbol
    names = ", ".join(equation.symbol.name for equation in equations)
    for slot in range(len(first.axes)):
        found = _along(equations, slot)
        if found is None:
            continue
        slots, distances = found
        far = [d for each in distances for _, d in each if d]
        if not (all(d < 0 for d in far) or all(d > 0 for d in far)):
            raise DerivationError(
                f"{names} refer to steps before and after", hint="each direction needs a state of its own"
            )
        numbers = {name_of(equation.symbol): number for number, equation in enumerate(equations)}
        needs = {
            number: {numbers[name] for name, distance in each if not distance}
            for number, each in enumerate(distances)
        }
        order = list(after_needs(needs))
        if len(order) < len(equations):  # along this axis they refer to themselves at the same place
            continue
        size = first.axes[slot].entries
        return Recursion(
            tuple(equations[number] for number in order),
            MappingProxyType(slots),
            bool(far) and far[0] > 0,
            size,
        )
    raise DerivationError(f"{names} refer to themselves, and not along the steps of one axis")


def _along(
    equations: Sequence[Equation], slot: int
) -> tuple[dict[Name, int], list[list[tuple[Name, int]]]] | None:
    """Slots of the steps, and what each equation reads at which distance; None if it is not this axis."""
    by_name = {name_of(equation.symbol): equation for equation in equations}
    first = equations[0].symbol
    if first.axes[slot].is_sample or first.axes[slot].is_group:
        return None
    slots, waiting = {name_of(first): slot}, [name_of(first)]
    reads, found = Reads(frozenset(by_name)), dict[Name, list[tuple[Name, int]]]()
    while waiting:
        name = waiting.pop()
        equation = by_name[name]
        step = equation.symbol.axes[slots[name]]
        try:
            read = list(reads.of(equation.value, {step: 0}))
        except Unbound:
            return None
        for other, own, _ in read:
            if other not in slots:
                slots[other] = own
                waiting.append(other)
            elif slots[other] != own:
                return None
        found[name] = [(other, distance) for other, _, distance in read]
    return slots, [found[name_of(equation.symbol)] for equation in equations]
