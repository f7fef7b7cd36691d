"""Statements of the program as Numba code: one rule for each type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatchmethod

from sifrc.backends import layout
from sifrc.backends.names import subscript_text
from sifrc.backends.numba_common.access import Block, extent_of
from sifrc.backends.numba_common.formulas import column_nest, kernel_nest, sum_nest
from sifrc.backends.numba_common.nests import Names, indented
from sifrc.backends.numba_common.products import Products, as_sum
from sifrc.backends.numba_cpu.conjugate_gradients import search_lines
from sifrc.backends.numba_cpu.positions import position_lines
from sifrc.backends.numba_cpu.steps import steps_lines
from sifrc.backends.numba_cpu.unknowns import unknown_text
from sifrc.errors import BackendError
from sifrc.lower import statements as st
from sifrc.lower.access import loads_of, targets_of
from sifrc.lower.arrays import SAMPLE_LABEL, Load
from sifrc.lower.convolutions import as_contraction
from sifrc.scalar import print_code

__all__ = ["Writer"]

_SPECTRAL = {"positive": "_positive_part", "absolute": "_absolute_value", "definite": "_definite"}


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

    def lines(self, statements: Sequence[st.Statement]) -> list[str]:
        """Source lines from column 0, local names of arrays in front of the statement that needs them."""
        lines: list[str] = []
        for statement in statements:
            body = self.write(statement)
            for text in _locals(self.block.new_locals()):
                lines += self.names.laid_out(text, self.indent)
            lines += body
        return lines

    @singledispatchmethod
    def write(self, statement: st.Statement) -> list[str]:
        """Source lines of one statement."""
        raise BackendError(f"the Numba backend has no rule for the statement {type(statement).__name__}")

    # -- entrywise formulas

    @write.register
    def _(self, statement: st.Kernel) -> list[str]:
        return kernel_nest(statement, self.block, self.names, self.indent).lines()

    @write.register
    def _(self, statement: st.Sum) -> list[str]:
        if not _leading(statement):
            return sum_nest(statement, self.block, self.names, self.indent).lines()
        # The target is the accumulator.
        lines = column_nest(statement, self.block, self.names, self.indent).lines()
        return [f"{self.block.local(statement.target)}[:] = {self.names.real}(0.0)", *lines]

    @write.register
    def _(self, statement: st.Fresh) -> list[str]:
        return (
            [f"{self.block.local(statement.target)}[:] = {self.names.real}(0.0)"] if statement.zeros else []
        )

    # -- products

    @write.register
    def _(self, statement: st.Contract) -> list[str]:
        lines = Products(self.block, self.names, self.indent).lines(statement)
        if lines is None:
            return self.write(as_sum(statement))
        target = self.block.array(statement.target)
        if statement.scale != 1:
            texts = {name: self.block.entry(load) for name, load in statement.loads}
            code = print_code(statement.scale, "numba", names=texts, real=self.names.real)
            self.names.helpers |= {*code.helpers, "_scale"}
            lines += layout.statement(f"_scale({target}, {code.text})", 0, self.names.prefix("term"))
        return lines

    @write.register
    def _(self, statement: st.Convolve) -> list[str]:
        return self.write(as_contraction(statement))

    @write.register
    def _(self, statement: st.Put) -> list[str]:
        """Zeros, and then every entry of the operand added at the class of its place."""
        target, operand, classes = statement.target, statement.operand, statement.classes
        at = self.block.entry(classes)
        labels = tuple(at if label == statement.at else label for label in target.labels)
        value = self.block.entry(operand)
        if statement.scale != 1:
            texts = {name: self.block.entry(load) for name, load in statement.loads}
            code = print_code(statement.scale, "numba", names=texts, real=self.names.real)
            self.names.helpers |= set(code.helpers)
            value = f"({code.text}) * {value}"
        line = f"{self.block.entry(replace(target, labels=labels))} += {value}"
        lines = layout.statement(line, 0, self.names.prefix("term"))
        if statement.partial:
            lines = [f"if {at} >= 0:", *indented(lines, 4)]
        for label in reversed(operand.labels):
            extent = self.block.extent(operand, label)
            lines = [f"for {label} in range({extent}):", *indented(lines, 4)]
        return [f"{self.block.array(target)}[:] = {self.names.real}(0.0)", *lines]

    @write.register
    def _(self, statement: st.ConjugateGradients) -> list[str]:
        parts = [unknown_text(self.block, unknown, self.names.real) for unknown in statement.unknowns]
        arrays = {"_inner", "_add", "_turn", "_magnitude", "_entries", "_scale"}
        self.names.helpers |= arrays if any(part.is_array for part in parts) else set()
        return search_lines(statement, self.block, self.names, self.write, parts)

    @write.register
    def _(self, statement: st.Steps) -> list[str]:
        body = [load for part in statement.body for load in (*loads_of(part), *targets_of(part))]
        moved = [load for pair in (*statement.stored, *statement.carried) for load in pair]
        # Names of arrays go before the loop, those that only the body uses too.
        for load in (*body, *moved):
            if not load.changes and self.block.group(load).is_tuple:
                self.block.local(load)
        head = [
            line
            for text in _locals(self.block.new_locals())
            for line in self.names.laid_out(text, self.indent)
        ]
        inner = Writer(self.block, self.names, self.unnamed, self.indent + 4).lines(statement.body)
        return head + steps_lines(statement, self.block, self.names.real, inner)

    # -- reductions and solvers

    @write.register
    def _(self, statement: st.LogSumExpOver) -> list[str]:
        return self._reduction(statement, "_log_sum_exp")

    @write.register(st.LogSoftmaxOver)
    @write.register(st.ArgMaxOver)
    def _(self, statement: st.LogSoftmaxOver | st.ArgMaxOver) -> list[str]:
        helper = "_log_softmax" if isinstance(statement, st.LogSoftmaxOver) else "_first_largest"
        self.names.helpers.add(helper)
        arrays = (
            self.block.slice(load, set(load.labels) - {statement.over})
            for load in (statement.operand, statement.target)
        )
        rows = [label for label in statement.target.labels if label != statement.over]
        return self._for_each(rows, statement.target, f"{helper}({', '.join(arrays)})")

    @write.register
    def _(self, statement: st.LargestPosition) -> list[str]:
        return position_lines(statement, self.block, self.names)

    @write.register
    def _(self, statement: st.MaximumOver) -> list[str]:
        return self._reduction(statement, "_magnitude" if statement.magnitude else "_maximum")

    def _reduction(self, statement: st.LogSumExpOver | st.MaximumOver, helper: str) -> list[str]:
        self.names.helpers.add(helper)
        operand = statement.operand
        text = f"{helper}({self.block.slice(operand, set(operand.labels) - {statement.over})})"
        target = statement.target
        return self._for_each(target.labels, target, f"{self.block.entry(target)} = {text}")

    def _for_each(self, labels: Sequence[str], target: Load, line: str) -> list[str]:
        """A statement for all values of labels of an array."""
        lines = [line]
        for label in reversed(labels):
            extent = extent_of(self.block, label, [target])
            lines = [f"for {label} in range({extent}):", *(f"    {line}" for line in lines)]
        return lines

    @write.register
    def _(self, statement: st.SolveSystem) -> list[str]:
        vector = len(statement.rhs.labels) < len(statement.matrix.labels)
        if statement.definite:
            arrays = [self.block.array(load) for load in (statement.matrix, statement.rhs, statement.target)]
            return self._call("_solve_definite", arrays, False)
        helper = "_solve_vector" if vector else "_solve_matrix"
        code = self.unnamed if statement.guard is None else statement.guard
        operands = (statement.matrix, statement.rhs, statement.target)
        samples = len(statement.matrix.labels) == 3
        arrays = [self.block.slice(load, (SAMPLE_LABEL,)) for load in operands]
        if not statement.checked:
            return self._for_samples(self._call(helper, arrays, samples), statement.matrix, samples)
        lines = self._call(helper, arrays, samples, "solved = ")
        return self._for_samples([*lines, "if not solved:", f"    return {code}"], statement.matrix, samples)

    @write.register
    def _(self, statement: st.SolveSylvester) -> list[str]:
        operands = (statement.left, statement.right, statement.rhs, statement.target)
        return self._call("_solve_sylvester", [self.block.array(load) for load in operands], False)

    @write.register
    def _(self, statement: st.SolveKronecker) -> list[str]:
        operands = (statement.left, statement.right, statement.rhs)
        arrays = [self.block.array(load) for load in operands]
        arguments = [*arrays, self.block.entry(statement.shift), self.block.array(statement.target)]
        return self._call("_solve_kronecker", arguments, False)

    @write.register
    def _(self, statement: st.SolveCubic) -> list[str]:
        if statement.unbounded not in ("refuse", "absolute"):
            raise BackendError(f"the Numba backend cannot '{statement.unbounded}' what is unbounded")
        operands = (statement.matrix, statement.rhs, statement.third)
        arguments = [
            *(self.block.array(load) for load in operands),
            self.block.entry(statement.strength),
            str(statement.unbounded == "absolute"),
            self.block.array(statement.target),
        ]
        return self._call("_solve_cubic", arguments, False)

    @write.register
    def _(self, statement: st.MatrixFunction) -> list[str]:
        helper = _SPECTRAL.get(statement.kind)
        if helper is None:
            raise BackendError(f"the Numba backend has no matrix function '{statement.kind}'")
        samples = len(statement.matrix.labels) == 3
        operands = (statement.matrix, statement.target)
        arrays = [self.block.slice(load, (SAMPLE_LABEL,)) for load in operands]
        return self._for_samples(self._call(helper, arrays, samples), statement.matrix, samples)

    def _call(self, function: str, arguments: list[str], inside: bool, before: str = "") -> list[str]:
        """A call of a helper, inside a loop over samples or not."""
        self.names.helpers.add(function)
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
    def _(self, statement: st.Guard) -> list[str]:
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


def _leading(statement: st.Sum) -> bool:
    """Whether summed labels come before kept ones in the arrays that have both."""
    over, free = set(statement.over), set(statement.target.labels)
    every = (load.labels for _, load in statement.loads)
    mixed = [labels for labels in every if over & {*labels} and free & {*labels}]
    if not mixed or not free:
        return False
    return max(mixed, key=len)[-1] in free
