"""Expressions to entries: what is entrywise is inlined into one scalar expression, the rest is loaded.

A buffer holds what is not entrywise. Which symbol holds which expression is remembered, so that nothing is
computed twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import singledispatchmethod
from string import ascii_lowercase

import sympy

from sifrc.derive.system import Equation
from sifrc.ir import SAMPLE, Add, Affine, Axis, Delta, Einsum, Expr, Input, Map, Operand, Role
from sifrc.ir.build import einsum
from sifrc.ir.relative import ordered_operands, ordered_terms
from sifrc.ir.traverse import inputs_of
from sifrc.lower.again import Again
from sifrc.lower.arrays import Change, Load
from sifrc.lower.classes import Classes
from sifrc.lower.convolutions import as_convolution
from sifrc.lower.grouped import as_grouped
from sifrc.lower.groups import is_fixed_matrix, key_of_groups, shared_by_groups
from sifrc.lower.part_names import PartNames
from sifrc.lower.products import as_one_sum, contracted, narrowed, ordered, split_scalars
from sifrc.lower.scope import Scope
from sifrc.lower.selections import Arrays, without_affine
from sifrc.lower.statements import Assign, Kernel, Statement
from sifrc.lower.windows import View, ref_of
from sifrc.scalar import RECIPROCAL
from sifrc.scalar.branches import substituted
from sifrc.scalar.through import through_value

__all__ = ["Entries", "number"]


_ENTRYWISE = (Input, Add, Map, Einsum, Delta, Affine)
"""Nodes that have an entry as a formula."""


class Entries(ABC):
    """Buffers and entries of one form, batched or one sample, of all systems of a module.

    Args:
        code: canonical family name -> ASCII identifier, extended with temporaries as they are made.
        mark: appended to the names of temporaries, so that the two forms do not share them.
        in_place: families whose arrays are overwritten; values made from them go stale then.
        views: key of a symbol -> what it stands for of another array; extended as arrays are changed.
        indices: whether classes are integers; else they are vectors, as any other array.
    """

    def __init__(
        self,
        code: dict[str, str],
        mark: str,
        in_place: frozenset[str],
        views: MutableMapping[str, View],
        *,
        indices: bool = True,
    ) -> None:
        self.code = code
        self.views = views
        self.in_place = in_place
        self.mark = mark
        self._classes = Classes(self._buffer, self._changed, self._note, self._held_by, views, indices)
        self.shapes: dict[str, dict[int | None, tuple[int | None, ...]]] = {}
        self.parts: dict[str, str] = {}
        self.again = Again()
        self.extents: dict[tuple[str, int | None], tuple[Axis, ...]] = {}
        self._held: dict[str, dict[str, Input]] = {}
        self._over_groups: dict[tuple[str, str], Input] = {}
        self._made_from: dict[str, list[str]] = {}
        self._phase = ""
        self._names = PartNames()
        self._visible: tuple[str, ...] = ()
        self._statements: list[Statement] = []
        self._equation: Equation | None = None
        self._adds = False
        self._count = 0
        self._made_constants, self._in_constant = 0, False
        self.constants: list[Statement] = []
        """Statements that come before all others of a phase."""

    def enter(self, phase: str, after: tuple[str, ...]) -> None:
        """Start a phase: values held by it and by those that always run before it may be used."""
        self._phase, self.constants = phase, []
        self._visible = (*after, phase)
        self._held.setdefault(phase, {})

    def _hold(self, expr: Expr, symbol: Input) -> None:
        self._held[self._phase].setdefault(expr.key, symbol)
        for source in inputs_of(expr):
            if source.family in self.in_place:
                self._made_from.setdefault(source.key, []).append(expr.key)

    def _forget(self, overwritten: Input) -> None:
        """Drop values that depend on an array that was just overwritten."""
        for key in self._made_from.pop(overwritten.key, []):
            for held in self._held.values():
                held.pop(key, None)

    # -- buffers

    def _note(self, symbol: Input) -> None:
        self.shapes.setdefault(symbol.family, {})[symbol.index] = tuple(axis.size for axis in symbol.axes)
        self.extents[symbol.family, symbol.index] = symbol.axes

    def _temporary(self, axes: tuple[Axis, ...]) -> Input:
        """A buffer for part of the current equation, named after what the equation defines."""
        assert self._equation is not None
        owner = self._base(self._equation.symbol)
        # What is added at a further use of shared parameters belongs to the layer of the use.
        index = self._equation.layer if self._adds and owner.index is not None else owner.index
        self._count = self._names.free(self._phase, owner.family, self._count, index, owner.index)
        return self._part(owner, index, str(self._count), f"part{self._count}", axes)

    def intermediate(self, owner: Input, word: str, axes: tuple[Axis, ...]) -> Input:
        """A buffer for part of what defines a symbol, with a word for what it is."""
        return self._part(self._base(owner), owner.index, word, word, axes)

    def _part(self, owner: Input, index: int | None, name: str, word: str, axes: tuple[Axis, ...]) -> Input:
        # Another phase that defines the same family (another kind of curvature) has parts of its own.
        other = self._names.phase(self._phase, owner.family)
        family = f"{owner.family}~{name}{f'.{other}' if other else ''}{self.mark}"
        suffix = (ascii_lowercase[other] if other else "") + ("_one" if self.mark else "")
        self.code.setdefault(family, f"{self.code[owner.family]}_{word}{suffix}")
        self.parts[family] = owner.family
        role = Role.STATE if SAMPLE in axes else Role.DIRECTION
        symbol = Input(family, index, axes, role)
        self._note(symbol)
        return symbol

    def _base(self, symbol: Input) -> Input:
        """The array of a symbol: its own, or the one that it is a window of."""
        view = self.views.get(symbol.key)
        return symbol if view is None else view.base

    def _load(self, symbol: Input, labels: tuple[str, ...]) -> Load:
        view = self.views.get(symbol.key)
        base = self._base(symbol)
        self._note(base)
        if view is None:
            return Load(ref_of(base), labels)
        return Load(ref_of(base), labels, view.window, view.changes)

    def _changed(self, symbol: Input, change: Change) -> Input:
        """A symbol for an array in another shape, or read at other places."""
        view = self.views.get(symbol.key, View(symbol))
        sizes = change.of(tuple(axis.size for axis in symbol.axes))
        axes = tuple(SAMPLE if n is None else Axis(f"{k}", n) for k, n in enumerate(sizes))
        family = f"{symbol.family}({change})"
        found = Input(family, symbol.index, axes, symbol.role)
        self.views[found.key] = replace(view, changes=(*view.changes, change))
        return found

    def _identity(self, size: int) -> Input:
        """An identity matrix."""
        axis = Axis("identity", size)
        symbol = Input(f"identity{size}", None, (axis, axis.primed), Role.HYPERPARAMETER)
        self.code.setdefault(symbol.family, symbol.family)
        return symbol

    def _hint(self, symbol: Input, layer: int | None) -> str:
        symbol = self._base(symbol)
        name = self.code.get(symbol.family, symbol.family)
        if symbol.index is None or layer is None or symbol.index == layer:
            return name
        distance = symbol.index - layer
        if self._equation is not None and symbol is self._base(self._equation.symbol):
            return name  # which is added to
        if distance < 0 and symbol.role in (Role.PARAMETER, Role.DIRECTION):
            return name  # of an earlier layer that shares it, however far
        return f"{name}_{'m' if distance < 0 else 'p'}{abs(distance)}"

    def _held_by(self, expr: Expr) -> Input | None:
        for phase in self._visible:
            symbol = self._held[phase].get(expr.key)
            hidden = phase != self._phase and symbol is not None and self.again.hides(symbol, self.parts)
            if symbol is not None and symbol.axes == expr.axes and not hidden:
                return symbol
        return None

    def _buffer(self, expr: Expr) -> Input:
        """The expression in an array of its own."""
        if isinstance(expr, Input) and not self._classes.are_read(expr):
            return expr
        held = self._held_by(expr)
        if held is not None:
            return held
        symbol = self._temporary(expr.axes)
        if not self._direct(expr, symbol):
            if not isinstance(expr, _ENTRYWISE):
                raise TypeError(f"no statement for {type(expr).__name__}")
            assert self._equation is not None
            scope = Scope({}, self._equation.layer)
            target = self._load(symbol, scope.of(symbol.axes))
            value = self._scalar(expr, dict(zip(expr.axes, expr.axes, strict=True)), scope)
            self._emit_kernel(target, value, scope)
        self._hold(expr, symbol)
        return symbol

    def _buffer_of_groups(self, expr: Expr) -> tuple[Input, tuple[Axis, ...]]:
        """The expression in an array, and its axes in the array's order.

        It is one array for all that are equal up to the names and the order of groups: M_ij and M_ji. Groups
        are its first dimensions. So are products of matrices and their transposed ones.
        """
        if not isinstance(expr, Einsum):
            return self._buffer(expr), expr.axes
        groups = [axis for axis in expr.axes if axis.is_group]
        if not groups and is_fixed_matrix(expr, self.in_place):
            groups = list(expr.axes)
        if not groups:
            return self._buffer(expr), expr.axes
        first = sorted(expr.out, key=lambda axis: not axis.is_group)
        expr = Einsum(expr.operands, tuple(first))
        turned = dict(zip(groups, groups[::-1], strict=True))
        orders = (expr.axes, tuple(turned.get(axis, axis) for axis in expr.axes))
        keys = [key_of_groups(expr, axes) for axes in orders]
        for key, axes in zip(keys, orders, strict=True):
            if (self._phase, key) in self._over_groups:
                return self._over_groups[self._phase, key], axes
        self._over_groups[self._phase, keys[0]] = symbol = self._buffer(expr)
        return symbol, expr.axes

    def _emit_kernel(self, target: Load, value: sympy.Expr, scope: Scope) -> None:
        self._statements.append(Kernel(target.labels, (Assign(target, value),), scope.used(value)))

    # -- entrywise expressions, inlined

    @singledispatchmethod
    def _scalar(self, expr: Expr, binding: dict[Axis, Axis], scope: Scope) -> sympy.Expr:
        """The entry of ``expr`` at the labels, as a scalar expression; what is not entrywise is loaded."""
        return self._loaded(self._buffer(expr), binding, scope)

    def _loaded(self, symbol: Input, binding: dict[Axis, Axis], scope: Scope) -> sympy.Expr:
        labels = tuple(scope.label(binding.get(axis, axis)) for axis in symbol.axes)
        return scope.symbol(self._load(symbol, labels), self._hint(symbol, scope.layer))

    @_scalar.register
    def _(self, expr: Input, binding: dict[Axis, Axis], scope: Scope) -> sympy.Expr:
        if self._classes.are_indices(expr):
            vectors = self._classes.vectors(expr)
            places = dict(zip(vectors.axes, expr.axes, strict=True))
            binding = {own: binding.get(axis, axis) for own, axis in places.items()}
            return self._loaded(vectors, binding, scope)
        return self._loaded(expr, binding, scope)

    @_scalar.register
    def _(self, expr: Add, binding: dict[Axis, Axis], scope: Scope) -> sympy.Expr:
        held = self._held_by(expr)
        if held is not None:
            return self._loaded(held, binding, scope)
        in_order = ordered_terms(expr, scope.layer)
        terms = [number(factor) * self._scalar(term, binding, scope) for factor, term in in_order]
        return sympy.Add(*terms)

    @_scalar.register
    def _(self, expr: Map, binding: dict[Axis, Axis], scope: Scope) -> sympy.Expr:
        held = self._held_by(expr)
        if held is not None:
            return self._loaded(held, binding, scope)
        value = expr.function.value_form(expr.orders)
        table: dict[sympy.Expr, sympy.Expr] = {}
        if any(expr.orders):  # write F' through the value of F where that is in an array already
            plain = Map(expr.function, (0,) * len(expr.orders), expr.operands, expr.out)
            state = self._held_by(plain)
            known = sympy.Dummy(real=True)
            if state is not None:
                through = through_value(value, expr.function.value_form(plain.orders), known)
                if through is not None:
                    value, table[known] = through, self._loaded(state, binding, scope)
        # one simultaneous replacement: an array may be called like an argument of the function
        needed = value.free_symbols
        arguments: dict[sympy.Expr, sympy.Expr] = {}
        for symbol, (operand, labels) in zip(expr.function.argument_symbols, expr.operands, strict=True):
            if symbol in needed:
                inner = {
                    axis: binding.get(label, label) for axis, label in zip(operand.axes, labels, strict=True)
                }
                argument = self._scalar(operand, inner, scope)
                if expr.function == RECIPROCAL and argument.has(sympy.Piecewise):
                    # a branch may be zero, and SymPy would divide by it here
                    argument = self._loaded(self._buffer(operand), inner, scope)
                arguments[symbol] = argument
        return substituted(value, table | arguments)

    @_scalar.register
    def _(self, expr: Einsum, binding: dict[Axis, Axis], scope: Scope) -> sympy.Expr:
        held = self._held_by(expr)
        if held is not None:
            return self._loaded(held, binding, scope)
        if (parts := self._classes.distributed(self._as_one_sum(expr))) is not None:
            return self._scalar(parts, binding, scope)
        if self._is_constant(expr):
            constant = self._constant(expr)
            table = {own: binding.get(axis, axis) for own, axis in zip(constant.axes, expr.out, strict=True)}
            return self._loaded(constant, table, scope)
        if (convolution := as_convolution(expr, scope.layer)) is not None:
            scalars, windows, _ = convolution
            product = [self._scalar(scalar, {}, scope) for scalar in scalars]
            return sympy.Mul(*product, self._loaded(self._buffer(windows), binding, scope))
        if (grouped := as_grouped(expr, scope.layer)) is not None:
            joined = self._changed(self._buffer(grouped.product(self._buffer, self._changed)), grouped.joined)
            places = {own: binding.get(axis, axis) for own, axis in zip(joined.axes, expr.out, strict=True)}
            product = [self._scalar(scalar, {}, scope) for scalar in grouped.scalars]
            return sympy.Mul(*product, self._loaded(joined, places, scope))
        expr = self._without_groups(self._without_affine(self._classes.read_at(self._as_one_sum(expr))))
        if contracted(expr):
            factors, rest = split_scalars(expr, scope.layer)
            product = [self._scalar(factor, {}, scope) for factor in factors]
            rest = ordered(rest, scope.layer)
            if isinstance(rest, Einsum) and contracted(rest):
                symbol, axes = self._buffer_of_groups(narrowed(rest))
                table = dict(zip(symbol.axes, (binding.get(axis, axis) for axis in axes), strict=True))
                return sympy.Mul(*product, self._loaded(symbol, table, scope))
            return sympy.Mul(*product, self._scalar(rest, binding, scope))
        product = []
        for operand, labels in ordered_operands(expr, scope.layer):
            own = {axis: binding.get(label, label) for axis, label in zip(operand.axes, labels, strict=True)}
            product.append(self._scalar(operand, own, scope))
        return sympy.Mul(*product)

    @_scalar.register
    def _(self, expr: Delta, binding: dict[Axis, Axis], scope: Scope) -> sympy.Expr:
        identity = self._identity(expr.left.entries)
        labels = (binding.get(expr.left, expr.left), binding.get(expr.right, expr.right))
        return self._loaded(identity, dict(zip(identity.axes, labels, strict=True)), scope)

    @_scalar.register
    def _(self, expr: Affine, binding: dict[Axis, Axis], scope: Scope) -> sympy.Expr:
        return self._scalar(Einsum(((expr, expr.axes),), expr.axes), binding, scope)

    def _is_constant(self, expr: Einsum) -> bool:
        """Whether it is a product of relations alone, and not the one that is being computed."""
        if self._in_constant or not any(isinstance(operand, Affine) for operand, _ in expr.operands):
            return False
        return not inputs_of(expr) and SAMPLE not in expr.out

    def _constant(self, expr: Einsum) -> Input:
        """A product of relations in an array of its own, one for all that have the same."""
        axes = tuple(Axis(f"constant.{n}", axis.size) for n, axis in enumerate(expr.out))
        table = dict(zip(expr.out, axes, strict=True))
        operands = [(e, tuple(table.get(label, label) for label in labels)) for e, labels in expr.operands]
        value = einsum(operands, axes)
        held = self._held_by(value)
        if held is None:
            self._made_constants += 1
            name = f"constant{self._made_constants}"
            held = Input(f"{name}{self.mark}", None, axes, Role.DIRECTION)
            self.code.setdefault(held.family, name + ("_one" if self.mark else ""))
            self._note(held)
            self._in_constant = True
            self.constants += self._statements_for(held, value)
            self._in_constant = False
            self._hold(value, held)
        return held

    @abstractmethod
    def _statements_for(self, target: Input, value: Expr) -> list[Statement]:
        """Statements, apart from the others, that give an array the value of an expression."""

    @abstractmethod
    def _direct(self, expr: Expr, target: Input) -> bool:
        """Write the expression straight into the target, if one statement other than a kernel does it."""

    def _fresh(self) -> Scope:
        assert self._equation is not None
        return Scope({}, self._equation.layer)

    def _entries(self, operands: Sequence[Operand], scope: Scope) -> sympy.Expr:
        """The product of one entry of each operand."""
        entries = (self._scalar(e, dict(zip(e.axes, labels, strict=True)), scope) for e, labels in operands)
        return sympy.Mul(*entries)

    def _as_one_sum(self, expr: Einsum) -> Einsum:
        return as_one_sum(expr, self._held_by)

    def _without_affine(self, expr: Einsum) -> Einsum:
        """Affine relations of indices taken into what the other factors are read from."""
        return without_affine(expr, Arrays(self._buffer, self._changed, self._identity))

    def _without_groups(self, expr: Einsum) -> Einsum:
        """The factors that all groups share in arrays of their own."""
        shared, others = shared_by_groups(expr, self._fresh().layer)
        if not shared:
            return expr
        return Einsum((*others, *((self._buffer(e), labels) for e, labels in shared)), expr.out)


def number(value: Fraction) -> sympy.Rational:
    """A rational number as SymPy has it."""
    return sympy.Rational(value.numerator, value.denominator)
