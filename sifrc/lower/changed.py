"""Arrays of NumPy in another shape, or read at other places or at classes, for the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sifrc.ir.arithmetic import NumberSystem
from sifrc.lower.arrays import Change, Counted, OneHot, Ref, Reshape, Take
from sifrc.lower.statements import Reading

__all__ = ["changed", "classes_from", "largest_positions", "spread"]

Array: TypeAlias = npt.NDArray[Any]


def changed(array: Array, change: Change, classes: Callable[[Ref], Array], arithmetic: NumberSystem) -> Array:
    """The array as it is after a change.

    Args:
        array: before it.
        change: what is made of it.
        classes: arrays of integers that it may be read at.
        arithmetic: number system of what is made anew.
    """
    if isinstance(change, OneHot):
        return arithmetic.array((array[..., None] == np.arange(change.size)).astype(float))
    if isinstance(change, Counted):
        return arithmetic.array((array >= 0).astype(float))
    if isinstance(change, Take):
        return _taken(array, change, classes(change.classes))
    shape = [n or 0 for n in change.of(array.shape)]
    if isinstance(change, Reshape):
        return array.reshape(shape)
    places = np.asarray(change.places(array.shape[change.position]))
    taken = np.moveaxis(np.take(array, np.maximum(places, 0), change.position), change.position, -1)
    kept = np.where(places >= 0, taken, arithmetic.array(np.zeros(())))
    return np.moveaxis(kept, -1, change.position).reshape(shape)


def _taken(array: Array, take: Take, classes: Array) -> Array:
    """A dimension read at classes; dimensions that run along with each other have the same number."""
    old = list(range(array.ndim))
    numbers = [array.ndim + n if along is None else along for n, along in enumerate(take.along)]
    out = [*old[: take.position], *take.new(tuple(numbers)), *old[take.position + 1 :]]
    sizes = dict(zip(old, array.shape, strict=True)) | dict(zip(numbers, classes.shape, strict=True))
    at = dict(zip(out, np.indices([sizes[number] for number in out]), strict=True))
    chosen = classes[tuple(at[number] for number in numbers)]
    return np.asarray(array[tuple(chosen if n == take.position else at[n] for n in old)])


def classes_from(vectors: Array) -> Array:
    """Integers from vectors with a one along the last axis; -1 for zeros alone.

    Example:
        >>> classes_from(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
        array([ 1, -1])
    """
    numbers = vectors.astype(float)
    return np.asarray(np.where(numbers.any(axis=-1), numbers.argmax(axis=-1), -1))


def largest_positions(image: Array, axes: Sequence[Reading]) -> Array:
    """Where the window of each place has its largest entry, as a position in the last axes as one.

    Example:
        >>> side_by_side = Reading(("i", "j", "l"), (4, 2, 2), stride=2, dilation=1, padding=0)
        >>> largest_positions(np.array([3.0, 3.0, 1.0, 2.0]), [side_by_side])
        array([0, 3])
    """
    sizes = [axis.sizes[0] for axis in axes]
    found, best, seen = (np.zeros(0, dtype=np.int64), np.zeros(0), np.asarray(False))
    for entry in np.ndindex(*(axis.sizes[2] for axis in axes)):
        places = [
            axis.stride * np.arange(axis.sizes[1]) + axis.dilation * index - axis.padding
            for axis, index in zip(axes, entry, strict=True)
        ]
        grid = np.meshgrid(*places, indexing="ij")
        there = np.all([(own >= 0) & (own < size) for own, size in zip(grid, sizes, strict=True)], axis=0)
        inside = [np.clip(own, 0, size - 1) for own, size in zip(grid, sizes, strict=True)]
        values = image[(..., *inside)]
        position = np.broadcast_to(np.ravel_multi_index(tuple(inside), sizes), values.shape)
        if not seen.ndim:
            found, best, seen = position, values, there
        else:
            later = there & (~seen | (values > best).astype(bool))
            found, best, seen = np.where(later, position, found), np.where(later, values, best), seen | there
    return found


def spread(array: Array, have: tuple[str, ...], want: tuple[str, ...]) -> Array:
    """An array over some labels as one over others, with length one where it lacks a label."""
    if len(set(have)) < len(have):  # a repeated label is a diagonal
        kept = tuple(dict.fromkeys(have))
        array, have = np.einsum(array, list(map(have.index, have)), list(map(have.index, kept))), kept
    order = [have.index(label) for label in want if label in have]
    moved = np.transpose(array, order) if array.ndim else array
    return moved.reshape(
        [moved.shape[[w for w in want if w in have].index(label)] if label in have else 1 for label in want]
    )
