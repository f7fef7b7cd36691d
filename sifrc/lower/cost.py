"""Operation counts of a program: multiply-adds of its matrix products, as polynomials in the batch size.

Entrywise work is of lower order and left out; the sizes of the layers are the real ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from sifrc.lower.access import absolute, unrolled
from sifrc.lower.arrays import SAMPLE_LABEL, AtStep, Load
from sifrc.lower.convolutions import as_contraction
from sifrc.lower.program import Function, Program
from sifrc.lower.statements import Contract, Convolve, Kernel, Statement, Steps, Sum

__all__ = ["Cost", "cost_lines", "cost_of"]


@dataclass(frozen=True)
class Cost:
    """Multiply-adds: ``fixed`` plus ``per_sample`` times the batch size."""

    fixed: int = 0
    per_sample: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.fixed + other.fixed, self.per_sample + other.per_sample)

    def __str__(self) -> str:
        parts = [f"{_short(self.per_sample)} a sample of the batch"] if self.per_sample else []
        if self.fixed:
            parts.append(f"{_short(self.fixed)} a call")
        return " + ".join(parts) or "0"


def _short(count: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def _extents(program: Program, loads: tuple[Load, ...], k: int | None) -> dict[str, int | None]:
    sizes: dict[str, int | None] = {}
    for load in loads:
        name, index = absolute(load.ref, k)
        shape = dict(program.family(name).shapes)[index]
        if any(isinstance(part, AtStep) for part in load.window):
            parts = (*load.window, *(None for _ in shape[len(load.window) :]))
            shape = tuple(
                size for size, part in zip(shape, parts, strict=True) if not isinstance(part, AtStep)
            )
        shape = load.changed(shape[len(shape) - load.rank :])
        sizes.update(zip(load.labels, shape, strict=True))
    return sizes


def _counted(statement: Statement) -> tuple[Load, ...]:
    """The operands whose labels span the work of a statement; none where it is not counted."""
    if isinstance(statement, Convolve):
        statement = as_contraction(statement)
    if isinstance(statement, Contract):
        return statement.left, statement.right
    if isinstance(statement, Sum):
        return tuple(load for _, load in statement.loads)
    if isinstance(statement, Kernel) and sum(label != SAMPLE_LABEL for label in statement.labels) > 1:
        return tuple(load for _, load in statement.loads)
    return ()


def cost_of(program: Program, functions: tuple[Function, ...]) -> Cost:
    """Multiply-adds of functions run in order.

    Counted are matrix products, sums over products, and kernels over matrices (rank-one updates).
    """
    total = Cost()
    for function in functions:
        for statement, k in unrolled(function.body):
            total = total + _cost(program, statement, k)
    return total


def _cost(program: Program, statement: Statement, k: int | None) -> Cost:
    """Multiply-adds of one statement; of a loop over steps, those of a step as often as it runs."""
    if isinstance(statement, Steps):
        step = sum((_cost(program, part, k) for part in statement.body), Cost())
        return Cost(statement.count * step.fixed, statement.count * step.per_sample)
    loads = _counted(statement)
    if not loads:
        return Cost()
    sizes = _extents(program, loads, k)
    count = prod(size for size in sizes.values() if size is not None)
    return Cost(per_sample=count) if None in sizes.values() else Cost(fixed=count)


def cost_lines(program: Program) -> tuple[str, ...]:
    """One line for each operator and for the step."""
    lines: list[str] = []
    for operator in program.operators:
        if not operator.plain:
            continue
        (case,) = operator.cases
        prepare = tuple(program.function(name, operator.batched) for name in operator.prepare)
        apply = tuple(program.function(name, operator.batched) for name in case.functions)
        text = str(cost_of(program, (*prepare, *apply)))
        if apply:
            text += f", of which {cost_of(program, apply)} after linearize"
        lines.append(f"{operator.name}: {text}")
    for name, batched in ((program.step_single, False), (program.step_batched, True)):
        if name:
            functions = tuple(program.function(function, batched) for function in name)
            form = "a batch" if batched else "one sample"
            lines.append(f"step on {form}: {cost_of(program, functions)}")
    return tuple(lines)
