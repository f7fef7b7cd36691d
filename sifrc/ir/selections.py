"""Constants that read axes: joined, taken apart, in windows."""

from __future__ import annotations

from math import prod

from sifrc.ir.nodes import Affine

__all__ = ["joined", "window"]


def joined(sizes: tuple[int, ...]) -> Affine:
    """1 where the first index is the position of the others, the last of which runs fastest.

    Example:
        >>> joined((3, 4)).sizes, joined((3, 4)).coefficients
        ((12, 3, 4), (1, -4, -1))
    """
    strides = (-prod(sizes[n + 1 :]) for n in range(len(sizes)))
    return Affine((prod(sizes), *sizes), (1, *strides))


def window(
    size: int, places: int, kernel: int, stride: int = 1, dilation: int = 1, padding: int = 0
) -> Affine:
    """1 where an index is in the window of a place: index = stride · place + dilation · entry − padding.

    Args:
        size: of the axis that is read.
        places: number of windows.
        kernel: entries of a window.
        stride: from window to window.
        dilation: from entry to entry.
        padding: entries before the axis, which are zero.

    Example:
        >>> window(8, 4, 3, stride=2, padding=1)
        Affine(sizes=(8, 4, 3), coefficients=(1, -2, -1), offset=-1)
    """
    return Affine((size, places, kernel), (1, -stride, -dilation), -padding)
