"""Maxima by index: where the largest entry of a window is, is an integer, and no mask.

The derivative of a maximum is a product with :class:`~sifrc.ir.nodes.ArgMax`, a mask as large as all windows
together. Where these are windows of an image, what is 1 at the position in the image at which a window has
its largest entry is the vector of a class: an integer in memory, at which a tangent is read, and an adjoint
is added (:mod:`sifrc.lower.classes`). Such a vector gets a symbol, and the maximum itself is the image read
there. Any other maximum keeps its mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from sifrc.catalogue.phase import Phase
from sifrc.derive.system import Equation
from sifrc.ir import ArgMax, Axis, Einsum, Expr, Input, Operand, Reduce, Role
from sifrc.ir.build import einsum
from sifrc.ir.traverse import postorder, rebuild
from sifrc.lower.images import ImageMaximum, image_maximum

__all__ = ["by_index", "maximum_of"]

_FAMILY = "argmax"
_POSITION = Axis("position", 1)


def by_index(phases: Sequence[Phase]) -> list[Phase]:
    """The phases with a symbol for where each maximum is whose derivative is in them.

    It is defined in the first phase that has the maximum or its derivative, and used by that one and by those
    that always run after it.
    """
    result = list(phases)
    taken: set[tuple[str, int | None]] = set()
    for position, phase in enumerate(result):
        users = [q for q in range(position, len(result)) if q == position or phase.name in result[q].after]
        own = _maxima(phase)
        if not own:
            continue
        maxima = [found for q in users for found in (own if q == position else _maxima(result[q])).items()]
        derived = {key for key, (_, _, slope) in maxima if slope} & own.keys()
        if not derived:
            continue
        symbols: dict[str, Input] = {}
        before: dict[Equation, list[Equation]] = {}
        for key, (maximum, equation, _) in own.items():
            if key in derived:
                symbols[key] = symbol = _symbol(maximum, equation.layer, taken)
                value = maximum.vector(symbol.axes[-1])
                before.setdefault(equation, []).append(Equation(symbol, value, equation.layer, "definition"))
        for q in users:
            result[q] = _with_symbols(result[q], symbols, before if q == position else {})
    return result


def maximum_of(vector: Expr) -> ImageMaximum:
    """The maximum that is where a vector says."""
    found = _slope(vector) if isinstance(vector, Einsum) else None
    if found is None:
        raise TypeError("the vector of a class that is no position of a maximum")
    return found.maximum


def _symbol(maximum: ImageMaximum, layer: int | None, taken: set[tuple[str, int | None]]) -> Input:
    names = (_FAMILY if number == 1 else f"{_FAMILY}{number}" for number in count(1))
    family = next(name for name in names if (name, layer) not in taken)
    taken.add((family, layer))
    return Input(family, layer, (*maximum.node.axes, _position(maximum, ())), Role.POSITION)


def _position(maximum: ImageMaximum, others: Sequence[Axis]) -> Axis:
    """An axis of the positions in an image that is none of some others."""
    axes = (replace(_POSITION, size=maximum.size, primes=n) for n in count())
    return next(axis for axis in axes if axis not in others)


def _maxima(phase: Phase) -> dict[str, tuple[ImageMaximum, Equation, bool]]:
    """Maxima of a phase by their nodes, each with the first equation that has it, and whether as a slope."""
    found: dict[str, tuple[ImageMaximum, Equation, bool]] = {}
    for equation in phase.system.equations:
        if not any(isinstance(node, Reduce | ArgMax) for node in postorder(equation.value)):
            continue

        def note(maximum: ImageMaximum, slope: bool, equation: Equation = equation) -> None:
            _, first, before = found.get(maximum.node.key, (maximum, equation, False))
            found[maximum.node.key] = maximum, first, before or slope

        _Rewriting(lambda maximum, slope: note(maximum, slope)).of(equation.value)
    return found


def _with_symbols(
    phase: Phase, symbols: Mapping[str, Input], before: Mapping[Equation, Sequence[Equation]]
) -> Phase:
    """The phase with symbols for positions, and their definitions before equations."""
    rewriting = _Rewriting(lambda maximum, slope: symbols.get(maximum.node.key))
    equations: list[Equation] = []
    for equation in phase.system.equations:
        equations += before.get(equation, ())
        equations.append(replace(equation, value=rewriting.of(equation.value)))
    return replace(phase, system=replace(phase.system, equations=tuple(equations)))


class _Rewriting:
    """Expressions with symbols for the positions of maxima.

    Args:
        symbol_of: the symbol of a maximum, if it has one; and whether its slope is wanted, or its value.
    """

    def __init__(self, symbol_of: Callable[[ImageMaximum, bool], Input | None]) -> None:
        self._symbol_of = symbol_of
        self._done: dict[str, Expr] = {}

    def of(self, expr: Expr) -> Expr:
        """An expression with the symbols, from its outermost nodes on: a maximum has others within."""
        if expr.key not in self._done:
            self._done[expr.key] = self._replaced(expr)
        return self._done[expr.key]

    def _replaced(self, expr: Expr) -> Expr:
        if isinstance(expr, Reduce) and (maximum := image_maximum(expr)) is not None:
            symbol = self._symbol_of(maximum, False)
            return expr if symbol is None else _read_at(maximum, symbol)
        if isinstance(expr, Einsum) and (slope := _slope(expr)) is not None:
            symbol = self._symbol_of(slope.maximum, True)
            if symbol is not None:
                return self.of(slope.by(symbol))
            # The masks are left as they are: nothing of the maximum is looked for in them.
            masks = {mask.key for mask, _ in slope.maximum.masks}
            return rebuild(expr, lambda child: child if child.key in masks else self.of(child))
        return rebuild(expr, self.of)


def _read_at(maximum: ImageMaximum, symbol: Input) -> Expr:
    """The maximum as the entry of the image at a position."""
    position = _position(maximum, maximum.node.axes)
    (image, labels), read = maximum.image, maximum.read
    if len(read) == 1:
        labels = (*labels[:-1], position)
    places = maximum.places(position, read)
    return einsum([(symbol, (*maximum.node.axes, position)), *places, (image, labels)], maximum.node.axes)


@dataclass(frozen=True)
class _Slope:
    """A product with the masks of a maximum and the relations of its windows.

    Args:
        maximum: of which it is the derivative, times other factors.
        labels: that axes of the windows have in it.
        read: labels of the places of the image.
        others: the other factors.
        out: labels of the product.
    """

    maximum: ImageMaximum
    labels: Mapping[Axis, Axis]
    read: tuple[Axis, ...]
    others: tuple[Operand, ...]
    out: tuple[Axis, ...]

    def by(self, symbol: Input) -> Expr:
        """The same with the symbol for the position."""
        own = tuple(self.labels[axis] for axis in self.maximum.node.axes)
        used = {*own, *self.read, *self.out, *(label for _, labels in self.others for label in labels)}
        position = self.read[0] if len(self.read) == 1 else _position(self.maximum, tuple(used))
        places = self.maximum.places(position, self.read)
        return einsum([(symbol, (*own, position)), *places, *self.others], self.out)


def _slope(expr: Einsum) -> _Slope | None:
    """A product as one with the derivative of a maximum; None where it is none."""
    if not _has_mask(expr):
        return None
    flat = _flat(expr)
    for mask, _ in flat.operands:
        maximum = image_maximum(Reduce(mask.operand, mask.over)) if isinstance(mask, ArgMax) else None
        if maximum is None:
            continue
        innermost, axes = maximum.masks[-1]
        for found, labels in flat.operands:
            if found is innermost:
                slope = _slope_at(flat, maximum, dict(zip(axes, labels, strict=True)))
                if slope is not None:
                    return slope
    return None


def _slope_at(flat: Einsum, maximum: ImageMaximum, labels: Mapping[Axis, Axis]) -> _Slope | None:
    """The same, with the labels of the axes of its windows given."""
    others = list(flat.operands)
    for mask, axes in maximum.masks:
        own_mask = mask, tuple(labels[axis] for axis in axes)
        if own_mask not in others:
            return None
        others.remove(own_mask)
    read: list[Axis] = []
    for relation, (_, *ends) in maximum.relations:
        own = [labels[axis] for axis in ends]
        operand = next((op for op in others if op[0] is relation and list(op[1][1:]) == own), None)
        if operand is None:
            return None
        read.append(operand[1][0])
        others.remove(operand)
    entries = {labels[entry] for entry in maximum.entries}
    # Where the largest entry is, there is one.
    left = [op for op in others if not (maximum.is_there(op[0]) and _labelled(op, maximum, labels))]
    if entries & {*flat.out, *(label for _, ls in left for label in ls)} or len(set(read)) < len(read):
        return None
    return _Slope(maximum, labels, tuple(read), tuple(left), flat.out)


def _labelled(operand: Operand, maximum: ImageMaximum, labels: Mapping[Axis, Axis]) -> bool:
    """Whether a factor has the labels of the windows."""
    assert maximum.masked is not None
    return operand[1] == tuple(labels[axis] for axis in maximum.masked.axes)


def _has_mask(expr: Expr) -> bool:
    """Whether a product, or one within it, has a mask for a factor."""
    return isinstance(expr, Einsum) and any(isinstance(e, ArgMax) or _has_mask(e) for e, _ in expr.operands)


def _flat(expr: Einsum) -> Einsum:
    """The product with those in it taken apart that have masks, or axes along which masks are."""
    operands = list(expr.operands)
    fresh = count()
    while (number := _inner(operands)) is not None:
        inner, labels = operands.pop(number)
        assert isinstance(inner, Einsum)
        table = dict(zip(inner.out, labels, strict=True))
        for _, own in inner.operands:
            for axis in own:
                if axis not in table:
                    table[axis] = replace(axis, name=f"inner {next(fresh)}", primes=0)
        operands += [(e, tuple(table[axis] for axis in own)) for e, own in inner.operands]
    return Einsum(tuple(operands), expr.out)


def _inner(operands: Sequence[Operand]) -> int | None:
    """The number of a factor that is to be taken apart."""
    over = {
        label
        for mask, labels in operands
        if isinstance(mask, ArgMax)
        for axis, label in zip(mask.axes, labels, strict=True)
        if axis == mask.over
    }
    for number, (factor, labels) in enumerate(operands):
        if not isinstance(factor, Einsum) or not (_has_mask(factor) or over & set(labels)):
            continue
        if set(factor.out) <= {label for _, own in factor.operands for label in own}:
            return number
    return None
