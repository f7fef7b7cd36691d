"""Statements of the program as Numba code: one rule for each type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatchmethod

from sympy import Expr, Mul, S, Symbol

from sifrc.backends import layout
from sifrc.backends.numba_cpu.access import Block, subscript_text
from sifrc.backends.numba_cpu.nests import Names, Nest
from sifrc.errors import BackendError
from sifrc.lower.arrays import SAMPLE_LABEL, Load, Ref, Storage
from sifrc.lower.statements import (
    Assign,
    ConjugateGradients,
    Contract,
    Fresh,
    Guard,
    Kernel,
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
    Unknown,
)
from sifrc.scalar import print_code, share

__all__ = ["Writer"]

_SPECTRAL = {"positive": "_positive_part", "absolute": "_absolute_value", "definite": "_definite"}


_JOINS = {"_rows": ("", "."), "_columns": (".", ""), "_entries": ("", "")}
"""Helper that joins two dimensions -> dimensions before and after them."""
_LOCALS_WIDTH = 90
"""Longest line of local names, without its indentation."""


@dataclass
class Writer:
    """Prints the statements of one block.

    Args:
        block: how its arrays are called.
        names: of the function.
        unnamed: code of a linear system without a guard of its own.
        indent: of the block in the module, for the length of lines.
    """

    block: Block
    names: Names
    unnamed: int
    indent: int = 4

    def lines(self, statements: Sequence[Statement]) -> list[str]:
        """Source lines from column 0, local names of arrays in front of the statement that needs them."""
        lines: list[str] = []
        for statement in statements:
            body = self.write(statement)
            lines += [*_locals(self.block.new_locals()), *body]
        return lines

    @singledispatchmethod
    def write(self, statement: Statement) -> list[str]:
        """Source lines of one statement."""
        raise BackendError(f"the Numba backend has no rule for the statement {type(statement).__name__}")

    # -- entrywise formulas

    @write.register
    def _(self, statement: Kernel) -> list[str]:
        assigns, loads = _versions(statement)
        written = {assign.target.ref for assign in statement.assigns}
        nest = self._nest(statement.labels, [a.target for a in statement.assigns], loads, written)
        parts, values = share([assign.value for assign in assigns], "shared_part_")
        pending = dict(parts)

        def emit(value: Expr) -> None:
            for symbol in sorted(value.free_symbols & set(pending), key=lambda s: s.name):
                if symbol in pending:
                    part = pending.pop(symbol)
                    emit(part)
                    nest.part(symbol, part, fixed=False)

        for assign, value in zip(assigns, values, strict=True):
            emit(value)
            nest.add(self.block.entry(assign.target), value)
        return nest.lines()

    @write.register
    def _(self, statement: Sum) -> list[str]:
        loads = dict(statement.loads)
        free, over = statement.target.labels, _in_memory_order(statement.over, loads)
        if _leading(over, free, loads):
            return self._column_sum(statement)
        nest = self._nest((*free, *over), [statement.target], loads, set())
        inner = {symbol for symbol, (_, depth) in nest.entries.items() if depth > len(free)}
        factor, value = (
            statement.value.as_independent(*inner, as_Add=False) if inner else (S.One, statement.value)
        )
        total = self.names.local("total")
        nest.before.setdefault(len(free), []).append(f"{total} = {self.names.real}(0.0)")
        parts, (value,) = share([value], "shared_part_")
        for symbol, part in parts:
            nest.part(symbol, part, fixed=False)
        nest.add(total, value, operator="+=")
        result = Symbol(f"local_{total}", real=True)
        nest.entries[result] = (total, len(free))
        nest.finish(self.block.entry(statement.target), factor * result, len(free))
        return nest.lines()

    def _column_sum(self, statement: Sum) -> list[str]:
        """Sum over a label that comes first in memory: the target is the accumulator."""
        free, over = statement.target.labels, _in_memory_order(statement.over, dict(statement.loads))
        target = self.block.entry(statement.target)
        nest = self._nest((*over, *free), [statement.target], dict(statement.loads), set())
        parts, (value,) = share([statement.value], "shared_part_")
        for symbol, part in parts:
            nest.part(symbol, part, fixed=False)
        nest.add(target, value, operator="+=")
        name = self.block.local(statement.target)
        return [f"{name}[:] = {self.names.real}(0.0)", *nest.lines()]

    def _nest(
        self,
        labels: tuple[str, ...],
        targets: Sequence[Load],
        loads: dict[str, Load],
        written: set[Ref],
    ) -> Nest:
        entries: dict[Symbol, tuple[str, int]] = {}
        fixed: set[Symbol] = set()
        for name, load in loads.items():
            symbol = Symbol(name, real=True)
            depth = max((1 + labels.index(label) for label in load.labels), default=0)
            entries[symbol] = (self.block.entry(load), depth)
            if load.ref in written:
                fixed.add(symbol)
        ranges = {label: self._extent(label, [*targets, *loads.values()]) for label in labels}
        return Nest(labels, ranges, self.names, entries, frozenset(fixed), self.indent)

    def _extent(self, label: str, loads: Sequence[Load]) -> str:
        for load in loads:
            if label in load.labels and self.block.group(load).family.storage is not Storage.IDENTITY:
                return self.block.extent(load, label)
        raise BackendError(f"no array of the statement has the label '{label}'")

    @write.register
    def _(self, statement: Fresh) -> list[str]:
        return (
            [f"{self.block.local(statement.target)}[:] = {self.names.real}(0.0)"] if statement.zeros else []
        )

    # -- products

    @write.register
    def _(self, statement: Contract) -> list[str]:
        if any(len(load.labels) == 3 for load in (statement.left, statement.right)):
            lines = self._flattened(statement) or self._sample_products(statement)
        else:
            lines = self._one_product(statement)
        if lines is None:
            return self.write(_as_sum(statement))
        target = self.block.array(statement.target)
        if statement.scale != 1:
            texts = {name: self.block.entry(load) for name, load in statement.loads}
            code = print_code(statement.scale, "numba", names=texts, real=self.names.real)
            self.names.helpers |= {*code.helpers, "_scale"}
            lines += layout.statement(f"_scale({target}, {code.text})", 0, self.names.prefix("term"))
        return lines

    def _one_product(self, statement: Contract) -> list[str] | None:
        """A BLAS product, or None if it is none."""
        if self._has_identity(statement):
            return None
        left, right = (_Operand(self.block.array(o), o.labels) for o in (statement.left, statement.right))
        form = _blas_form(left, right, statement.target.labels)
        if form is None:
            return None
        return [f"np.dot({form[0]}, {form[1]}, {self.block.array(statement.target)})"]

    def _flattened(self, statement: Contract) -> list[str] | None:
        """One BLAS product over two labels as one, neighbours in every array that has them."""
        loads = (statement.left, statement.right, statement.target)
        if self._has_identity(statement) or any(len(load.window) > 1 for load in loads):
            return None
        pairs = {load.labels[n : n + 2] for load in loads if len(load.labels) == 3 for n in (0, 1)}
        for pair in sorted(pairs):
            operands = [self._joined(load, pair) for load in loads]
            if any(operand is None or len(operand.labels) > 2 for operand in operands):
                continue
            left, right, target = (operand for operand in operands if operand is not None)
            form = _blas_form(left, right, target.labels)
            if form is not None:
                text = f"np.dot({form[0]}, {form[1]}, {target.text})"
                self.names.helpers |= {helper for helper in _JOINS if f"{helper}(" in text}
                return [text]
        return None

    def _joined(self, load: Load, pair: tuple[str, ...]) -> _Operand | None:
        """The array with a pair of labels as one; None if it has them apart from each other."""
        text, labels = self.block.array(load), load.labels
        if not set(pair) & set(labels):
            return _Operand(text, labels)
        for helper, (before, after) in _JOINS.items():
            if (
                labels[len(before) : len(labels) - len(after)] == pair
                and len(labels) == len(before + after) + 2
            ):
                inner = (*labels[: len(before)], "".join(pair), *labels[len(labels) - len(after) :])
                return _Operand(f"{helper}({text})", inner)
        return None

    def _sample_products(self, statement: Contract) -> list[str] | None:
        """One BLAS product for each sample, stored or added up."""
        if self._has_identity(statement):
            return None
        operands = [self._of_sample(load) for load in (statement.left, statement.right)]
        target = self._of_sample(statement.target)
        if operands[0] is None or operands[1] is None or target is None:
            return None
        form = _blas_form(operands[0], operands[1], target.labels)
        if form is None:
            return None
        extent = self._extent(SAMPLE_LABEL, [statement.left, statement.right])
        loop = f"for {SAMPLE_LABEL} in range({extent}):"
        if SAMPLE_LABEL in statement.target.labels:
            return [loop, f"    np.dot({form[0]}, {form[1]}, {target.text})"]
        return [
            f"{target.text}[:] = {self.names.real}(0.0)",
            loop,
            f"    {target.text} += np.dot({form[0]}, {form[1]})",
        ]

    def _has_identity(self, statement: Contract) -> bool:
        operands = (statement.left, statement.right)
        return any(self.block.group(load).family.storage is Storage.IDENTITY for load in operands)

    def _of_sample(self, load: Load) -> _Operand | None:
        """The part of an array that belongs to one sample; None if it is not contiguous."""
        if SAMPLE_LABEL in load.labels[1:]:
            return None
        labels = tuple(label for label in load.labels if label != SAMPLE_LABEL)
        return _Operand(self.block.slice(load, (SAMPLE_LABEL,)), labels)

    # -- reductions and solvers

    @write.register
    def _(self, statement: LogSumExpOver) -> list[str]:
        return self._reduction(statement, "_log_sum_exp")

    @write.register
    def _(self, statement: LogSoftmaxOver) -> list[str]:
        self.names.helpers.add("_log_softmax")
        arrays = (
            self.block.slice(load, set(load.labels) - {statement.over})
            for load in (statement.operand, statement.target)
        )
        rows = [label for label in statement.target.labels if label != statement.over]
        return self._for_each(rows, statement.target, f"_log_softmax({', '.join(arrays)})")

    @write.register
    def _(self, statement: MaximumOver) -> list[str]:
        return self._reduction(statement, "_magnitude" if statement.magnitude else "_maximum")

    def _reduction(self, statement: LogSumExpOver | MaximumOver, helper: str) -> list[str]:
        self.names.helpers.add(helper)
        operand = statement.operand
        text = f"{helper}({self.block.slice(operand, set(operand.labels) - {statement.over})})"
        target = statement.target
        return self._for_each(target.labels, target, f"{self.block.entry(target)} = {text}")

    def _for_each(self, labels: Sequence[str], target: Load, line: str) -> list[str]:
        """A statement for all values of labels of an array."""
        lines = [line]
        for label in reversed(labels):
            extent = self._extent(label, [target])
            lines = [f"for {label} in range({extent}):", *(f"    {line}" for line in lines)]
        return lines

    @write.register
    def _(self, statement: SolveSystem) -> list[str]:
        vector = len(statement.rhs.labels) < len(statement.matrix.labels)
        if statement.definite:
            self.names.helpers.add("_solve_definite")
            arrays = [self.block.array(load) for load in (statement.matrix, statement.rhs, statement.target)]
            return self._call("_solve_definite", arrays, False)
        helper = "_solve_vector" if vector else "_solve_matrix"
        self.names.helpers.add(helper)
        code = self.unnamed if statement.guard is None else statement.guard
        operands = (statement.matrix, statement.rhs, statement.target)
        samples = len(statement.matrix.labels) == 3
        arrays = [self.block.slice(load, (SAMPLE_LABEL,)) for load in operands]
        if not statement.checked:
            return self._for_samples(self._call(helper, arrays, samples), statement.matrix, samples)
        lines = self._call(helper, arrays, samples, "solved = ")
        return self._for_samples([*lines, "if not solved:", f"    return {code}"], statement.matrix, samples)

    @write.register
    def _(self, statement: SolveSylvester) -> list[str]:
        self.names.helpers.add("_solve_sylvester")
        operands = (statement.left, statement.right, statement.rhs, statement.target)
        return self._call("_solve_sylvester", [self.block.array(load) for load in operands], False)

    @write.register
    def _(self, statement: SolveKronecker) -> list[str]:
        self.names.helpers.add("_solve_kronecker")
        operands = (statement.left, statement.right, statement.rhs)
        arrays = [self.block.array(load) for load in operands]
        arguments = [*arrays, self.block.entry(statement.shift), self.block.array(statement.target)]
        return self._call("_solve_kronecker", arguments, False)

    @write.register
    def _(self, statement: SolveCubic) -> list[str]:
        if statement.unbounded not in ("refuse", "absolute"):
            raise BackendError(f"the Numba backend cannot '{statement.unbounded}' what is unbounded")
        self.names.helpers.add("_solve_cubic")
        operands = (statement.matrix, statement.rhs, statement.third)
        arguments = [
            *(self.block.array(load) for load in operands),
            self.block.entry(statement.strength),
            str(statement.unbounded == "absolute"),
            self.block.array(statement.target),
        ]
        return self._call("_solve_cubic", arguments, False)

    @write.register
    def _(self, statement: ConjugateGradients) -> list[str]:
        """The loop, with inner products over all unknowns."""
        names = self.names
        size, start, following, rate = (names.local(n) for n in ("size", "start", "following", "rate"))
        count, bound, curvature = (names.local(n) for n in ("count", "bound", "curvature"))
        length, reach, steepest = (names.local(n) for n in ("length", "reach", "steepest"))
        rounding, error, scale, least = (names.local(n) for n in ("rounding", "error", "scale", "least"))
        # Names of arrays go before the loop, those that only the body uses too.
        parts = [self._parts(unknown) for unknown in statement.unknowns]
        body = [line for part in statement.body for line in self.write(part)]
        limit, tolerance = self.block.entry(statement.limit), self.block.entry(statement.tolerance)
        left = self.block.entry(statement.remaining)
        largest = ", ".join(p.largest() for p in parts)
        largest = f"max({largest})" if len(parts) > 1 else largest
        lines = [
            "# Squares of small numbers vanish: the search is at a size of about one.",
            f"{scale} = _power_below({largest})",
        ]
        lines += [
            line
            for p in parts
            for line in (
                p.set(p.solution, f"{names.real}(0.0)"),
                p.set(p.residual, f"{p.rhs} / {scale}"),
                p.set(p.direction, p.residual),
            )
        ]
        squares = " + ".join(p.inner(p.residual, p.residual) for p in parts)
        pairs = " + ".join(p.inner(p.direction, p.product) for p in parts)
        lengths = " + ".join(p.inner(p.direction, p.direction) for p in parts)
        reaches = " + ".join(p.inner(p.product, p.product) for p in parts)
        terms = " + ".join(p.terms(len(u.rhs.labels)) for p, u in zip(parts, statement.unknowns, strict=True))
        names.helpers.add("_power_below")
        arrays = {"_inner", "_add", "_turn", "_magnitude", "_entries", "_scale"}
        names.helpers |= arrays if any(p.is_array for p in parts) else set()
        lines += [
            f"{start} = {squares}",
            f"{size}, {bound} = {start}, {start} * {tolerance} * {tolerance}",
            "# Of the products; a curvature that it makes up would give a step without bound.",
            f"{rounding} = 4.0 * (1.0 + np.sqrt({terms})) * np.float64(np.finfo({names.real}).eps)",
            f"{count}, {steepest}, {error} = 0, 0.0, 0.0",
            f"while {count} < {limit} and not {size} <= {bound}:",
            *(f"    {line}" for line in body),
            f"    {curvature} = {pairs}",
            f"    {length} = {lengths}",
            f"    {reach} = {reaches}",
            f"    {length}, {reach} = np.sqrt({length}), np.sqrt({reach})",
            f"    if {length} > 0.0:",
            f"        {steepest} = max({steepest}, {reach} / {length})",
            f"    {least} = {rounding} * {steepest} * {length} * {length}",
            "    # Only where the angle to the product tells of a condition that costs half of the digits.",
            f"    {least} = max({least}, {reach} * min({rounding} ** 0.25 * {length}, {error}))",
            f"    if {curvature} <= {least}:",
            "        break",
            f"    {rate} = {size} / {curvature}",
            f"    {least} = 16.0 * {rounding} * {steepest} * {length}",
            f"    {error} += {least} * {rate} * (1.0 + {reach} * {length} / {curvature})",
            *(f"    {p.move(p.solution, rate, p.direction)}" for p in parts),
            *(f"    {p.move(p.residual, f'-{rate}', p.product)}" for p in parts),
            f"    {following} = {squares}",
            *(f"    {p.turn(f'{following} / {size}')}" for p in parts),
            f"    {size} = {following}",
            f"    {count} += 1",
            *(p.scaled(scale) for p in parts),
            f"{self.block.entry(statement.iterations)} = {count}",
            f"{left} = np.sqrt({size} / {start}) if {start} > 0.0 else {size}",
        ]
        return lines

    def _parts(self, unknown: Unknown) -> _Parts:
        loads = (unknown.solution, unknown.rhs, unknown.residual, unknown.direction, unknown.product)
        names = [self.block.local(load) if load.labels else self.block.entry(load) for load in loads]
        solution, rhs, residual, direction, product = names
        return _Parts(solution, rhs, residual, direction, product, bool(unknown.rhs.labels))

    @write.register
    def _(self, statement: MatrixFunction) -> list[str]:
        helper = _SPECTRAL.get(statement.kind)
        if helper is None:
            raise BackendError(f"the Numba backend has no matrix function '{statement.kind}'")
        self.names.helpers.add(helper)
        samples = len(statement.matrix.labels) == 3
        operands = (statement.matrix, statement.target)
        arrays = [self.block.slice(load, (SAMPLE_LABEL,)) for load in operands]
        return self._for_samples(self._call(helper, arrays, samples), statement.matrix, samples)

    def _call(self, function: str, arguments: list[str], inside: bool, before: str = "") -> list[str]:
        """A call, inside a loop over samples or not."""
        indent = self.indent + (4 if inside else 0)
        lines = layout.lines_of(arguments, f"{before}{function}(", ")", indent)
        return [line[indent:] for line in lines]

    def _for_samples(self, lines: list[str], matrix: Load, samples: bool) -> list[str]:
        if not samples:
            return lines
        return [
            f"for p in range({self.block.extent(matrix, matrix.labels[0])}):",
            *(f"    {line}" for line in lines),
        ]

    @write.register
    def _(self, statement: Guard) -> list[str]:
        if statement.rows:
            text, code = self.block.array(statement.operand), subscript_text(statement.code)
            row = f"{text}[s]"
            matrix = len(self.block.shape(statement.operand)) > 1
            self.names.helpers |= {"_all_finite"} if matrix else set()
            test = f"_all_finite({row})" if matrix else f"np.isfinite({row})"
            return [f"for s in range(len({text})):", f"    if not {test}:", f"        return {code} + s"]
        if statement.operand.labels:
            self.names.helpers.add("_all_finite")
            test = f"_all_finite({self.block.array(statement.operand)})"
        else:
            test = f"np.isfinite({self.block.entry(statement.operand)})"
        return [f"if not {test}:", f"    return {subscript_text(statement.code)}"]


def _locals(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Assignments of local names, several on a line."""
    lines: list[str] = []
    chosen: list[tuple[str, str]] = []
    for pair in pairs:
        width = sum(len(name) + len(text) + 4 for name, text in (*chosen, pair))
        if chosen and width > _LOCALS_WIDTH:
            lines.append(_assigned(chosen))
            chosen = []
        chosen.append(pair)
    return [*lines, _assigned(chosen)] if chosen else lines


def _assigned(pairs: Sequence[tuple[str, str]]) -> str:
    return f"{', '.join(name for name, _ in pairs)} = {', '.join(text for _, text in pairs)}"


def _versions(kernel: Kernel) -> tuple[list[Assign], dict[str, Load]]:
    """New symbols for entries that an earlier assignment of the kernel has overwritten.

    Both versions have the same text; different symbols keep them apart when subexpressions are shared.
    """
    original = dict(kernel.loads)
    loads = dict(original)
    renaming: dict[Expr, Expr] = {}
    assigns: list[Assign] = []
    for number, assign in enumerate(kernel.assigns):
        assigns.append(Assign(assign.target, assign.value.xreplace(renaming)))
        for name, load in original.items():
            if load.ref == assign.target.ref:
                new = f"{name}_after{number}"
                renaming[Symbol(name, real=True)] = Symbol(new, real=True)
                loads[new] = load
    return assigns, loads


def _in_memory_order(over: tuple[str, ...], loads: dict[str, Load]) -> tuple[str, ...]:
    """The labels as the largest array has them, the innermost loop last."""
    widest = max((load.labels for load in loads.values()), key=len, default=())
    return tuple(sorted(over, key=lambda label: widest.index(label) if label in widest else -1))


def _leading(over: tuple[str, ...], free: tuple[str, ...], loads: dict[str, Load]) -> bool:
    """Whether summed labels come before kept ones in the arrays that have both."""
    mixed = [
        load.labels
        for load in loads.values()
        if set(load.labels) & set(over) and set(load.labels) & set(free)
    ]
    if not mixed or not free:
        return False
    widest = max(mixed, key=len)
    return widest[-1] in free


@dataclass(frozen=True)
class _Parts:
    """Texts of the arrays, or of the numbers, of one unknown."""

    solution: str
    rhs: str
    residual: str
    direction: str
    product: str
    is_array: bool

    def set(self, target: str, value: str) -> str:
        return f"{target}[:] = {value}" if self.is_array else f"{target} = {value}"

    def inner(self, left: str, right: str) -> str:
        """In float64: squares of small numbers are smaller."""
        return f"_inner({left}, {right})" if self.is_array else f"np.float64({left}) * np.float64({right})"

    def largest(self) -> str:
        """Largest magnitude of the right side."""
        return f"_magnitude(_entries({self.rhs}))" if self.is_array else f"abs({self.rhs})"

    def scaled(self, factor: str) -> str:
        """The solution times a number, in place."""
        return f"_scale({self.solution}, {factor})" if self.is_array else f"{self.solution} *= {factor}"

    def terms(self, dimensions: int) -> str:
        """Sum of the sizes of the axes."""
        return " + ".join(f"{self.rhs}.shape[{n}]" for n in range(dimensions)) or "1"

    def move(self, target: str, rate: str, along: str) -> str:
        """target += rate · along."""
        return f"_add({target}, {rate}, {along})" if self.is_array else f"{target} += {rate} * {along}"

    def turn(self, rate: str) -> str:
        """direction = residual + rate · direction."""
        if self.is_array:
            return f"_turn({self.direction}, {rate}, {self.residual})"
        return f"{self.direction} = {self.residual} + {rate} * {self.direction}"


@dataclass(frozen=True)
class _Operand:
    text: str
    labels: tuple[str, ...]


def _blas_form(left: _Operand, right: _Operand, out: tuple[str, ...]) -> tuple[str, str] | None:
    """Texts of the operands of a matrix–matrix or matrix–vector product, or None if it is none."""
    summed = [label for label in left.labels if label in right.labels]
    if len(summed) != 1 or summed[0] in out or not out:
        return None
    if out[0] in right.labels:
        left, right = right, left
    if len(left.labels) != 2 or len(right.labels) not in (1, 2) or len(right.labels) != len(out):
        return None
    first, second = left.text, right.text
    if left.labels == (summed[0], out[0]):
        first += ".T"
    elif left.labels != (out[0], summed[0]):
        return None
    if len(right.labels) == 2:
        if right.labels == (out[1], summed[0]):
            second += ".T"
        elif right.labels != (summed[0], out[1]):
            return None
    return first, second


def _as_sum(statement: Contract) -> Statement:
    """A product that BLAS does not have, as loops."""
    loads = dict(statement.loads)
    operands = []
    for name, load in (("left_operand", statement.left), ("right_operand", statement.right)):
        loads[name] = load
        operands.append(Symbol(name, real=True))
    value = Mul(statement.scale, *operands)
    labels = dict.fromkeys((*statement.left.labels, *statement.right.labels))
    over = tuple(label for label in labels if label not in statement.target.labels)
    bound = tuple((name, loads[name]) for name in sorted(loads))
    if not over:
        return Kernel(statement.target.labels, (Assign(statement.target, value),), bound)
    return Sum(statement.target, over, value, bound)
