"""Entries of fixed tables: a formula of their indices, or numbers that are given one by one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import TypeAlias

import numpy as np

from sifrc.ir.arithmetic import Arithmetic, Array
from sifrc.scalar.function import ScalarFunction

__all__ = ["Entries", "Listed", "table_values"]


@dataclass(frozen=True)
class Listed:
    """Entries that are given.

    Args:
        numbers: in order, the last axis running fastest.
    """

    numbers: tuple[float, ...]


Entries: TypeAlias = ScalarFunction | Listed
"""What the entries of a table are; a function has an argument for the index along each axis, from 0."""


@singledispatch
def table_values(entries: Entries, sizes: tuple[int, ...], arithmetic: Arithmetic) -> Array:
    """The entries of a table as an array.

    Args:
        entries: what they are.
        sizes: of the axes.
        arithmetic: number system.

    Raises:
        TypeError: entries of another kind.

    Example:
        >>> import sympy
        >>> from sifrc.ir.arithmetic import NUMPY
        >>> row, column = sympy.symbols("row column", real=True)
        >>> table_values(ScalarFunction("sum", ("row", "column"), row + 10 * column), (2, 3), NUMPY)
        array([[ 0., 10., 20.],
               [ 1., 11., 21.]])
        >>> table_values(Listed((1.0, 0.5)), (2,), NUMPY)
        array([1. , 0.5])
    """
    raise TypeError(f"no table of {type(entries).__name__}")


@table_values.register
def _(entries: ScalarFunction, sizes: tuple[int, ...], arithmetic: Arithmetic) -> Array:
    indices = arithmetic.array(np.indices(sizes))
    named = dict(zip(entries.arguments, indices, strict=True))
    return arithmetic.apply(entries, (0,) * len(sizes), named)


@table_values.register
def _(entries: Listed, sizes: tuple[int, ...], arithmetic: Arithmetic) -> Array:
    # The decimal numbers of the spec, not the binary ones next to them.
    return arithmetic.array([repr(number) for number in entries.numbers]).reshape(sizes)
