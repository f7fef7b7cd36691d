"""How families become variables of generated code.

A family with an index is a tuple of arrays, and the subscript of the equations is the position in it;
positions without a member hold an empty array. Members of one rank go together, because compiled code
can only loop over arrays of one type: a family of several ranks becomes several variables. Numbers
(rank 0) of all indices share one array of one dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from sifrc.errors import BackendError
from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, loads_of, targets_of, unrolled
from sifrc.lower.arrays import Family, Load
from sifrc.lower.program import Function, Program
from sifrc.lower.reuse import aliases

__all__ = ["Group", "Layout", "is_array", "is_scalar", "rank_name"]

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
        """Whether the variable is a tuple of arrays; numbers are one array, but those that a user gives."""
        given = self.family.storage is Storage.BUFFER
        return self.members[0][0] is not None and (self.rank > 0 or given)

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
        taken = {family.code}
        for rank in sorted(by_rank, reverse=True):
            name = family.code
            if rank != max(by_rank):
                per_sample = self.batched and None in by_rank[rank][0][1]
                word = rank_name(rank - per_sample)
                # A vector of every sample has the dimensions of a matrix, beside one vector of the batch.
                name = next(n for n in (f"{name}_{word}", f"{name}_batch_{word}") if n not in taken)
                taken.add(name)
            yield Group(family, name, tuple(by_rank[rank]))

    @cached_property
    def merged(self) -> Mapping[str, str]:
        """Families of intermediate arrays that lie in the arrays of another family."""
        return aliases(self.program)

    def group(self, family: str, index: int | None) -> Group:
        """The variable that holds a member."""
        for group in self.families[self.merged.get(family, family)]:
            if any(known == index for known, _ in group.members):
                return group
        raise BackendError(f"the program has no '{family}' with subscript {index}")

    def shape(self, load: Load, k: int | None) -> Shape:
        """Shape of what a load refers to; ``k`` is the value of the loop index."""
        family, index = absolute(load.ref, k)
        return dict(self.group(family, index).members)[index]

    def used(self, function: Function) -> list[Group]:
        """Variables that a function takes, what it reads first."""
        touched: dict[str, set[int | None]] = {}
        for statement, k in unrolled(function.body):
            for load in (*loads_of(statement), *targets_of(statement)):
                family, index = absolute(load.ref, k)
                touched.setdefault(self.merged.get(family, family), set()).add(index)
        groups = []
        names = (self.merged.get(name, name) for name in (*function.reads, *function.writes))
        for name in dict.fromkeys((*names, *touched)):
            if self.program.family(name).storage in _GLOBALS:
                continue
            for group in self.families[name]:
                if any(index in touched.get(name, set()) for index, _ in group.members):
                    groups.append(group)
        return groups


def rank_name(rank: int) -> str:
    """What arrays of so many dimensions are called."""
    return _RANK_NAMES[rank] if rank < len(_RANK_NAMES) else f"{_RANK_NAMES[-1]}{rank}"


def is_array(family: Family) -> bool:
    """Whether its members lie in arrays that functions take."""
    return family.storage not in _GLOBALS | _SCALARS


def is_scalar(family: Family) -> bool:
    """Whether it is a number that functions take as such."""
    return family.storage in _SCALARS
