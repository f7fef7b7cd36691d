"""What statements read and write, and in which order statements run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sifrc.lower import statements as st
from sifrc.lower.arrays import Load, Ref, Take

__all__ = ["absolute", "classes_of", "flat", "loads_of", "numbers_of", "targets_of", "unrolled"]


def loads_of(statement: st.Statement) -> tuple[Load, ...]:
    """What a statement reads, apart from what it writes itself before; also the classes that it reads at.

    Raises:
        TypeError: an unknown statement.
    """
    loads = _loads(statement)
    if not any(load.changes for load in loads):
        return loads
    return (*loads, *(classes for load in loads for classes in classes_of(load)))


def classes_of(load: Load) -> Iterator[Load]:
    """The arrays of classes at which a load reads its array."""
    return (Load(change.classes) for change in load.changes if isinstance(change, Take))


def _loads(statement: st.Statement) -> tuple[Load, ...]:
    match statement:
        case st.Kernel(loads=loads) | st.Sum(loads=loads):
            return tuple(load for _, load in loads)
        case st.Fresh(like=like):
            return () if like is None else (like,)
        case st.Contract(left=left, right=right, loads=loads):
            return (left, right, *(load for _, load in loads))
        case st.Convolve(operands=operands, loads=loads):
            return (*operands, *(load for _, load in loads))
        case st.Put(operand=operand, classes=classes, loads=loads):
            return (operand, classes, *(load for _, load in loads))
        case st.LogSumExpOver() | st.LogSoftmaxOver() | st.MaximumOver() | st.ArgMaxOver() | st.Guard():
            return (statement.operand,)
        case st.LargestPosition(image=image):
            return (image,)
        case st.SolveSystem(matrix=matrix, rhs=rhs):
            return (matrix, rhs)
        case st.SolveSylvester(left=left, right=right, rhs=rhs):
            return (left, right, rhs)
        case st.SolveKronecker(left=left, right=right, rhs=rhs, shift=shift):
            return (left, right, rhs, shift)
        case st.SolveCubic(matrix=matrix, rhs=rhs, third=third, strength=strength):
            return (matrix, rhs, third, strength)
        case st.MatrixFunction(matrix=matrix):
            return (matrix,)
        case st.ConjugateGradients(unknowns=unknowns, limit=limit, tolerance=tolerance):
            own = {target.ref for target in targets_of(statement)}
            inner = (load for part in statement.body for load in loads_of(part))
            given = (*(unknown.rhs for unknown in unknowns), limit, tolerance, *inner)
            return tuple(load for load in given if load.ref not in own)
        case st.Steps(body=body):
            own = {target.ref for target in targets_of(statement)}
            return tuple(load for part in body for load in loads_of(part) if load.ref not in own)
    raise TypeError(f"no rule for the statement {type(statement).__name__}")


def numbers_of(statement: st.Statement) -> tuple[Load, ...]:
    """What a statement reads as numbers; of one with statements in it, these say it themselves."""
    match statement:
        case st.Kernel(loads=loads) | st.Sum(loads=loads):
            return tuple(load for _, load in loads)
        case st.Put(operand=operand):
            return (operand,)
        case st.Steps() | st.ConjugateGradients():
            return ()
        case _:
            return loads_of(statement)


def targets_of(statement: st.Statement) -> tuple[Load, ...]:
    """What a statement writes."""
    if isinstance(statement, st.Kernel):
        return tuple(assign.target for assign in statement.assigns)
    if isinstance(statement, st.Guard):
        return ()
    if isinstance(statement, st.ConjugateGradients):
        arrays = [
            load
            for unknown in statement.unknowns
            for load in (unknown.solution, unknown.residual, unknown.direction)
        ]
        inner = [target for part in statement.body for target in targets_of(part)]
        return (*arrays, *inner, statement.iterations, statement.remaining)
    if isinstance(statement, st.Steps):
        inner = [target for part in statement.body for target in targets_of(part)]
        return (*inner, *(load for _, load in (*statement.carried, *statement.stored)))
    return (statement.target,)


def flat(body: Sequence[st.Statement | st.Loop]) -> Iterator[st.Statement]:
    """Statements in textual order."""
    for item in body:
        yield from item.body if isinstance(item, st.Loop) else (item,)


def unrolled(body: Sequence[st.Statement | st.Loop]) -> Iterator[tuple[st.Statement, int | None]]:
    """Statements in the order in which they run, each with the value of the loop index."""
    for item in body:
        if isinstance(item, st.Loop):
            for k in range(item.start, item.stop, item.step):
                yield from ((statement, k) for statement in item.body)
        else:
            yield item, None


def absolute(ref: Ref, k: int | None) -> tuple[str, int | None]:
    """Family and index that a reference means at loop index k."""
    if ref.subscript is None:
        return ref.family, None
    return ref.family, ref.subscript.offset + (k if ref.subscript.relative and k is not None else 0)
