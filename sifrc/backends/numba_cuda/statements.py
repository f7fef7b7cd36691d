"""Statements of the program as launches of kernels, and calls of products and solvers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatchmethod

from sifrc.backends.layout import lines_of
from sifrc.backends.layout import statement as laid_out
from sifrc.backends.names import subscript_text
from sifrc.backends.numba_common.access import extent_of
from sifrc.backends.numba_common.nests import Names
from sifrc.backends.numba_cuda.kernels import NO_WINDOWS, DeviceBlock, Launches
from sifrc.backends.numba_cuda.products import subscripts
from sifrc.backends.numba_cuda.rows import Run, run_lines, runs
from sifrc.backends.numba_cuda.threads import RESERVED, Threads
from sifrc.backends.numba_cuda.unknowns import array_text, search_text
from sifrc.errors import BackendError
from sifrc.lower import statements as st
from sifrc.lower.access import loads_of, targets_of
from sifrc.lower.arrays import Load
from sifrc.scalar import print_code

__all__ = ["HELPERS", "SMALL", "SOLVERS", "Writer"]

SMALL = 64
"""Largest system that is left to a block of threads where there is a library."""

SOLVERS = frozenset({"_solve", "_solve_definite", "_solve_sylvester", "_solve_kronecker", "_function_of"})
"""Functions that go through systems, a block for each."""
ON_HOST = frozenset({"_solve_cubic_on_host"})
"""Functions that read numbers of the device."""
FUNCTIONS = ("positive", "absolute", "definite")
"""Functions of the eigenvalues, by the number that the module knows them by."""
_ROWS = frozenset({"_log_softmax_of", "_log_sum_exp_of", "_most_of", "_most", "_sum"})
HELPERS = SOLVERS | _ROWS | {"_delta", "_Search", "_solve_cubic_on_host"}
"""Functions that the templates have: of systems, of rows, of labels."""


@dataclass
class Writer:
    """Prints the statements of one block.

    Args:
        block: names of its arrays.
        launches: kernels of the function.
        names: what is taken in each kernel, and helpers that kernels use.
        unnamed: code of a linear system without a guard of its own.
        most: threads of a block.
        indent: of the block in the module, for the length of lines.
    """

    block: DeviceBlock
    launches: Launches
    names: Names
    unnamed: int
    most: int
    indent: int = 4

    def lines(self, statements: Sequence[st.Statement]) -> list[str]:
        """Source lines from column 0."""
        layout, k = self.block.layout, self.block.k
        lines: list[str] = []
        for item in runs(statements, layout, k):
            lines += self._run(item) if isinstance(item, Run) else self.write(item)
        return lines

    def _run(self, run: Run) -> list[str]:
        """The launch of a kernel."""
        names = Names(self.names.real, set(self.names.taken) | RESERVED, "cuda")
        threads = Threads(self.block, names)
        body, width = run_lines(run, threads, self.block.layout, self.block.k, self.most)
        self.names.helpers |= names.helpers
        host = {"found": "checks.found", "first_check": f"checks.first({threads.checks})"}
        self.block.host.update(host)
        loads = [load for s in run.statements for load in (*targets_of(s), *loads_of(s))]
        ranges = {label: extent_of(self.block, label, loads) for label in run.labels}
        written = dict.fromkeys(self.block.group(load).name for s in run.statements for load in targets_of(s))
        what = "Rows" if run.labels and not run.entries else "Entries"
        doc = f"{what} of {', '.join(written)}." if written else "Checks."
        return self.launches.launch(
            ranges, body, doc, self.block, None if run.entries else width, self.indent
        )

    @singledispatchmethod
    def write(self, statement: st.Statement) -> list[str]:
        """Source lines of one statement that is no run."""
        raise BackendError(f"the CUDA backend has no rule for the statement {type(statement).__name__}")

    @write.register
    def _(self, statement: st.Fresh) -> list[str]:
        return [f"_clear({self.block.array(statement.target)})"] if statement.zeros else []

    @write.register
    def _(self, statement: st.Contract) -> list[str]:
        text = subscripts(statement)
        loads = (statement.left, statement.right, statement.target)
        arguments = [*(self.block.array(load) for load in loads), f'"{text}"']
        if statement.scale != 1:
            texts = {name: self.block.entry(load) for name, load in statement.loads}
            code = print_code(statement.scale, "cuda", names=texts, real=self.names.real)
            arguments.append(code.text)
        return laid_out(f"_contract({', '.join(arguments)})", 0)

    @write.register
    def _(self, statement: st.Convolve) -> list[str]:
        raise BackendError(NO_WINDOWS, hint="backends torch and numba have convolutions")

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
        self.names.helpers |= {"_Search", "_sum", "_most", "_power_below"}
        search = self.names.local("search")
        begun = search_text(search, self.block, statement, self.indent)
        inner = replace(self, indent=self.indent + 4)
        ended = (array_text(self.block, load) for load in (statement.iterations, statement.remaining))
        return [
            *(line[self.indent :] for line in begun),
            f"for _ in {search}.iterations({self.block.entry(statement.limit)}):",
            *(f"    {line}" for part in statement.body for line in inner.lines((part,))),
            f"    {search}.advance()",
            f"{search}.end({', '.join(ended)})",
        ]

    @write.register
    def _(self, statement: st.MatrixFunction) -> list[str]:
        return self._solver(
            "_function_of", (statement.matrix, statement.target), str(FUNCTIONS.index(statement.kind))
        )

    def _solver(self, function: str, operands: Sequence[Load], *more: str) -> list[str]:
        """A call of a solver of the module."""
        self.names.helpers.add(function)
        sizes = [size for load in operands for _, shape in self.block.group(load).members for size in shape]
        self.launches.asks |= function in ON_HOST or any(size is not None and size > SMALL for size in sizes)
        arguments = [*map(self.block.array, operands), *more]
        lines = lines_of(arguments, f"{function}(", ")", self.indent)
        return [line[self.indent :] for line in lines]

    @write.register
    def _(self, statement: st.Guard) -> list[str]:
        values, code = array_text(self.block, statement.operand), subscript_text(statement.code)
        return laid_out(f"_check({values}, checks, {code}{', True' if statement.rows else ''})", 0)
