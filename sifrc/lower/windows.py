"""Arrays over groups hold only the groups that are there: a group's tangent begins at its own layer.

An equation over groups is a sum of terms, and each is zero but for some of the groups: a term with the
vector that is 1 at the owner of a tensor for one, a term with the tangents of the layer below for the
groups that have begun there. This pass finds the window of every term, stores as many groups as there
are, and takes the equation apart into assignments to windows and additions to them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import singledispatchmethod
from typing import TypeAlias

from sifrc.derive.groups import OWNER
from sifrc.derive.system import Equation
from sifrc.ir import Add, Axis, Einsum, Expr, Input
from sifrc.ir.build import add, einsum, ones, rename, total, zero
from sifrc.ir.normal import condense, expand
from sifrc.ir.relative import ordered_terms
from sifrc.ir.traverse import inputs_of, postorder, rewrite
from sifrc.lower.arrays import Change, Load, Ref, Slot, Subscript, Upto, Window
from sifrc.lower.statements import Fresh

__all__ = ["View", "Windows", "ref_of"]

Interval: TypeAlias = tuple[int, int]
_Table: TypeAlias = Mapping[Axis, tuple[Interval, Window]]
_OWNERS = frozenset(OWNER.values())


@dataclass(frozen=True)
class View:
    """A part of an array, or an array in another shape.

    Args:
        base: the array.
        window: of its leading dimensions.
        changes: of the dimensions that are left.
    """

    base: Input
    window: tuple[Window, ...] = ()
    changes: tuple[Change, ...] = ()


@dataclass
class Windows:
    """What is stored of every array over groups.

    Args:
        owners: (family, index) -> position of the vectors that are 1 at an owner.
        in_place: families whose arrays are there already and are overwritten.
        stored: (family, index) -> number of groups that its array holds.
        views: key of the symbol of a window -> the window.
        shapes: axes -> the first state that was defined over them, or the first symbol without groups.
    """

    owners: Mapping[tuple[str, int], int]
    in_place: frozenset[str] = frozenset()
    stored: dict[tuple[str, int | None], int] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    shapes: dict[tuple[Axis, ...], Input] = field(default_factory=dict)

    def parts(self, equation: Equation, least: int = 0) -> Iterator[Equation | Fresh]:
        """The equation as assignments to windows and additions; as it is, if it is not over groups.

        Args:
            equation: which is taken apart.
            least: groups that the array has, if the equation has fewer.
        """
        groups = _groups(equation.symbol.axes)
        if not groups:
            self._has_shape(equation.symbol)
            yield replace(equation, value=self._picked(equation.value))
            return
        if not all(isinstance(node, Add | Einsum | Input) for node in _outside(equation.value)):
            # Solvers and functions take all groups.
            self.stored[equation.symbol.family, equation.symbol.index] = groups[0].size or 0
            yield equation
            return
        symbol = equation.symbol
        shorter = expand if self._is_mixed(equation.value) else condense
        value = shorter(equation.value)
        # In an order that is the same for layers that are alike.
        terms = ordered_terms(value, equation.layer) if isinstance(value, Add) else [(Fraction(1), value)]
        found: dict[tuple[Interval, ...], list[tuple[Fraction, Expr]]] = {}
        for factor, term in terms:
            window = tuple(self._support(term, axis) for axis in groups)
            if all(low < high for low, high in window):
                found.setdefault(window, []).append((factor, term))
        size = groups[0].size or 0
        # What is zero for every group is so for those that read it: one is as good as all.
        extent = max((high for window in found for _, high in window), default=1)
        # What is a result has all groups.
        extent = size if symbol.index is None else max(extent, least)
        self.stored[symbol.family, symbol.index] = extent
        whole = tuple((0, extent) for _ in groups)
        ordered = sorted(found, key=lambda window: (-_volume(window), window))
        covered: list[tuple[Interval, ...]] = []
        if symbol.family not in self.in_place and (ordered[:1] != [whole] or extent == 1):
            zeros = len(groups) > 1 or not _tiles([window[0] for window in ordered], extent)
            yield Fresh(Load(ref_of(symbol)), zeros, self._like(terms, symbol))
            # The windows of two groups are mostly products that other windows have transposed: arrays that
            # are added. One of one group is computed where it belongs, also where zeros are.
            covered = [whole] if len(groups) > 1 else []
        for window in ordered:
            term = found[window][0][1]
            table = {a: (w, self._mark(term, a, w)) for a, w in zip(groups, window, strict=True)}
            target = self._view(symbol, table)
            axes = _left(symbol.axes, table)
            part = add([(f, self._restrict(term, table)) for f, term in found[window]], axes)
            part = shorter(rename(part, target.axes))
            if any(_overlap(window, other) for other in covered):
                part = total([target, part], target.axes)
            covered.append(window)
            yield Equation(target, part, equation.layer, equation.source)
        if not ordered:
            base = _stored(symbol, extent)
            yield Equation(base, zero(base.axes), equation.layer, equation.source)

    def held(self, equations: Iterable[Equation], symbols: Iterable[Input]) -> int:
        """How many groups some equations have at most, which some symbols then have too; 0 without groups."""
        found = [0]
        for equation in equations:
            for axis in _groups(equation.value.axes):
                found.append(self._support(equation.value, axis)[1])
        for symbol in symbols:
            if _groups(symbol.axes):
                self.stored[symbol.family, symbol.index] = max(found)
            else:
                self._has_shape(symbol)
        return max(found)

    def _has_shape(self, symbol: Input) -> None:
        """An array that others over the same axes may be made like: best a state, which is kept anyway."""
        known = self.shapes.setdefault(symbol.axes, symbol)
        if symbol.family == "x" and known.family != "x":
            self.shapes[symbol.axes] = symbol

    def _like(self, terms: Sequence[tuple[Fraction, Expr]], symbol: Input) -> Load | None:
        """An array with the axes that are left without the groups, of the equation itself if it has one."""
        axes = tuple(axis for axis in symbol.axes if not axis.is_group)
        if not axes:
            return None
        own = [
            found
            for found in inputs_of(*(term for _, term in terms))
            if found.axes == axes and not found.role.of_classes
        ]
        known = self.shapes.get(axes)
        # What a function reads may be let go of, where its slope is computed from its value.
        if known is not None and known.family == "x" and own and own[0].family == "a":
            own = [known]
        return Load(ref_of(own[0] if own else self.shapes[axes]))

    def _picked(self, value: Expr) -> Expr:
        """A product with the vector of an owner, summed over the groups, as an entry of the other factors."""

        def rule(node: Expr) -> Expr | None:
            if not isinstance(node, Einsum):
                return None
            for owner, labels in node.operands:
                if isinstance(owner, Input) and owner.family in _OWNERS and labels[0] not in node.out:
                    window = self._owner(owner)
                    mark = self._mark(node, labels[0], window)
                    return self._restrict(node, {labels[0]: (window, mark)})
            return None

        return rewrite([value], rule)[0] if any(map(_is_owner, inputs_of(value))) else value

    # -- which groups a term has

    def _is_mixed(self, value: Expr) -> bool:
        """Whether a sum within a term has parts for different groups: only they are taken apart."""
        return any(
            len({self._support(term, axis) for _, term in node.terms}) > 1
            for node in _outside(value)
            if node is not value and isinstance(node, Add)
            for axis in _groups(node.axes)
        )

    def _support(self, expr: Expr, axis: Axis) -> Interval:
        """The groups for which the expression is not zero, as an interval of the axis."""
        if isinstance(expr, Input):
            if expr.family in _OWNERS:
                return self._owner(expr)
            stored = self.stored.get((expr.family, expr.index), axis.size or 0)
            return 0, stored
        if isinstance(expr, Add):
            found = [self._support(term, axis) for _, term in expr.terms]
            return min(low for low, _ in found), max(high for _, high in found)
        if isinstance(expr, Einsum):
            window = (0, axis.size or 0)
            for operand, labels in expr.operands:
                for own, label in zip(operand.axes, labels, strict=True):
                    if label == axis:
                        low, high = self._support(operand, own)
                        window = max(window[0], low), min(window[1], high)
            return window
        raise TypeError(f"no rule for the groups of {type(expr).__name__}")

    def _owner(self, symbol: Input) -> Interval:
        assert symbol.index is not None
        position = self.owners[symbol.family, symbol.index]
        return position, position + 1

    def _mark(self, term: Expr, axis: Axis, window: Interval) -> Window:
        """How the window is called: after the owner of a tensor, or after the groups of another array."""
        own = [symbol for symbol, slot in _carriers(term, axis) if self._support(symbol, slot) == window]
        owners = [expr for expr in own if expr.family in _OWNERS]
        if owners and axis.size != 1:
            assert owners[0].index is not None
            return Slot(owners[0].family, Subscript(owners[0].index))
        if window == (0, 1):
            return 0
        if not own:
            raise TypeError("a window that no array has")
        return Upto(ref_of(min(own, key=lambda symbol: (symbol.family, symbol.index or 0))))

    # -- the term within its window

    @singledispatchmethod
    def _restrict(self, expr: Expr, table: _Table) -> Expr:
        if any(axis in table for axis in expr.axes):
            raise TypeError(f"no rule for a window of {type(expr).__name__}")
        return expr

    @_restrict.register
    def _(self, expr: Input, table: _Table) -> Expr:
        if expr.family in _OWNERS:
            return ones(())
        return rename(self._view(expr, table), _left(expr.axes, table)) if table else expr

    @_restrict.register
    def _(self, expr: Add, table: _Table) -> Expr:
        terms = [(factor, self._restrict(term, table)) for factor, term in expr.terms]
        return add(terms, _left(expr.axes, table))

    @_restrict.register
    def _(self, expr: Einsum, table: _Table) -> Expr:
        operands = []
        for operand, labels in expr.operands:
            part = self._restrict(operand, _inner(operand, labels, table))
            operands.append((part, () if _is_owner(operand) else _left(labels, table)))
        return einsum(operands, _left(expr.out, table))

    def _view(self, symbol: Input, table: _Table) -> Input:
        """The array, or a symbol for a window of it."""
        extent = self.stored.get((symbol.family, symbol.index), _groups(symbol.axes)[0].size or 0)
        chosen = [table[axis] for axis in _groups(symbol.axes)]
        if extent > 1 and all(window == (0, extent) for window, _ in chosen):
            return _stored(symbol, extent)
        window = tuple(None if extent > 1 and w == (0, extent) else mark for w, mark in chosen)
        name = ", ".join(map(_mark_text, window))
        axes = _numbered(_left(symbol.axes, table))
        view = Input(f"{symbol.family}[{name}]", symbol.index, axes, symbol.role)
        self.views[view.key] = View(_stored(symbol, extent), window)
        return view


def _outside(value: Expr) -> Iterator[Expr]:
    """The nodes that have groups."""
    return (node for node in postorder(value) if _groups(node.axes))


def _carriers(expr: Expr, axis: Axis) -> Iterator[tuple[Input, Axis]]:
    """The arrays that an expression has an axis from, and the axis of each."""
    if isinstance(expr, Input):
        yield expr, axis
    elif isinstance(expr, Add):
        for _, term in expr.terms:
            yield from _carriers(term, axis)
    elif isinstance(expr, Einsum):
        for operand, labels in expr.operands:
            for own, label in zip(operand.axes, labels, strict=True):
                if label == axis:
                    yield from _carriers(operand, own)


def _groups(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    return tuple(axis for axis in axes if axis.is_group)


def _is_owner(expr: Expr) -> bool:
    return isinstance(expr, Input) and expr.family in _OWNERS


def _stored(symbol: Input, extent: int) -> Input:
    """The symbol with as many groups as are stored."""
    axes = tuple(replace(a, size=extent) if a.is_group else a for a in symbol.axes)
    return Input(symbol.family, symbol.index, _numbered(axes), symbol.role)


def _numbered(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """The axes of groups told apart in order: equal parts of two windows are then one expression."""
    count = itertools.count()
    return tuple(replace(a, primes=next(count)) if a.is_group else a for a in axes)


def _left(axes: Sequence[Axis], table: _Table) -> tuple[Axis, ...]:
    """The axes within the windows; a window of one group has none."""
    found = []
    for axis in axes:
        (low, high), _ = table.get(axis, ((0, 0), None))
        if axis not in table:
            found.append(axis)
        elif high - low > 1:
            found.append(replace(axis, size=high - low))
    return tuple(found)


def _inner(operand: Expr, labels: Sequence[Axis], table: _Table) -> _Table:
    """The windows by the operand's own axes."""
    return {own: table[label] for own, label in zip(operand.axes, labels, strict=True) if label in table}


def _mark_text(mark: Window) -> str:
    """A text that tells windows apart."""
    if isinstance(mark, Slot):
        return f"{mark.family}{mark.subscript.offset}"
    if isinstance(mark, Upto):
        index = "" if mark.ref.subscript is None else mark.ref.subscript.offset
        return f":{mark.ref.family}{index}"
    return ":" if mark is None else str(mark)


def ref_of(symbol: Input) -> Ref:
    """The array of a symbol."""
    return Ref(symbol.family, None if symbol.index is None else Subscript(symbol.index))


def _volume(window: tuple[Interval, ...]) -> int:
    return math.prod(high - low for low, high in window)


def _overlap(one: tuple[Interval, ...], other: tuple[Interval, ...]) -> bool:
    return all(a < d and c < b for (a, b), (c, d) in zip(one, other, strict=True))


def _tiles(windows: Sequence[Interval], extent: int) -> bool:
    """Whether the windows reach every position."""
    return {n for low, high in windows for n in range(low, high)} >= set(range(extent))
