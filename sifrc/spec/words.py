"""Words for sizes."""

from __future__ import annotations

__all__ = ["size_text"]


def size_text(shape: tuple[int, ...]) -> str:
    """Sizes of axes in words.

    Example:
        >>> size_text((10,)), size_text((28, 28))
        ('10', '28 x 28')
    """
    return " x ".join(map(str, shape))
