"""Statements of the program as launches of kernels, and calls of products and solvers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatchmethod

from sifrc.backends.layout import statement as laid_out
from sifrc.backends.names import subscript_text
from sifrc.backends.numba_common.access import extent_of
from sifrc.backends.numba_common.conjugate_gradients import search_lines
from sifrc.backends.numba_common.formulas import kernel_nest, sum_nest
from sifrc.backends.numba_common.nests import Names
from sifrc.backends.numba_common.products import as_sum
from sifrc.backends.numba_cuda.kernels import DeviceBlock, Launches
from sifrc.backends.numba_cuda.products import subscripts
from sifrc.backends.numba_cuda.unknowns import array_text, unknown_text
from sifrc.errors import BackendError
from sifrc.lower import statements as st
from sifrc.lower.arrays import Load
from sifrc.scalar import print_code

__all__ = ["HELPERS", "SOLVERS", "Writer"]

SOLVERS = frozenset({"_solve", "_solve_definite", "_solve_sylvester", "_solve_kronecker", "_function_of"})
"""Functions that go through systems, a block for each."""
_ROWS = frozenset({"_log_softmax", "_log_sum_exp", "_magnitude", "_maximum"})
HELPERS = SOLVERS | _ROWS | {"_delta", "_inner", "_power_below_on_host", "_solve_cubic_on_host"}
"""Functions that the templates have: of systems, of rows, of labels."""


@dataclass
class Writer:
    """Prints the statements of one block.

    Args:
        block: names of its arrays.
        launches: kernels of the function.
        names: what is taken in each kernel, and helpers that kernels use.
        unnamed: code of a linear system without a guard of its own.
        indent: of the block in the module, for the length of lines.
    """

    block: DeviceBlock
    launches: Launches
    names: Names
    unnamed: int
    indent: int = 4

    def lines(self, statements: Sequence[st.Statement]) -> list[str]:
        """Source lines from column 0."""
        return [line for statement in statements for line in self.write(statement)]

    @singledispatchmethod
    def write(self, statement: st.Statement) -> list[str]:
        """Source lines of one statement."""
        raise BackendError(f"the CUDA backend has no rule for the statement {type(statement).__name__}")

    @write.register
    def _(self, statement: st.Kernel) -> list[str]:
        names = self._fresh()
        nest = kernel_nest(statement, self.block, names, 12)
        self.names.helpers |= names.helpers
        targets = [assign.target for assign in statement.assigns]
        return self._launch(statement.labels, nest.ranges, nest.lines(len(statement.labels)), targets)

    @write.register
    def _(self, statement: st.Sum) -> list[str]:
        names = self._fresh()
        nest = sum_nest(statement, self.block, names, 12)
        self.names.helpers |= names.helpers
        labels = statement.target.labels
        return self._launch(labels, nest.ranges, nest.lines(len(labels)), [statement.target])

    @write.register
    def _(self, statement: st.Fresh) -> list[str]:
        return [f"_clear({self.block.array(statement.target)})"] if statement.zeros else []

    @write.register
    def _(self, statement: st.Contract) -> list[str]:
        text = subscripts(statement)
        if text is None:
            return self.write(as_sum(statement))
        loads = (statement.left, statement.right, statement.target)
        arguments = [*(self.block.array(load) for load in loads), f'"{text}"']
        if statement.scale != 1:
            texts = {name: self.block.entry(load) for name, load in statement.loads}
            code = print_code(statement.scale, "cuda", names=texts, real=self.names.real)
            arguments.append(code.text)
        return laid_out(f"_contract({', '.join(arguments)})", 0)

    # -- reductions

    @write.register
    def _(self, statement: st.LogSumExpOver) -> list[str]:
        return self._reduction(statement, "_log_sum_exp")

    @write.register
    def _(self, statement: st.MaximumOver) -> list[str]:
        return self._reduction(statement, "_magnitude" if statement.magnitude else "_maximum")

    @write.register
    def _(self, statement: st.LogSoftmaxOver) -> list[str]:
        rows = tuple(label for label in statement.target.labels if label != statement.over)
        self.names.helpers.add("_log_softmax")
        arrays = [self.block.slice(load, rows) for load in (statement.operand, statement.target)]
        return self._of_rows(rows, statement.target, f"_log_softmax({', '.join(arrays)})")

    def _reduction(self, statement: st.LogSumExpOver | st.MaximumOver, helper: str) -> list[str]:
        self.names.helpers.add(helper)
        row = self.block.slice(statement.operand, set(statement.operand.labels) - {statement.over})
        target = statement.target
        return self._of_rows(target.labels, target, f"{self.block.entry(target)} = {helper}({row})")

    def _of_rows(self, labels: Sequence[str], target: Load, line: str) -> list[str]:
        ranges = {label: extent_of(self.block, label, [target]) for label in labels}
        return self._launch(labels, ranges, [line], [target])

    # -- systems and checks

    @write.register
    def _(self, statement: st.SolveSystem) -> list[str]:
        operands = (statement.matrix, statement.rhs, statement.target)
        if statement.definite:
            return self._solver("_solve_definite", operands)
        if not statement.checked:
            return self._solver("_solve", operands)
        code = self.unnamed if statement.guard is None else statement.guard
        return self._solver("_solve", operands, "checks", str(code))

    @write.register
    def _(self, statement: st.SolveSylvester) -> list[str]:
        operands = (statement.left, statement.right, statement.rhs, statement.target)
        return self._solver("_solve_sylvester", operands)

    @write.register
    def _(self, statement: st.SolveKronecker) -> list[str]:
        operands = (statement.left, statement.right, statement.rhs)
        more = (self.block.entry(statement.shift), self.block.array(statement.target))
        return self._solver("_solve_kronecker", operands, *more)

    @write.register
    def _(self, statement: st.SolveCubic) -> list[str]:
        operands = (statement.matrix, statement.rhs, statement.third)
        more = (
            self.block.entry(statement.strength),
            str(statement.unbounded == "absolute"),
            self.block.array(statement.target),
        )
        return self._solver("_solve_cubic_on_host", operands, *more)

    @write.register
    def _(self, statement: st.ConjugateGradients) -> list[str]:
        self.names.helpers.add("_inner")
        parts = [unknown_text(self.block, unknown) for unknown in statement.unknowns]
        below = "_power_below_on_host"
        return search_lines(statement, self.block, self.names, self.write, parts, below)

    @write.register
    def _(self, statement: st.MatrixFunction) -> list[str]:
        return self._solver("_function_of", (statement.matrix, statement.target), f'"{statement.kind}"')

    def _solver(self, function: str, operands: Sequence[Load], *more: str) -> list[str]:
        """A call of a solver of the module."""
        self.names.helpers.add(function)
        return laid_out(f"{function}({', '.join([*map(self.block.array, operands), *more])})", 0)

    @write.register
    def _(self, statement: st.Guard) -> list[str]:
        values, code = array_text(self.block, statement.operand), subscript_text(statement.code)
        return laid_out(f"_check({values}, checks, {code}{', True' if statement.rows else ''})", 0)

    def _fresh(self) -> Names:
        """Names of one kernel."""
        return Names(self.names.real, set(self.names.taken), "cuda")

    def _launch(
        self, labels: Sequence[str], ranges: Mapping[str, str], body: list[str], targets: Sequence[Load]
    ) -> list[str]:
        names = dict.fromkeys(self.block.group(target).name for target in targets)
        return self.launches.launch(labels, ranges, body, f"Entries of {', '.join(names)}.", self.block)
