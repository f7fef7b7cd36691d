"""Entries of a dimension that fixed indices name: runs of equal steps, one inside of the other."""

from __future__ import annotations

from dataclasses import replace

import torch

from sifrc.importing.atoms import SAMPLES, Atom, Value, fresh, size_of, viewed
from sifrc.importing.calls import Call, Refused
from sifrc.importing.rules.shapes import sliced

__all__ = ["indexed", "runs_of"]


def indexed(call: Call, value: Value, dim: int, indices: torch.Tensor) -> Value:
    """Entries of a dimension, over the dimensions of the indices in its place.

    Raises:
        Refused: the indices are no start and some steps.
    """
    atoms = value.dims[dim]
    if SAMPLES in atoms:
        raise Refused("samples by fixed indices", "all of them")
    size = size_of(atoms)
    start, runs = runs_of([n % size for n in indices.flatten().tolist()])
    shape = fresh(int(n) for n in indices.shape)
    if len(runs) == 1 and runs[0][1] != 0 and len(indices.shape) == 1:
        count, step = runs[0]
        return sliced(call, value, dim, start, start + count * step, step)
    if len(set(indices.flatten().tolist())) == 1:
        # One entry for all of them.
        one = sliced(call, value, dim, start, start + 1)
        repeated = tuple((Atom(size_of(axis)),) if axis else () for axis in shape)
        return replace(one, dims=(*value.dims[:dim], *repeated, *value.dims[dim + 1 :]))
    sizes, steps = [run[0] for run in runs], [run[1] for run in runs]
    if 0 in steps or len(runs) > 6:
        raise Refused(
            "entries of a tensor by a table of indices without a rule",
            "indices that are a start and some steps, as those of relative positions",
        )
    stated, axes = call.apart(value, [dim])
    assert isinstance(stated.source, str)
    if not axes:
        raise Refused("entries of a dimension of one entry")
    name = call.layer("strided", stated.source, axis=axes[0] + 1, start=start, sizes=sizes, steps=steps)
    new = fresh(sizes)
    layout = (*stated.layout[: axes[0]], *new, *stated.layout[axes[0] + 1 :])
    whole = tuple(atom for axis in new for atom in axis)
    found = Value(name, layout, (*value.dims[:dim], whole, *value.dims[dim + 1 :]), value.whole)
    if len(shape) == 1:
        return found
    sizes_of = [(size_of(a), SAMPLES in a) for a in (*value.dims[:dim], *shape, *value.dims[dim + 1 :])]
    split = viewed(found, sizes_of)
    if split is None:
        raise Refused("entries of a tensor by a table of indices without a rule")
    return split


def runs_of(indices: list[int]) -> tuple[int, list[tuple[int, int]]]:
    """A start, and sizes and steps of runs inside each other, the last one running fastest.

    Example:
        >>> runs_of([4, 3, 2, 9, 8, 7])
        (4, [(2, 5), (3, -1)])
    """
    runs: list[tuple[int, int]] = []
    left = indices
    while len(left) > 1:
        step = left[1] - left[0]
        count = 1
        while count < len(left) and left[count] - left[count - 1] == step:
            count += 1
        while len(left) % count or any(
            left[n + k] - left[n] != k * step for n in range(0, len(left), count) for k in range(count)
        ):
            count -= 1
        if count == 1:
            return indices[0], [(len(indices), 0)]
        runs.insert(0, (count, step))
        left = left[::count]
    return indices[0], runs or [(1, 1)]
