"""Names, subscripts and broadcasting: how a load of the program reads as a Torch expression.

A family with an index is a dict from its own subscript to a tensor, so that generated code has the
subscripts of the equations; a family without one is a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sifrc.errors import BackendError
from sifrc.lower.program import (
    Contract,
    Family,
    Function,
    Guard,
    Kernel,
    Load,
    LogSumExpOver,
    Loop,
    MatrixFunction,
    MaximumOver,
    Program,
    Ref,
    SolveSylvester,
    SolveSystem,
    Statement,
    Storage,
    Subscript,
    Sum,
)

__all__ = [
    "FLOATS",
    "Member",
    "Names",
    "absolute",
    "accesses",
    "aligned",
    "flat",
    "function_members",
    "loads_of",
    "targets_of",
    "unrolled",
]

FLOATS = frozenset({Storage.CONSTANT, Storage.HYPERPARAMETER})
"""Families that are Python numbers in generated code."""

Member = tuple[str, int | None]
"""Family name and absolute subscript."""


def targets_of(statement: Statement) -> tuple[Load, ...]:
    """What a statement writes."""
    if isinstance(statement, Kernel):
        return tuple(assign.target for assign in statement.assigns)
    return () if isinstance(statement, Guard) else (statement.target,)


def loads_of(statement: Statement) -> tuple[Load, ...]:
    """What a statement reads."""
    if isinstance(statement, Kernel | Sum):
        return tuple(load for _, load in statement.loads)
    if isinstance(statement, Contract):
        return (statement.left, statement.right, *(load for _, load in statement.loads))
    if isinstance(statement, LogSumExpOver | MaximumOver | Guard):
        return (statement.operand,)
    if isinstance(statement, SolveSystem):
        return (statement.matrix, statement.rhs)
    if isinstance(statement, SolveSylvester):
        return (statement.left, statement.right, statement.rhs)
    if isinstance(statement, MatrixFunction):
        return (statement.matrix,)
    raise BackendError(f"the Torch backend has no rule for the statement {type(statement).__name__}")


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


def absolute(ref: Ref, k: int | None) -> Member:
    """The member that a reference means at loop index k."""
    if ref.subscript is None:
        return ref.family, None
    return ref.family, ref.subscript.offset + (k if ref.subscript.relative and k is not None else 0)


def aligned(text: str, labels: tuple[str, ...], target: tuple[str, ...]) -> str:
    """A tensor over ``labels``, so that it broadcasts against one over ``target``.

    Example:
        >>> aligned("b", ("p",), ("p", "i")), aligned("b", ("i",), ("p", "i"))
        ('b[:, None]', 'b')
    """
    repeated = next((label for label in labels if labels.count(label) > 1), None)
    if repeated is not None:
        first, second = (n for n, label in enumerate(labels) if label == repeated)
        text = f"{text}.diagonal(dim1={first}, dim2={second})"
        labels = (*(label for label in labels if label != repeated), repeated)
    order = sorted(range(len(labels)), key=lambda n: target.index(labels[n]))
    if order != list(range(len(labels))):
        text += ".T" if len(order) == 2 else f".permute({', '.join(map(str, order))})"
    present = [label in labels for label in target]
    if True not in present:
        return text
    tail = present[present.index(True) :]
    return text if all(tail) else f"{text}[{', '.join(':' if here else 'None' for here in tail)}]"


@dataclass(frozen=True)
class Names:
    """How one function refers to arrays.

    Args:
        program: of which it is part.
        batched: with a sample axis.
        plain: families that are local variables, without a subscript.
    """

    program: Program
    batched: bool
    plain: frozenset[str] = frozenset()

    def family(self, load: Load) -> Family:
        """The family of a load."""
        return self.program.family(load.ref.family)

    def is_float(self, load: Load) -> bool:
        """Whether it is a Python number."""
        return self.family(load).storage in FLOATS

    def ref(self, ref: Ref) -> str:
        """Source text of an array, e.g. ``x[k - 1]``."""
        family = self.program.family(ref.family)
        code = family.code.upper() if family.storage is Storage.CONSTANT else family.code
        if ref.subscript is None or ref.family in self.plain:
            return code
        return f"{code}[{self.subscript(ref.subscript)}]"

    def subscript(self, value: Subscript) -> str:
        """Source text of a subscript: a number or ``k + offset``."""
        if not value.relative:
            return str(value.offset)
        return "k" if value.offset == 0 else f"k {'+' if value.offset > 0 else '-'} {abs(value.offset)}"

    def sizes(self, load: Load) -> dict[str, int | None]:
        """Label -> extent; None is the batch."""
        family = self.family(load)
        if not load.labels:
            return {}
        shapes = dict(family.shapes)
        subscript = load.ref.subscript
        index = None if subscript is None else subscript.offset
        # Inside a loop the extents differ from round to round.
        if subscript is not None and subscript.relative:
            return {}
        shape = shapes[index] if self.batched else tuple(n for n in shapes[index] if n is not None)
        return dict(zip(load.labels, shape, strict=True))


def accesses(statement: Statement) -> Iterator[tuple[Load, bool]]:
    """Loads and targets (True) in the order in which they happen."""
    if isinstance(statement, Kernel):
        table = dict(statement.loads)
        for assign in statement.assigns:
            used = {symbol.name for symbol in assign.value.free_symbols}
            yield from ((load, False) for name, load in table.items() if name in used)
            yield assign.target, True
    else:
        yield from ((load, False) for load in loads_of(statement))
        yield from ((target, True) for target in targets_of(statement))


def function_members(function: Function) -> tuple[tuple[Member, ...], tuple[Member, ...]]:
    """Members that a function reads before it writes them, and members that it writes, in order."""
    needed: dict[Member, None] = {}
    written: dict[Member, None] = {}
    for statement, k in unrolled(function.body):
        for load, is_target in accesses(statement):
            member = absolute(load.ref, k)
            if is_target:
                written.setdefault(member)
            elif member not in written:
                needed.setdefault(member)
    return tuple(needed), tuple(written)
