"""What makes a statement well formed: a rule for each kind, read by the validator."""

from __future__ import annotations

from functools import singledispatch

from sifrc.ir.quantity import Storage
from sifrc.lower import statements as st
from sifrc.lower.access import numbers_of, targets_of
from sifrc.lower.convolutions import as_contraction
from sifrc.lower.where import Position

__all__ = ["check_statement"]

_SPECTRAL = ("positive", "absolute", "definite")
_UNBOUNDED = ("refuse", "absolute")


def check_statement(position: Position) -> None:
    """Check labels, sizes, bindings and what is written of one statement.

    Raises:
        ProgramError: with the function and the statement.
        TypeError: an unknown statement.
    """
    for target in targets_of(position.statement):
        name = target.ref.family
        position.require(name in position.families, f"no family {name}")
        storage = position.families[name].storage
        position.require(storage in _WRITTEN, f"{name} is {storage.value} and cannot be written")
        position.distinct(target.labels, name)
        position.require(not target.changes, f"{name} is written in another shape")
    _check(position.statement, position)
    statement = position.statement
    entries = isinstance(statement, st.Kernel | st.Sum)
    for load in numbers_of(statement):
        position.numbers(load, entries=entries)


_WRITTEN = frozenset(
    {Storage.WORK, Storage.RESULT, Storage.PARAMETER, Storage.BUFFER, Storage.MEMORY, Storage.DIRECTION}
)


@singledispatch
def _check(statement: st.Statement, at: Position) -> None:
    raise TypeError(f"no rule for the statement {type(statement).__name__}")


@_check.register
def _(statement: st.Fresh, at: Position) -> None:
    at.require(not statement.target.window, "a window is not an array of its own")
    if statement.like is not None:
        like, whole = at.sizes(statement.like), at.shape(statement.target)
        at.require(whole[len(whole) - len(like) :] == like, f"not like {statement.like.ref.family}")


@_check.register
def _(statement: st.Kernel, at: Position) -> None:
    at.distinct(statement.labels, "the nest")
    at.require(bool(statement.assigns), "no assignment")
    names = [name for name, _ in statement.loads]
    at.require(len(set(names)) == len(names), "a symbol is bound twice")
    at.labelled([*(load for _, load in statement.loads), *(a.target for a in statement.assigns)])
    for _, load in statement.loads:
        at.require(set(load.labels) <= set(statement.labels), f"{load.ref.family} has a label of no loop")
    for assign in statement.assigns:
        at.require(
            set(assign.target.labels) == set(statement.labels),
            f"{assign.target.ref.family} is not written at every entry",
        )
        at.bound(assign.value, statement.loads)


@_check.register
def _(statement: st.Sum, at: Position) -> None:
    labels = (*statement.target.labels, *statement.over)
    at.require(bool(statement.over), "a sum over nothing")
    at.distinct(labels, "the sum")
    sizes = at.labelled([*(load for _, load in statement.loads), statement.target])
    at.require(set(sizes) <= set(labels), f"labels {', '.join(sorted(set(sizes) - set(labels)))} of no loop")
    at.require(set(statement.over) <= set(sizes), "a label that nothing has")
    at.bound(statement.value, statement.loads)


@_check.register
def _(statement: st.Contract, at: Position) -> None:
    left, right = statement.left, statement.right
    at.labelled([left, right, statement.target])
    both = set(left.labels) | set(right.labels)
    at.require(set(statement.target.labels) <= both, "a label of the target that no operand has")
    summed = both - set(statement.target.labels)
    at.require(summed <= set(left.labels) & set(right.labels), "a label is summed in one operand")
    at.distinct(left.labels, left.ref.family)
    at.distinct(right.labels, right.ref.family)
    at.scalar(*(load for _, load in statement.loads))
    at.bound(statement.scale, statement.loads)


@_check.register
def _(statement: st.Convolve, at: Position) -> None:
    at.require(statement.written in ("image", "kernel", "output"), f"'{statement.written}' is written")
    for reading in statement.axes:
        for load, label, size in zip(
            (statement.image, statement.output, statement.kernel), reading.labels, reading.sizes, strict=True
        ):
            found = at.labelled([load]).get(label)
            at.require(found == size, f"label {label} of {load.ref.family} is {found}, not {size}")
    _check(as_contraction(statement), at)


@_check.register
def _(statement: st.Put, at: Position) -> None:
    operand, classes, target = statement.operand, statement.classes, statement.target
    sizes = at.labelled([operand, classes, target])
    at.distinct(operand.labels, operand.ref.family)
    at.require(
        statement.at in target.labels and statement.at in sizes, f"{statement.at} is no label of the target"
    )
    at.require(statement.at not in (*operand.labels, *classes.labels), "a label of classes is in an operand")
    at.require(set(classes.labels) <= set(operand.labels), "a place of the classes that the operand lacks")
    rest = {label for label in target.labels if label != statement.at}
    at.require(rest | set(classes.labels) == set(operand.labels), "operand and target differ in labels")
    at.classes(classes)
    at.scalar(*(load for _, load in statement.loads))
    at.bound(statement.scale, statement.loads)


@_check.register(st.LogSumExpOver)
@_check.register(st.MaximumOver)
def _(statement: st.LogSumExpOver | st.MaximumOver, at: Position) -> None:
    at.labelled([statement.operand, statement.target])
    at.require(statement.over in statement.operand.labels, f"{statement.over} is no label of the operand")
    left = tuple(label for label in statement.operand.labels if label != statement.over)
    at.require(statement.target.labels == left, f"the target is not over ({', '.join(left)})")


@_check.register(st.LogSoftmaxOver)
@_check.register(st.ArgMaxOver)
def _(statement: st.LogSoftmaxOver | st.ArgMaxOver, at: Position) -> None:
    at.labelled([statement.operand, statement.target])
    at.same(statement.operand, statement.target)
    at.require(statement.over in statement.operand.labels, f"{statement.over} is no label of the operand")


@_check.register
def _(statement: st.LargestPosition, at: Position) -> None:
    sizes = at.labelled([statement.image, statement.target])
    count = len(statement.axes)
    read, places = (tuple(axis.labels[n] for axis in statement.axes) for n in (0, 1))
    at.distinct(statement.image.labels, statement.image.ref.family)
    at.require(bool(count) and statement.image.labels[-count:] == read, "the image has other last axes")
    before = statement.image.labels[:-count]
    at.require(statement.target.labels == (*before, *places), "the target has no place for every window")
    at.classes(statement.target)
    for axis in statement.axes:
        found = tuple(sizes.get(label) for label in axis.labels[:2])
        at.require(found == axis.sizes[:2], f"an axis has the sizes {found}, not {axis.sizes[:2]}")
        at.require(axis.stride > 0 and axis.dilation > 0, "windows that do not go on")


@_check.register
def _(statement: st.SolveSystem, at: Position) -> None:
    at.square(statement.matrix)
    at.labelled([statement.rhs, statement.target])
    at.same(statement.rhs, statement.target)
    *lead, row, _ = statement.matrix.labels
    count = len(lead)
    of_rows = at.labelled([statement.matrix])[row]
    sides = at.sizes(statement.rhs)
    at.require(
        statement.rhs.labels[:count] == tuple(lead) and len(sides) in (count + 1, count + 2),
        f"{statement.rhs.ref.family} has no right side for every matrix",
    )
    at.require(sides[count] == of_rows, f"{statement.rhs.ref.family} has {sides[count]} rows, not {of_rows}")
    at.require(not statement.checked or statement.guard is not None, "a checked system without a code")
    if statement.guard is not None:
        at.code(statement.guard)


@_check.register(st.SolveSylvester)
@_check.register(st.SolveKronecker)
def _(statement: st.SolveSylvester | st.SolveKronecker, at: Position) -> None:
    at.square(statement.left)
    at.square(statement.right)
    at.labelled([statement.rhs, statement.target])
    at.same(statement.rhs, statement.target)
    wanted = (at.sizes(statement.left)[-1], at.sizes(statement.right)[-1])
    at.require(at.sizes(statement.rhs) == wanted, f"the right side is not {wanted[0]} by {wanted[1]}")
    if isinstance(statement, st.SolveKronecker):
        at.scalar(statement.shift)


@_check.register
def _(statement: st.SolveCubic, at: Position) -> None:
    at.square(statement.matrix)
    at.labelled([statement.rhs, statement.third, statement.target])
    at.same(statement.rhs, statement.third, statement.target)
    at.require(at.sizes(statement.rhs) == at.sizes(statement.matrix)[:1], "right side and matrix differ")
    at.scalar(statement.strength)
    at.require(statement.unbounded in _UNBOUNDED, f"unbounded is '{statement.unbounded}'")


@_check.register
def _(statement: st.MatrixFunction, at: Position) -> None:
    at.square(statement.matrix)
    at.labelled([statement.target])
    at.require(at.sizes(statement.target) == at.sizes(statement.matrix), "target and matrix differ")
    at.require(statement.kind in _SPECTRAL, f"kind is '{statement.kind}'")


@_check.register
def _(statement: st.ConjugateGradients, at: Position) -> None:
    at.require(bool(statement.unknowns), "no unknown")
    for unknown in statement.unknowns:
        loads = (unknown.solution, unknown.rhs, unknown.residual, unknown.direction, unknown.product)
        sizes = [at.sizes(load) for load in loads]
        at.require(len(set(sizes)) == 1, f"arrays of {unknown.solution.ref.family} differ in shape")
    at.scalar(statement.limit, statement.tolerance, statement.iterations, statement.remaining)
    own = {load.ref for u in statement.unknowns for load in (u.solution, u.residual, u.direction, u.rhs)}
    made = {target.ref for part in statement.body for target in targets_of(part)}
    at.require(not own & made, "the operator writes what the search writes")
    missing = [u.product.ref.family for u in statement.unknowns if u.product.ref not in made]
    at.require(not missing, f"nothing computes {', '.join(missing)}")
    for part in statement.body:
        check_statement(Position(at.program, at.families, at.function, at.loop, part))


@_check.register
def _(statement: st.Steps, at: Position) -> None:
    at.require(statement.count > 0, "no step")
    own = {target.ref for part in statement.body for target in targets_of(part)}
    for now, whole in statement.stored:
        at.require(now.ref in own, f"nothing computes {now.ref.family}")
        at.require(
            not now.window and tuple(a for a in whole.labels if a != statement.over) == now.labels,
            f"{now.ref.family} is no step of {whole.ref.family}",
        )
        sizes = at.labelled([now, whole])
        at.require(sizes.get(statement.over) == statement.count, f"{whole.ref.family} has other steps")
    there = own | {before.ref for _, before in statement.carried}
    for now, before in statement.carried:
        at.require(now.ref in there, f"nothing computes {now.ref.family}")
        at.same(now, before)
    for part in statement.body:
        check_statement(Position(at.program, at.families, at.function, at.loop, part))


@_check.register
def _(statement: st.Guard, at: Position) -> None:
    at.labelled([statement.operand])
    first = statement.code.offset + (at.loop or 0 if statement.code.relative else 0)
    sizes = at.sizes(statement.operand)
    at.require(not statement.rows or (bool(sizes) and sizes[0] is not None), "no rows")
    at.code(first)
    at.code(first + (sizes[0] or 1) - 1 if statement.rows else first)
