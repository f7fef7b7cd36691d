"""Tensors of a traced module as states of a spec: which axis of a state each dimension is made of.

A module moves, splits and joins dimensions, that of the samples among them, where a spec has layers over
axes without samples. So every dimension of a tensor is a tuple of atoms, axes that are not split further, and
so is every axis of the state that holds its numbers: views and permutations change the dimensions alone, and
become layers only where a layer needs another order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import TypeAlias

__all__ = [
    "SAMPLES",
    "Atom",
    "Atoms",
    "Held",
    "Value",
    "around",
    "broadcast",
    "expanded",
    "fresh",
    "permuted",
    "renewed",
    "size_of",
    "viewed",
]

_NONE: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Atom:
    """An axis that is not split further; two are one only if they are the same object.

    Args:
        size: its number of entries; 0 of the samples.
    """

    size: int


Atoms: TypeAlias = tuple[Atom, ...]
SAMPLES = Atom(0)
"""The samples of a batch, however many."""


@dataclass(frozen=True)
class Held:
    """A tensor that a module keeps, as long as no layer reads it.

    Args:
        name: within the module.
        trained: whether it is a parameter that is not frozen.
    """

    name: str
    trained: bool


@dataclass(frozen=True)
class Value:
    """A tensor of a module: a state, and how its numbers are arranged.

    Args:
        source: name of the layer or of the input that is this state; or what the module keeps.
        layout: atoms of each axis of the state, without samples.
        dims: atoms of each dimension of the tensor; none for a dimension of one entry. Atoms that are not in
            the layout repeat the same numbers.
        whole: whether it is of whole numbers.
    """

    source: str | Held
    layout: tuple[Atoms, ...]
    dims: tuple[Atoms, ...]
    whole: bool = False

    @property
    def of_samples(self) -> bool:
        """Whether a dimension has samples."""
        return any(SAMPLES in atoms for atoms in self.dims)

    @property
    def held(self) -> frozenset[Atom]:
        """Atoms of the layout."""
        return frozenset(atom for atoms in self.layout for atom in atoms)

    def sizes(self) -> tuple[int, ...]:
        """Of the dimensions, with the samples as one."""
        return tuple(size_of(atoms) for atoms in self.dims)

    def axis_of(self, atoms: Atoms) -> int | None:
        """The axis of the state that is made of these atoms; None where there is none."""
        return next((n for n, axis in enumerate(self.layout) if axis == atoms), None)

    def split(self, atom: Atom, first: int) -> Value:
        """With an atom as two, the first of some size."""
        parts = (Atom(first), Atom(atom.size // first))

        def apart(groups: tuple[Atoms, ...]) -> tuple[Atoms, ...]:
            return tuple(
                tuple(part for each in atoms for part in (parts if each is atom else (each,)))
                for atoms in groups
            )

        return replace(self, layout=apart(self.layout), dims=apart(self.dims))


def size_of(atoms: Iterable[Atom]) -> int:
    """Entries of some atoms together; samples count as one."""
    return prod(atom.size or 1 for atom in atoms)


def fresh(sizes: Iterable[int]) -> tuple[Atoms, ...]:
    """New atoms for axes of some sizes, none for one entry."""
    return tuple((Atom(size),) if size > 1 else () for size in sizes)


def around(atoms: Atoms) -> tuple[int, int]:
    """Entries before and after the samples of a dimension that has them."""
    at = atoms.index(SAMPLES)
    return size_of(atoms[:at]), size_of(atoms[at + 1 :])


def renewed(dims: Sequence[Atoms], sizes: Mapping[int, int] = _NONE) -> tuple[Atoms, ...]:
    """New atoms for dimensions, the samples where they are.

    Args:
        dims: of a tensor.
        sizes: of dimensions, from 0, that have other sizes; none of samples.
    """
    found: list[Atoms] = []
    for n, atoms in enumerate(dims):
        if SAMPLES in atoms:
            before, after = fresh(around(atoms))
            found.append((*before, SAMPLES, *after))
        else:
            found += fresh([sizes.get(n, size_of(atoms))])
    return tuple(found)


def permuted(value: Value, order: Sequence[int]) -> Value:
    """The dimensions in another order."""
    return replace(value, dims=tuple(value.dims[n] for n in order))


def viewed(value: Value, sizes: Sequence[tuple[int, bool]]) -> Value | None:
    """The same numbers with other dimensions.

    Args:
        value: a tensor.
        sizes: of the new dimensions, without samples, and whether each has these.

    Returns:
        None where a dimension cuts through an axis, so that only a layer can do it.

    Example:
        >>> pair = Atom(4), Atom(6)
        >>> value = Value("h", ((pair[0],), (pair[1],)), ((SAMPLES,), (pair[0],), (pair[1],)))
        >>> found = viewed(value, [(1, True), (4, False), (2, False), (3, False)])
        >>> found.sizes(), [len(axis) for axis in found.layout]
        ((1, 4, 2, 3), [1, 2])
    """
    left = [atom for atoms in value.dims for atom in atoms]
    dims: list[Atoms] = []
    for size, samples in sizes:
        taken: list[Atom] = []
        while size > 1 or samples:
            if not left:
                return None
            atom = left[0]
            if atom is SAMPLES:
                if not samples:
                    return None
                samples = False
            elif size % atom.size == 0:
                size //= atom.size
            elif atom.size % size == 0 and size > 1:
                value = value.split(atom, size)
                parts = _parts_after(value, dims, taken)
                left[:1] = parts[:2]
                continue
            else:
                return None
            taken.append(left.pop(0))
        dims.append(tuple(taken))
    return replace(value, dims=tuple(dims)) if not left else None


def _parts_after(value: Value, dims: Sequence[Atoms], taken: Sequence[Atom]) -> list[Atom]:
    """Atoms of all dimensions after those that new ones have already."""
    flat = [atom for atoms in value.dims for atom in atoms]
    return flat[sum(map(len, dims)) + len(taken) :]


def expanded(value: Value, sizes: Sequence[tuple[int, bool]]) -> Value:
    """With dimensions of one entry repeated, and new ones before the others.

    Args:
        value: a tensor.
        sizes: of all dimensions, without samples, and whether each has these.
    """
    missing = len(sizes) - len(value.dims)
    dims = ((),) * missing + value.dims
    new = []
    for atoms, (size, samples) in zip(dims, sizes, strict=True):
        if atoms or (size == 1 and not samples):
            new.append(atoms)
        else:
            new.append(((SAMPLES,) if samples else ()) + ((Atom(size),) if size > 1 else ()))
    return replace(value, dims=tuple(new))


def broadcast(values: Sequence[Value]) -> list[tuple[Atoms, ...]]:
    """Dimensions of tensors beside each other, as many for all; those that are missing have one entry."""
    rank = max(len(value.dims) for value in values)
    return [((),) * (rank - len(value.dims)) + value.dims for value in values]
