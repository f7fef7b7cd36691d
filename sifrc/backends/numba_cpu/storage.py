"""How families become variables of generated code.

A family with an index is a tuple of arrays, and the subscript of the equations is the position in it;
positions without a member hold an empty array. Members of one rank go together, because compiled code
can only loop over arrays of one type: a family of several ranks becomes several variables. Numbers
(rank 0) of all indices share one array of one dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

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
    SolveSylvester,
    SolveSystem,
    Statement,
    Storage,
    Subscript,
    Sum,
)

__all__ = ["Group", "Layout", "absolute", "flat", "loads_of", "statements_with_index", "targets_of"]

_RANK_NAMES = ("scalar", "vector", "matrix", "tensor")
_SCALARS = frozenset({Storage.HYPERPARAMETER})
_GLOBALS = frozenset({Storage.CONSTANT, Storage.IDENTITY})

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Group:
    """Members of one family and one rank: one variable.

    Args:
        family: whose members they are.
        name: the variable.
        members: index -> shape in this form, None is the batch.
    """

    family: Family
    name: str
    members: tuple[tuple[int | None, Shape], ...]

    @property
    def rank(self) -> int:
        """Number of dimensions of every member."""
        return len(self.members[0][1])

    @property
    def is_tuple(self) -> bool:
        """Whether the variable is a tuple of arrays."""
        return self.members[0][0] is not None and self.rank > 0

    @property
    def table(self) -> dict[int, Shape] | Shape:
        """What generated code allocates: shape by subscript, or one shape."""
        if self.is_tuple:
            return {index: shape for index, shape in self.members if index is not None}
        if self.rank == 0:
            return (1 + max((index for index, _ in self.members if index is not None), default=0),)
        return self.members[0][1]


@dataclass(frozen=True)
class Layout:
    """Variables of one form of a program.

    Args:
        program: of which form.
        batched: with a sample axis, or for one sample.
    """

    program: Program
    batched: bool

    @cached_property
    def families(self) -> Mapping[str, tuple[Group, ...]]:
        """Groups by family name, highest rank first."""
        found = {family.name: tuple(self._groups(family)) for family in self.program.families}
        names = [group.name for groups in found.values() for group in groups]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BackendError(f"two families of the program have the name '{twice[0]}'")
        return found

    def _groups(self, family: Family) -> Iterator[Group]:
        by_rank: dict[int, list[tuple[int | None, Shape]]] = {}
        for index, shape in family.shapes:
            own = shape if self.batched or shape[:1] != (None,) else shape[1:]
            by_rank.setdefault(len(own), []).append((index, own))
        for rank in sorted(by_rank, reverse=True):
            name = family.code
            if len(by_rank) > 1 and rank != max(by_rank):
                per_sample = self.batched and None in by_rank[rank][0][1]
                name = f"{family.code}_{_RANK_NAMES[rank - per_sample]}"
            yield Group(family, name, tuple(by_rank[rank]))

    def group(self, family: str, index: int | None) -> Group:
        """The variable that holds a member."""
        for group in self.families[family]:
            if any(known == index for known, _ in group.members):
                return group
        raise BackendError(f"the program has no '{family}' with subscript {index}")

    def shape(self, load: Load, k: int | None) -> Shape:
        """Shape of what a load refers to; ``k`` is the value of the loop index."""
        family, index = absolute(load, k)
        return dict(self.group(family, index).members)[index]

    def used(self, function: Function) -> list[Group]:
        """Variables that a function takes, what it reads first."""
        touched: dict[str, set[int | None]] = {}
        for statement, k in statements_with_index(function.body):
            for load in (*loads_of(statement), *targets_of(statement)):
                family, index = absolute(load, k)
                touched.setdefault(family, set()).add(index)
        groups = []
        for name in dict.fromkeys((*function.reads, *function.writes, *touched)):
            if self.program.family(name).storage in _GLOBALS:
                continue
            for group in self.families[name]:
                if any(index in touched.get(name, set()) for index, _ in group.members):
                    groups.append(group)
        return groups


def is_scalar(family: Family) -> bool:
    """Whether it is a number that functions take as such."""
    return family.storage in _SCALARS


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
    raise BackendError(f"the Numba backend has no rule for the statement {type(statement).__name__}")


def flat(body: Sequence[Statement | Loop]) -> Iterator[Statement]:
    """Statements in textual order."""
    for item in body:
        yield from item.body if isinstance(item, Loop) else (item,)


def statements_with_index(body: Sequence[Statement | Loop]) -> Iterator[tuple[Statement, int | None]]:
    """Statements in the order in which they run, each with the value of the loop index."""
    for item in body:
        if isinstance(item, Loop):
            for k in range(item.start, item.stop, item.step):
                yield from ((statement, k) for statement in item.body)
        else:
            yield item, None


def absolute(load: Load, k: int | None) -> tuple[str, int | None]:
    """Family and index that a load means at loop index k."""
    subscript = load.ref.subscript
    if subscript is None:
        return load.ref.family, None
    return load.ref.family, _value(subscript, k)


def _value(subscript: Subscript, k: int | None) -> int:
    return subscript.offset + (k if subscript.relative and k is not None else 0)
