"""Arrays of NumPy in another shape, or read at other places or at classes, for the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sifrc.ir.arithmetic import NumberSystem
from sifrc.lower.arrays import Change, Counted, OneHot, Ref, Reshape, Take

__all__ = ["changed", "classes_from"]

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
