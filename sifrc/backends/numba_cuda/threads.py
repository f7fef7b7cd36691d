"""Statements as what the threads of a block do, each its part of the entries.

Kernels have the locals ``thread`` and ``threads``; where blocks divide entries too, ``block`` and ``blocks``;
sums of several threads go through ``scratch``, a number for each thread in shared memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatchmethod

from sifrc.backends.layout import lines_of
from sifrc.backends.names import subscript_text
from sifrc.backends.numba_common.access import Block, extent_of
from sifrc.backends.numba_common.formulas import kernel_nest, sum_nest
from sifrc.backends.numba_common.nests import Names, indented
from sifrc.backends.numba_cuda.shares import Share, row_labels
from sifrc.errors import BackendError
from sifrc.lower import statements as st
from sifrc.lower.arrays import Load

__all__ = ["RESERVED", "Threads", "joined", "looped"]

RESERVED = frozenset(
    {
        "cuda",
        "grid",
        "thread",
        "threads",
        "block",
        "blocks",
        "scratch",
        "entry",
        "row",
        "first",
        "found",
        "refused",
    }
)
"""Names that arrays in kernels may not have."""
_FIRST = "if thread == 0:"


@dataclass
class Threads:
    """Prints the work of the threads of a block.

    Args:
        block: how arrays are called.
        names: of the kernel.
        checks: made so far; of those that fail the first one counts.
    """

    block: Block
    names: Names
    checks: int = 0

    def inner(self, statement: st.Kernel | st.Sum | st.Guard) -> tuple[Mapping[str, str], list[str]]:
        """Extents of the labels, and what one thread does for an entry; from column 0."""
        if isinstance(statement, st.Guard):
            later = f"{self.checks} * _NEXT + " if self.checks else ""
            code = f"{later}{subscript_text(statement.code)}"
            self.checks += 1
            operand = statement.operand
            ranges = {label: extent_of(self.block, label, [operand]) for label in operand.labels}
            test = f"if not math.isfinite({self.block.entry(operand)}):"
            return ranges, [test, f"    refused = min(refused, first_check + {code})"]
        if isinstance(statement, st.Kernel):
            nest = kernel_nest(statement, self.block, self.names, 16)
        else:
            nest = sum_nest(statement, self.block, self.names, 16)
        return nest.ranges, nest.lines(len(row_labels(statement)))

    @singledispatchmethod
    def lines(self, statement: st.Statement, share: Share) -> list[str]:
        """Source lines from column 0."""
        raise BackendError(f"threads of CUDA cannot divide the statement {type(statement).__name__}")

    @lines.register
    def _(self, statement: st.Kernel | st.Guard, share: Share) -> list[str]:
        return divided(share, *self.inner(statement))

    @lines.register
    def _(self, statement: st.Sum, share: Share) -> list[str]:
        if share.lanes == 1:
            return divided(share, *self.inner(statement))
        nest = sum_nest(statement, self.block, self.names, 16)
        labels = statement.target.labels
        begin, ends = nest.before[len(labels)].pop(0), nest.after.pop(len(labels))
        lanes = "threads" if share.lanes == 0 else self.names.local("lanes")
        own = "thread" if share.lanes == 0 else f"thread % {lanes}"
        ranges = dict(nest.ranges)
        outermost = nest.labels[len(labels)]
        nest.ranges = ranges | {outermost: f"{own}, {ranges[outermost]}, {lanes}"}
        return self._summed(share, ranges, begin, nest.lines(len(labels)), ends, lanes)

    def _summed(
        self,
        share: Share,
        ranges: Mapping[str, str],
        begin: str,
        terms: list[str],
        ends: list[str],
        lanes: str,
    ) -> list[str]:
        """Terms of a thread, their sum over the threads that share an entry, and what becomes of it."""
        self.names.helpers.add("_sum")
        total = begin.partition(" ")[0]
        sums = f"{total} = _sum({total}, scratch, {lanes})"
        if not share.free:
            lines = [begin, *terms, sums, _FIRST, *indented(ends, 4)]
        else:
            (label,) = share.free
            extent = ranges[label]
            lines = [
                f"{lanes} = min({share.lanes}, threads)",
                f"for first in range(0, {extent}, threads // {lanes}):",
                f"    {label} = first + thread // {lanes}",
                f"    {begin}",
                f"    if {label} < {extent}:",
                *indented(terms, 8),
                f"    {sums}",
                f"    if {label} < {extent} and thread % {lanes} == 0:",
                *indented(ends, 8),
            ]
        return led(share, ranges, lines)

    @lines.register
    def _(self, statement: st.LogSoftmaxOver, share: Share) -> list[str]:
        self.names.helpers |= {"_log_softmax_of", "_sum", "_most", "_most_of"}
        source, target = (self._row(load, statement.over) for load in (statement.operand, statement.target))
        return [line[8:] for line in lines_of([source, target, "scratch"], "_log_softmax_of(", ")", 8)]

    @lines.register
    def _(self, statement: st.LogSumExpOver, share: Share) -> list[str]:
        self.names.helpers |= {"_log_sum_exp_of", "_sum", "_most", "_most_of"}
        row = self._row(statement.operand, statement.over)
        return self._stored(statement.target, f"_log_sum_exp_of({row}, scratch)")

    @lines.register
    def _(self, statement: st.MaximumOver, share: Share) -> list[str]:
        self.names.helpers |= {"_most_of", "_most"}
        row = self._row(statement.operand, statement.over)
        return self._stored(statement.target, f"_most_of({row}, scratch, {statement.magnitude})")

    def _row(self, load: Load, over: str) -> str:
        """The entries that are gone through."""
        return self.block.slice(load, set(load.labels) - {over})

    def _stored(self, target: Load, text: str) -> list[str]:
        """A number that all threads find, and the first one writes."""
        name = self.names.local("total")
        entry = self.block.entry(target)
        return [f"{name} = {text}", "if thread == 0:", f"    {entry} = {name}"]


def divided(share: Share, ranges: Mapping[str, str], body: Sequence[str]) -> list[str]:
    """The body for the entries of a thread."""
    if not share.free:
        return led(share, ranges, [_FIRST, *indented(body, 4)])
    return led(share, ranges, looped(share.free, ranges, ("thread", "threads"), body))


def led(share: Share, ranges: Mapping[str, str], lines: list[str]) -> list[str]:
    """The lines for the rows of a block, where blocks divide them."""
    if share.lead is None:
        return lines
    return looped((share.lead,), ranges, ("block", "blocks"), lines)


def looped(
    labels: Sequence[str],
    ranges: Mapping[str, str],
    steps: tuple[str, str],
    body: Sequence[str],
    name: str = "entry",
) -> list[str]:
    """The body in a loop over the values of labels, of several as one, with a start and a step."""
    start, step = steps
    if len(labels) == 1:
        return [f"for {labels[0]} in range({start}, {ranges[labels[0]]}, {step}):", *indented(body, 4)]
    extents = [ranges[label] for label in labels]
    lines, rest = [], name
    for position in range(len(labels) - 1, 0, -1):
        lines.append(f"{labels[position]} = {rest} % {extents[position]}")
        rest = f"{rest} // {extents[position]}"
    size = " * ".join(extents)
    named = [f"size = {size}"] if len(labels) > 2 else []
    head = f"for {name} in range({start}, {'size' if named else size}, {step}):"
    return [*named, head, *indented([*lines, f"{labels[0]} = {rest}", *body], 4)]


def joined(lines: list[str], body: Sequence[str]) -> list[str]:
    """The lines and those that follow; what the first thread does next belongs to what it does already."""
    last = next((line for line in reversed(lines) if not line.startswith(" ")), "")
    own = body[1:] if body[0] == last == _FIRST else body
    return [*lines, *own]
