"""Equations to statements: contractions to matrix products, everything entrywise to fused kernels.

One :class:`Lowering` handles one form (batched or one sample) of all systems of a module. Within an
equation, entrywise parts are inlined into one scalar expression; contractions, log-sum-exp, maxima
and solutions of linear systems go through buffers. The order of a product of several tensors is
chosen by opt_einsum on the sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import singledispatchmethod

import sympy

from sifrc.derive.system import Equation
from sifrc.ir import (
    SAMPLE,
    Add,
    Axis,
    CubicNewton,
    Delta,
    Einsum,
    Expr,
    Input,
    LinearSolve,
    LogSoftmax,
    LogSumExp,
    Map,
    Operand,
    Reduce,
    Role,
    Solve,
    Spectral,
    Sylvester,
)
from sifrc.ir.build import apply, einsum, rename, total
from sifrc.ir.linear import report_symbols
from sifrc.ir.relative import ordered_operands, ordered_terms
from sifrc.ir.traverse import inputs_of
from sifrc.lower.groups import shared_by_groups
from sifrc.lower.products import contracted, first_kept, is_matrix_product, ordered, split_scalars
from sifrc.lower.program import (
    SAMPLE_LABEL,
    Assign,
    Contract,
    Kernel,
    Load,
    LogSoftmaxOver,
    LogSumExpOver,
    MatrixFunction,
    MaximumOver,
    SolveCubic,
    SolveKronecker,
    SolveSylvester,
    SolveSystem,
    Statement,
    Sum,
)
from sifrc.lower.solving import Arrays, conjugate_gradients
from sifrc.lower.structure import kronecker
from sifrc.lower.windows import View, ref_of
from sifrc.scalar import RECIPROCAL
from sifrc.scalar.primitives import substituted
from sifrc.scalar.through import through_value

__all__ = ["Block", "Lowering"]

_LETTERS = "ijlmnoqrsuvw"


@dataclass(frozen=True)
class Block:
    """The statements of the equations of one layer."""

    layer: int | None
    statements: tuple[Statement, ...]


@dataclass
class _Scope:
    """One kernel under construction: labels of axes, and the symbols bound to entries."""

    labels: dict[Axis, str]
    layer: int | None
    loads: dict[str, Load] = field(default_factory=dict)

    def label(self, axis: Axis) -> str:
        if axis not in self.labels:
            used = set(self.labels.values())
            free = next(letter for letter in _LETTERS if letter not in used)
            self.labels[axis] = SAMPLE_LABEL if axis.size is None else free
        return self.labels[axis]

    def of(self, axes: Sequence[Axis]) -> tuple[str, ...]:
        return tuple(self.label(axis) for axis in axes)

    def symbol(self, load: Load, hint: str) -> sympy.Symbol:
        for name, known in self.loads.items():
            if known == load:
                return sympy.Symbol(name, real=True)
        name, number = hint, 1
        while name in self.loads:
            number += 1
            name = f"{hint}_{number}"
        self.loads[name] = load
        return sympy.Symbol(name, real=True)

    def used(self, *values: sympy.Expr) -> tuple[tuple[str, Load], ...]:
        free = {symbol.name for value in values for symbol in value.free_symbols}
        return tuple((name, self.loads[name]) for name in sorted(self.loads) if name in free)


class Lowering:
    """Lowers equations of one form, remembering which symbol holds which expression.

    Args:
        code: canonical family name -> ASCII identifier, extended with temporaries as they are made.
        mark: appended to the names of temporaries, so that the two forms do not share them.
        in_place: families whose arrays are overwritten; values made from them go stale then.
        views: key of a symbol -> the window of an array that it stands for.
    """

    def __init__(
        self, code: dict[str, str], mark: str, in_place: frozenset[str], views: Mapping[str, View]
    ) -> None:
        self.code = code
        self.views = views
        self.in_place = in_place
        self.mark = mark
        self.shapes: dict[str, dict[int | None, tuple[int | None, ...]]] = {}
        self.temporaries: set[str] = set()
        self.extents: dict[tuple[str, int | None], tuple[Axis, ...]] = {}
        self._held: dict[str, dict[str, Input]] = {}
        self._made_from: dict[str, list[str]] = {}
        self._phases: dict[str, list[str]] = {}
        self._phase = ""
        self._visible: tuple[str, ...] = ()
        self._statements: list[Statement] = []
        self._equation: Equation | None = None
        self._count = 0

    def enter(self, phase: str, after: tuple[str, ...]) -> None:
        """Start a phase: values held by it and by those that always run before it may be used."""
        self._phase = phase
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

    def lower(self, equation: Equation) -> list[Statement]:
        """Statements that give ``equation.symbol`` its value."""
        before = None if self._equation is None else self._base(self._equation.symbol)
        self._statements, self._equation = [], equation
        symbol = equation.symbol
        # The windows of one array share the names of their temporaries.
        self._count = self._count if before is self._base(symbol) else 0
        if not self._direct(equation.value, symbol):
            scope = _Scope({}, equation.layer)
            target = self._load(symbol, scope.of(symbol.axes))
            value = self._scalar(equation.value, dict(zip(symbol.axes, symbol.axes, strict=True)), scope)
            self._emit_kernel(target, value, scope)
        if symbol.family in self.in_place:
            self._forget(symbol)
        elif symbol.key not in self.views:  # a window may be added to later
            self._hold(equation.value, symbol)
        return self._statements

    # -- buffers

    def _note(self, symbol: Input) -> None:
        shape = tuple(axis.size for axis in symbol.axes)
        self.shapes.setdefault(symbol.family, {})[symbol.index] = shape
        self.extents[symbol.family, symbol.index] = symbol.axes

    def _temporary(self, axes: tuple[Axis, ...]) -> Input:
        """A buffer for part of the current equation, named after what the equation defines."""
        assert self._equation is not None
        self._count += 1
        owner = self._base(self._equation.symbol)
        # Another phase that defines the same family (another kind of curvature) has parts of its own.
        phases = self._phases.setdefault(owner.family, [])
        if self._phase not in phases:
            phases.append(self._phase)
        other = phases.index(self._phase)
        family = f"{owner.family}~{self._count}{f'.{other}' if other else ''}{self.mark}"
        suffix = (f"_{other}" if other else "") + ("_one" if self.mark else "")
        self.code.setdefault(family, f"{self.code[owner.family]}_part{self._count}{suffix}")
        self.temporaries.add(family)
        role = Role.STATE if SAMPLE in axes else Role.DIRECTION
        symbol = Input(family, owner.index, axes, role)
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
        return Load(ref_of(base), labels, () if view is None else view.window)

    def _hint(self, symbol: Input, layer: int | None) -> str:
        symbol = self._base(symbol)
        name = self.code.get(symbol.family, symbol.family)
        if symbol.index is None or layer is None or symbol.index == layer:
            return name
        distance = symbol.index - layer
        return f"{name}_{'m' if distance < 0 else 'p'}{abs(distance)}"

    def _held_by(self, expr: Expr) -> Input | None:
        for phase in self._visible:
            symbol = self._held[phase].get(expr.key)
            if symbol is not None and symbol.axes == expr.axes:
                return symbol
        return None

    def _buffer(self, expr: Expr) -> Input:
        """The expression in an array of its own."""
        if isinstance(expr, Input):
            return expr
        held = self._held_by(expr)
        if held is not None:
            return held
        symbol = self._temporary(expr.axes)
        if not self._direct(expr, symbol):
            assert self._equation is not None
            scope = _Scope({}, self._equation.layer)
            target = self._load(symbol, scope.of(symbol.axes))
            value = self._scalar(expr, dict(zip(expr.axes, expr.axes, strict=True)), scope)
            self._emit_kernel(target, value, scope)
        self._hold(expr, symbol)
        return symbol

    def _emit_kernel(self, target: Load, value: sympy.Expr, scope: _Scope) -> None:
        self._statements.append(Kernel(target.labels, (Assign(target, value),), scope.used(value)))

    # -- entrywise expressions, inlined

    @singledispatchmethod
    def _scalar(self, expr: Expr, binding: dict[Axis, Axis], scope: _Scope) -> sympy.Expr:
        """The entry of ``expr`` at the labels, as a scalar expression; what is not entrywise is loaded."""
        return self._loaded(self._buffer(expr), binding, scope)

    def _loaded(self, symbol: Input, binding: dict[Axis, Axis], scope: _Scope) -> sympy.Expr:
        labels = tuple(scope.label(binding.get(axis, axis)) for axis in symbol.axes)
        return scope.symbol(self._load(symbol, labels), self._hint(symbol, scope.layer))

    @_scalar.register
    def _(self, expr: Input, binding: dict[Axis, Axis], scope: _Scope) -> sympy.Expr:
        return self._loaded(expr, binding, scope)

    @_scalar.register
    def _(self, expr: Add, binding: dict[Axis, Axis], scope: _Scope) -> sympy.Expr:
        held = self._held_by(expr)
        if held is not None:
            return self._loaded(held, binding, scope)
        in_order = ordered_terms(expr, scope.layer)
        terms = [_number(factor) * self._scalar(term, binding, scope) for factor, term in in_order]
        return sympy.Add(*terms)

    @_scalar.register
    def _(self, expr: Map, binding: dict[Axis, Axis], scope: _Scope) -> sympy.Expr:
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
    def _(self, expr: Einsum, binding: dict[Axis, Axis], scope: _Scope) -> sympy.Expr:
        held = self._held_by(expr)
        if held is not None:
            return self._loaded(held, binding, scope)
        expr = self._without_groups(expr)
        if contracted(expr):
            factors, rest = split_scalars(expr, scope.layer)
            product = [self._scalar(factor, {}, scope) for factor in factors]
            rest = ordered(rest, scope.layer)
            if isinstance(rest, Einsum) and contracted(rest):
                return sympy.Mul(*product, self._loaded(self._buffer(rest), binding, scope))
            return sympy.Mul(*product, self._scalar(rest, binding, scope))
        product = []
        for operand, labels in ordered_operands(expr, scope.layer):
            inner = {
                axis: binding.get(label, label) for axis, label in zip(operand.axes, labels, strict=True)
            }
            product.append(self._scalar(operand, inner, scope))
        return sympy.Mul(*product)

    @_scalar.register
    def _(self, expr: Delta, binding: dict[Axis, Axis], scope: _Scope) -> sympy.Expr:
        identity = Input(f"identity{expr.left.size}", None, expr.axes, Role.HYPERPARAMETER)
        self.code.setdefault(identity.family, identity.family)
        return self._loaded(identity, binding, scope)

    # -- statements that write a whole array

    def _direct(self, expr: Expr, target: Input) -> bool:
        """Write the expression straight into the target, if one statement other than a kernel does it."""
        if self._held_by(expr) is not None or expr.axes != target.axes:
            return False
        return self._write(expr, target)

    @singledispatchmethod
    def _write(self, expr: Expr, target: Input) -> bool:
        return False

    @_write.register
    def _(self, expr: Add, target: Input) -> bool:
        if len(expr.terms) != 1:
            return False
        factor, product = expr.terms[0]
        return isinstance(product, Einsum) and self._product(product, target, factor)

    @_write.register
    def _(self, expr: Einsum, target: Input) -> bool:
        return self._product(expr, target, Fraction(1))

    @_write.register
    def _(self, expr: LogSumExp, target: Input) -> bool:
        self._statements.append(LogSumExpOver(*self._over(expr, target)))
        return True

    @_write.register
    def _(self, expr: LogSoftmax, target: Input) -> bool:
        self._statements.append(LogSoftmaxOver(*self._over(expr, target)))
        return True

    @_write.register
    def _(self, expr: Reduce, target: Input) -> bool:
        self._statements.append(MaximumOver(*self._over(expr, target), expr.kind == "magnitude"))
        return True

    def _over(self, expr: LogSumExp | LogSoftmax | Reduce, target: Input) -> tuple[Load, Load, str]:
        """Target and operand of what runs over one axis, and its label."""
        operand = self._buffer(expr.operand)
        scope = self._fresh()
        load = self._load(operand, scope.of(operand.axes))
        return self._load(target, scope.of(expr.axes)), load, scope.label(expr.over)

    @_write.register
    def _(self, expr: Solve, target: Input) -> bool:
        matrix, rhs = self._buffer(expr.matrix), self._buffer(expr.rhs)
        scope = self._fresh()
        left = self._load(matrix, scope.of(expr.matrix.axes))
        right = self._load(rhs, scope.of(expr.rhs.axes))
        solution = self._load(target, scope.of(expr.axes))
        self._statements.append(
            SolveSystem(solution, left, right, checked=expr.checked, definite=expr.definite)
        )
        return True

    @_write.register
    def _(self, expr: Spectral, target: Input) -> bool:
        matrix = self._buffer(expr.matrix)
        scope = self._fresh()
        load = self._load(matrix, scope.of(matrix.axes))
        self._statements.append(MatrixFunction(self._load(target, scope.of(expr.axes)), load, expr.kind))
        return True

    @_write.register
    def _(self, expr: LinearSolve, target: Input) -> bool:
        if expr.method == "eigen":
            return self._eigen(expr, target)
        rhs = tuple(self._buffer(part) for part in expr.rhs)
        solutions = tuple(
            target if component == expr.component else self._temporary(probe.axes)
            for component, probe in enumerate(expr.probes)
        )
        assert self._equation is not None
        assert expr.limit is not None and expr.tolerance is not None
        report = report_symbols(self._equation.symbol)
        for symbol, name in zip(report, ("iterations", "remaining"), strict=True):
            self.code.setdefault(symbol.family, f"{self.code[self._equation.symbol.family]}_{name}")
        lent = Arrays(
            self._temporary,
            lambda symbol: self._load(symbol, self._fresh().of(symbol.axes)),
            self._statements_for,
            (self._load(report[0], ()), self._load(report[1], ())),
        )
        limits = self._load(expr.limit, ()), self._load(expr.tolerance, ())
        self._statements.append(conjugate_gradients(expr, solutions, rhs, limits, lent))
        for component, solution in enumerate(solutions):
            if component != expr.component:
                self._hold(replace(expr, component=component), solution)
        return True

    def _statements_for(self, target: Input, value: Expr) -> list[Statement]:
        """Statements, apart from the others, that give an array the value of an expression."""
        before, self._statements = self._statements, []
        if not self._direct(value, target):
            scope = self._fresh()
            load = self._load(target, scope.of(target.axes))
            entry = self._scalar(value, dict(zip(value.axes, target.axes, strict=True)), scope)
            self._emit_kernel(load, entry, scope)
        found, self._statements = self._statements, before
        return found

    def _eigen(self, expr: LinearSolve, target: Input) -> bool:
        """By eigenvalues: of one matrix, or of both factors of a Kronecker product."""
        operator = kronecker(expr)
        if operator is None:
            raise TypeError("no solution by eigenvalues for an operator that is no product of matrices")
        if operator.left is None:
            inverse = apply(RECIPROCAL, operator.shift)
            value = einsum([(inverse, ()), (expr.rhs[0], expr.axes)], expr.axes)
            self._statements += self._statements_for(target, value)
            return True
        if operator.right is None:
            rows = operator.left.axes
            identity = einsum([(operator.shift, ()), (Delta(*rows), rows)], rows)
            system = Solve(total([operator.left, identity], rows), expr.rhs[0], checked=False)
            return self._write(rename(system, target.axes), target) or self._write(system, target)
        parts = [self._buffer(e) for e in (operator.left, operator.right, expr.rhs[0], operator.shift)]
        scope = self._fresh()
        loads = [self._load(s, scope.of(s.axes)) for s in parts]
        self._statements.append(SolveKronecker(self._load(target, scope.of(expr.axes)), *loads))
        return True

    @_write.register
    def _(self, expr: Sylvester, target: Input) -> bool:
        parts = [self._buffer(e) for e in (expr.left, expr.right, expr.rhs)]
        scope = self._fresh()
        loads = [self._load(s, scope.of(s.axes)) for s in parts]
        self._statements.append(SolveSylvester(self._load(target, scope.of(expr.axes)), *loads))
        return True

    @_write.register
    def _(self, expr: CubicNewton, target: Input) -> bool:
        parts = [self._buffer(e) for e in (expr.matrix, expr.rhs, expr.third, expr.strength)]
        scope = self._fresh()
        matrix, rhs, third, strength = (self._load(s, scope.of(s.axes)) for s in parts)
        solution = Load(ref_of(target), scope.of(expr.axes))
        self._statements.append(SolveCubic(solution, matrix, rhs, third, strength, expr.unbounded))
        return True

    def _fresh(self) -> _Scope:
        assert self._equation is not None
        return _Scope({}, self._equation.layer)

    def _product(self, expr: Einsum, target: Input, factor: Fraction) -> bool:
        """A contraction: pairwise, matrix products where the labels allow, else a fused sum."""
        if not contracted(expr):
            return False
        scope = self._fresh()
        expr = self._without_groups(expr)
        factors, rest = split_scalars(expr, scope.layer)
        rest = ordered(rest, scope.layer)
        if not isinstance(rest, Einsum) or not contracted(rest):
            return False
        scope.of(target.axes)
        scale = sympy.Mul(_number(factor), *(self._scalar(f, {}, scope) for f in factors))
        if self._matrix_product(rest, target, scale, scope):
            return True
        operands = ordered_operands(rest, scope.layer)
        over = tuple(sorted(scope.of(contracted(rest))))
        value = scale * self._entries(operands, scope)
        if not set(over) <= {label for _, each in scope.used(value) for label in each.labels}:
            # Factors cancel, as in Σ_i x_i/x_i: the number of terms is seen by arrays alone.
            value = scale * self._entries([(self._buffer(e), labels) for e, labels in operands], scope)
        load = self._load(target, scope.of(target.axes))
        self._statements.append(Sum(load, over, value, scope.used(value)))
        return True

    def _entries(self, operands: Sequence[Operand], scope: _Scope) -> sympy.Expr:
        """The product of one entry of each operand."""
        return sympy.Mul(
            *(self._scalar(e, dict(zip(e.axes, labels, strict=True)), scope) for e, labels in operands)
        )

    def _without_groups(self, expr: Einsum) -> Einsum:
        """The factors that all groups share in arrays of their own."""
        shared, others = shared_by_groups(expr, self._fresh().layer)
        if not shared:
            return expr
        return Einsum((*others, *((self._buffer(e), labels) for e, labels in shared)), expr.out)

    def _matrix_product(self, expr: Einsum, target: Input, scale: sympy.Expr, scope: _Scope) -> bool:
        """gemm, gemv, means of outer products, and the same for every sample."""
        if not is_matrix_product(expr):
            return False
        loads = []
        # Two factors of every sample begin alike: their further labels tell them apart, not their digests.
        for operand, labels in sorted(
            ordered_operands(expr, scope.layer), key=lambda op: first_kept(op[1], expr.out)
        ):
            symbol = self._buffer(operand)
            loads.append(self._load(symbol, scope.of(labels)))
        statement = Contract(
            self._load(target, scope.of(expr.out)), loads[0], loads[1], scale, scope.used(scale)
        )
        self._statements.append(statement)
        return True


def _number(value: Fraction) -> sympy.Rational:
    return sympy.Rational(value.numerator, value.denominator)
