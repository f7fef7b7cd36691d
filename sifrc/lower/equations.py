"""Equations to statements: contractions to matrix products, everything entrywise to fused kernels.

Within an equation, entrywise parts are inlined into one scalar expression; contractions, log-sum-exp, maxima
and solutions of linear systems go through buffers. The order of a product of several tensors is
chosen by opt_einsum on the sizes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from functools import singledispatchmethod

import sympy

from sifrc.derive.recurrence import name_of
from sifrc.derive.system import Equation
from sifrc.ir import (
    Add,
    ArgMax,
    Axis,
    CubicNewton,
    Delta,
    Einsum,
    Expr,
    Input,
    LinearSolve,
    LogSoftmax,
    LogSumExp,
    Reduce,
    Role,
    Solve,
    Spectral,
    Sylvester,
)
from sifrc.ir.build import apply, einsum, rename, total
from sifrc.ir.linear import report_symbols
from sifrc.ir.nullspace import without_mean
from sifrc.ir.relative import ordered_operands
from sifrc.lower import statements as st
from sifrc.lower.arrays import AtStep, Load
from sifrc.lower.classes import Scattered, as_scattered, indices_of
from sifrc.lower.convolutions import as_convolution, reading
from sifrc.lower.entries import Entries, number
from sifrc.lower.grouped import as_grouped
from sifrc.lower.groups import in_one_order
from sifrc.lower.images import ImageMaximum
from sifrc.lower.maxima import maximum_of
from sifrc.lower.products import contracted, first_kept, is_matrix_product, ordered, split_scalars
from sifrc.lower.recurrence import Split
from sifrc.lower.scope import Scope
from sifrc.lower.solving import Arrays, conjugate_gradients
from sifrc.lower.structure import kronecker
from sifrc.lower.uses import accumulates
from sifrc.lower.windows import View
from sifrc.scalar import RECIPROCAL

__all__ = ["Lowering"]


class Lowering(Entries):
    """Lowers equations of one form, remembering which symbol holds which expression."""

    def lower(self, equation: Equation) -> list[st.Statement]:
        """Statements that give ``equation.symbol`` its value."""
        before = None if self._equation is None else self._base(self._equation.symbol)
        self._statements, self._equation = [], equation
        symbol = equation.symbol
        adds = self._adds = accumulates(equation) and symbol.key not in self.views
        # The windows of one array share the names of their temporaries.
        self._count = self._count if before is self._base(symbol) and not adds else 0
        if self._classes.are_indices(symbol):
            self._statements.append(self._position(maximum_of(equation.value), symbol))
            return self._statements
        if not self._direct(equation.value, symbol):
            scope = Scope({}, equation.layer)
            target = self._load(symbol, scope.of(symbol.axes))
            value = self._scalar(equation.value, dict(zip(symbol.axes, symbol.axes, strict=True)), scope)
            self._emit_kernel(target, value, scope)
        if symbol.family in self.in_place:
            self._forget(symbol)
        elif adds:
            return self._statements
        elif symbol.key not in self.views:  # a window may be added to later
            self._hold(equation.value, symbol)
        return self._statements

    def steps(self, parts: Split, defined: Iterable[Equation]) -> st.Steps:
        """The loop over the steps of a recursion.

        Args:
            parts: of the recursion.
            defined: what its symbols are, as others may have it in what they read.
        """
        for symbol, (array, slot) in parts.slices.items():
            self.views[symbol.key] = View(array, (None,) * slot + (AtStep(),))
        known = dict(self._held[self._phase])
        body = [statement for equation in parts.steps for statement in self.lower(equation)]
        # What is held of one step is another thing in the next one.
        self._held[self._phase] = known
        over, stored = "", []
        for now, symbol in parts.stored.items():
            scope = self._fresh()
            scope.of(now.axes)
            slot = parts.recursion.slots[name_of(symbol)]
            over = scope.label(symbol.axes[slot])
            axes = (*now.axes[:slot], symbol.axes[slot], *now.axes[slot:])
            stored.append((self._load(now, scope.of(now.axes)), self._load(symbol, scope.of(axes))))
        carried = [
            (self._load(now, self._fresh().of(now.axes)), self._load(before, self._fresh().of(before.axes)))
            for now, before in parts.carried
        ]
        for equation in defined:
            self._hold(equation.value, equation.symbol)
        recursion = parts.recursion
        return st.Steps(
            recursion.steps, recursion.backwards, tuple(body), tuple(stored), over, tuple(carried)
        )

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
        self._statements.append(st.LogSumExpOver(*self._over(expr, target)))
        return True

    @_write.register
    def _(self, expr: LogSoftmax, target: Input) -> bool:
        self._statements.append(st.LogSoftmaxOver(*self._over(expr, target)))
        return True

    @_write.register
    def _(self, expr: Reduce, target: Input) -> bool:
        self._statements.append(st.MaximumOver(*self._over(expr, target), expr.kind == "magnitude"))
        return True

    @_write.register
    def _(self, expr: ArgMax, target: Input) -> bool:
        self._statements.append(st.ArgMaxOver(*self._over(expr, target)))
        return True

    def _over(self, expr: LogSumExp | LogSoftmax | Reduce | ArgMax, target: Input) -> tuple[Load, Load, str]:
        """Target and operand of what runs over one axis, and its label."""
        operand = self._buffer(expr.operand)
        scope = self._fresh()
        load = self._load(operand, scope.of(operand.axes))
        return self._load(target, scope.of(expr.axes)), load, scope.label(expr.over)

    def _position(self, maximum: ImageMaximum, symbol: Input) -> st.LargestPosition:
        """Where a maximum is, as a position in the image."""
        image, labels = maximum.image
        buffer, scope = self._buffer(image), self._fresh()
        target = self._load(indices_of(symbol), scope.of(maximum.node.axes))
        load = self._load(buffer, scope.of(labels))
        axes = tuple(reading(relation, scope.of(own)) for relation, own in maximum.relations)
        return st.LargestPosition(target, load, axes)

    @_write.register
    def _(self, expr: Solve, target: Input) -> bool:
        found = self._temporary(expr.axes) if expr.centred else target
        solution, matrix, rhs = self._arrays(found, expr, expr.matrix, expr.rhs)
        self._statements.append(
            st.SolveSystem(solution, matrix, rhs, checked=expr.checked, definite=expr.definite)
        )
        if found is not target:
            column = found.axes[len(expr.matrix.axes) - 2]
            rest = tuple(axis for axis in found.axes if axis != column)
            sums = self._temporary(rest)
            self._statements += self._statements_for(sums, einsum([(found, found.axes)], rest))
            self._statements += self._statements_for(target, without_mean(found, sums, column))
        return True

    def _arrays(self, target: Input, expr: Expr, *operands: Expr) -> tuple[Load, ...]:
        """Target and operands of what takes whole arrays."""
        parts = [self._buffer(operand) for operand in operands]
        scope = self._fresh()
        loads = [self._load(symbol, scope.of(symbol.axes)) for symbol in parts]
        return self._load(target, scope.of(expr.axes)), *loads

    @_write.register
    def _(self, expr: Spectral, target: Input) -> bool:
        result, matrix = self._arrays(target, expr, expr.matrix)
        self._statements.append(st.MatrixFunction(result, matrix, expr.kind))
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

    def _statements_for(self, target: Input, value: Expr) -> list[st.Statement]:
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
        loads = self._arrays(target, expr, operator.left, operator.right, expr.rhs[0], operator.shift)
        self._statements.append(st.SolveKronecker(*loads))
        return True

    @_write.register
    def _(self, expr: Sylvester, target: Input) -> bool:
        self._statements.append(
            st.SolveSylvester(*self._arrays(target, expr, expr.left, expr.right, expr.rhs))
        )
        return True

    @_write.register
    def _(self, expr: CubicNewton, target: Input) -> bool:
        operands = (expr.matrix, expr.rhs, expr.third, expr.strength)
        solution, matrix, rhs, third, strength = self._arrays(target, expr, *operands)
        self._statements.append(st.SolveCubic(solution, matrix, rhs, third, strength, expr.unbounded))
        return True

    def _product(self, expr: Einsum, target: Input, factor: Fraction) -> bool:
        """A contraction: pairwise, matrix products where the labels allow, else a fused sum."""
        if not contracted(expr) or self._classes.distributed(self._as_one_sum(expr)) is not None:
            return False
        scope = self._fresh()
        if self._convolution(expr, target, factor, scope):
            return True
        if as_grouped(expr, scope.layer) is not None:
            return False
        expr = self._classes.read_at(self._classes.summed_first(self._as_one_sum(expr)))
        if (scattered := as_scattered(expr, self._classes)) is not None:
            self._statements.append(self._put(scattered, target, expr.out, factor, scope))
            return True
        expr = self._without_groups(self._without_affine(expr))
        factors, rest = split_scalars(expr, scope.layer)
        rest = ordered(rest, scope.layer)
        if not isinstance(rest, Einsum) or not contracted(rest):
            return False
        scope.of(target.axes)
        scale = sympy.Mul(number(factor), *(self._scalar(f, {}, scope) for f in factors))
        held = self._held_by(rest)
        if held is not None:  # as part of another equation
            value = scale * self._loaded(held, dict(zip(rest.axes, rest.axes, strict=True)), scope)
            self._emit_kernel(self._load(target, scope.of(target.axes)), value, scope)
            return True
        if self._matrix_product(rest, target, scale, scope):
            return True
        operands = ordered_operands(rest, scope.layer)
        # Letters in the order of the factors, which is the same for layers that are alike.
        scope.of([label for _, labels in operands for label in labels])
        over = tuple(sorted(scope.of(contracted(rest))))
        value = scale * self._entries(operands, scope)
        if not set(over) <= {label for _, each in scope.used(value) for label in each.labels}:
            # Factors cancel, as in Σ_i x_i/x_i: the number of terms is seen by arrays alone.
            value = scale * self._entries([(self._buffer(e), labels) for e, labels in operands], scope)
        load = self._load(target, scope.of(target.axes))
        self._statements.append(st.Sum(load, over, value, scope.used(value)))
        return True

    def _put(
        self, found: Scattered, target: Input, out: tuple[Axis, ...], factor: Fraction, scope: Scope
    ) -> st.Put:
        """A product that is added at classes."""
        symbol, labels = found.vector
        assert isinstance(symbol, Input)
        operand, indices = self._buffer(found.value), indices_of(symbol)
        load = self._load(target, scope.of(out))
        values = self._load(operand, scope.of(found.labels))
        classes = self._load(indices, scope.of(labels[:-1]))
        scale = sympy.Mul(number(factor), *(self._scalar(f, {}, scope) for f in found.scalars))
        partial = symbol.role is Role.COUNTED
        at, used = labels[-1], scope.used(scale)
        return st.Put(load, values, classes, scope.label(at), at.entries, scale, used, partial)

    def _convolution(self, expr: Einsum, target: Input, factor: Fraction, scope: Scope) -> bool:
        """A product with windows, where that is what it is."""
        found = as_convolution(expr, scope.layer)
        if found is None:
            return False
        factors, _, roles = found
        loads = {roles.written: self._load(target, scope.of(target.axes))}
        for role in ("image", "output", "kernel"):
            if role != roles.written:
                operand, labels = roles.operands[role]
                loads[role] = self._load(self._buffer(operand), scope.of(labels))
        readings = []
        for relation, labels in roles.windows:
            readings.append(reading(relation, scope.of(labels)))
        # Axes in the order of the image, whatever their relations are called.
        readings.sort(key=lambda reading: loads["image"].labels.index(reading.labels[0]))
        scale = sympy.Mul(number(factor), *(self._scalar(f, {}, scope) for f in factors))
        used = scope.used(scale)
        self._statements.append(
            st.Convolve(**loads, written=roles.written, axes=tuple(readings), scale=scale, loads=used)
        )
        return True

    def _matrix_product(self, expr: Einsum, target: Input, scale: sympy.Expr, scope: Scope) -> bool:
        """gemm, gemv, means of outer products, and the same for every sample."""
        if not is_matrix_product(expr):
            return False
        loads = []
        # Two factors of every sample begin alike: their further labels tell them apart, not their digests.
        for operand, labels in sorted(
            ordered_operands(in_one_order(expr), scope.layer), key=lambda op: first_kept(op[1], expr.out)
        ):
            symbol, axes = self._buffer_of_groups(operand)
            table = dict(zip(operand.axes, labels, strict=True))
            loads.append(self._load(symbol, scope.of([table[axis] for axis in axes])))
        statement = st.Contract(
            self._load(target, scope.of(expr.out)), loads[0], loads[1], scale, scope.used(scale)
        )
        self._statements.append(statement)
        return True
