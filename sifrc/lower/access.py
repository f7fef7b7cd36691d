"""What statements read and write, and in which order statements run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import singledispatch

from sifrc.lower.arrays import Load, Ref
from sifrc.lower.statements import (
    ConjugateGradients,
    Contract,
    Fresh,
    Guard,
    Kernel,
    LogSoftmaxOver,
    LogSumExpOver,
    Loop,
    MatrixFunction,
    MaximumOver,
    SolveCubic,
    SolveKronecker,
    SolveSylvester,
    SolveSystem,
    Statement,
    Sum,
)

__all__ = ["absolute", "flat", "loads_of", "targets_of", "unrolled"]


@singledispatch
def loads_of(statement: Statement) -> tuple[Load, ...]:
    """What a statement reads, apart from what it writes itself before.

    Raises:
        TypeError: an unknown statement.
    """
    raise TypeError(f"no rule for the statement {type(statement).__name__}")


@loads_of.register(Kernel)
@loads_of.register(Sum)
def _(statement: Kernel | Sum) -> tuple[Load, ...]:
    return tuple(load for _, load in statement.loads)


@loads_of.register
def _(statement: Fresh) -> tuple[Load, ...]:
    return () if statement.like is None else (statement.like,)


@loads_of.register
def _(statement: Contract) -> tuple[Load, ...]:
    return (statement.left, statement.right, *(load for _, load in statement.loads))


@loads_of.register(LogSumExpOver)
@loads_of.register(LogSoftmaxOver)
@loads_of.register(MaximumOver)
@loads_of.register(Guard)
def _(statement: LogSumExpOver | LogSoftmaxOver | MaximumOver | Guard) -> tuple[Load, ...]:
    return (statement.operand,)


@loads_of.register
def _(statement: SolveSystem) -> tuple[Load, ...]:
    return (statement.matrix, statement.rhs)


@loads_of.register
def _(statement: SolveSylvester) -> tuple[Load, ...]:
    return (statement.left, statement.right, statement.rhs)


@loads_of.register
def _(statement: SolveKronecker) -> tuple[Load, ...]:
    return (statement.left, statement.right, statement.rhs, statement.shift)


@loads_of.register
def _(statement: SolveCubic) -> tuple[Load, ...]:
    return (statement.matrix, statement.rhs, statement.third, statement.strength)


@loads_of.register
def _(statement: MatrixFunction) -> tuple[Load, ...]:
    return (statement.matrix,)


@loads_of.register
def _(statement: ConjugateGradients) -> tuple[Load, ...]:
    own = {target.ref for target in targets_of(statement)}
    inner = (load for part in statement.body for load in loads_of(part))
    given = (*(unknown.rhs for unknown in statement.unknowns), statement.limit, statement.tolerance, *inner)
    return tuple(load for load in given if load.ref not in own)


def targets_of(statement: Statement) -> tuple[Load, ...]:
    """What a statement writes."""
    if isinstance(statement, Kernel):
        return tuple(assign.target for assign in statement.assigns)
    if isinstance(statement, Guard):
        return ()
    if isinstance(statement, ConjugateGradients):
        arrays = [
            load
            for unknown in statement.unknowns
            for load in (unknown.solution, unknown.residual, unknown.direction)
        ]
        inner = [target for part in statement.body for target in targets_of(part)]
        return (*arrays, *inner, statement.iterations, statement.remaining)
    return (statement.target,)


def flat(body: Sequence[Statement | Loop]) -> Iterator[Statement]:
    """Statements in textual order."""
    for item in body:
        yield from item.body if isinstance(item, Loop) else (item,)


def unrolled(body: Sequence[Statement | Loop]) -> Iterator[tuple[Statement, int | None]]:
    """Statements in the order in which they run, each with the value of the loop index."""
    for item in body:
        if isinstance(item, Loop):
            for k in range(item.start, item.stop, item.step):
                yield from ((statement, k) for statement in item.body)
        else:
            yield item, None


def absolute(ref: Ref, k: int | None) -> tuple[str, int | None]:
    """Family and index that a reference means at loop index k."""
    if ref.subscript is None:
        return ref.family, None
    return ref.family, ref.subscript.offset + (k if ref.subscript.relative and k is not None else 0)
