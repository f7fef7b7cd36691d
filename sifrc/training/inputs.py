"""Samples as a network takes them: rows of a data set with the axes of the network's input."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

__all__ = ["input_shape", "shaped"]


def input_shape(module: Any) -> tuple[int, ...]:
    """Sizes of the axes that a sample has for a generated module, from its ``SPEC``.

    Returns:
        The sizes; nothing where there is one axis, so that a row of a data set is a sample as it is.

    Example:
        >>> from types import SimpleNamespace as Module
        >>> [input_shape(Module(SPEC={"network": {"input": {"size": n}}})) for n in ([2, 3], 6)]
        [(2, 3), ()]
    """
    found: Any = module.SPEC
    for key in ("network", "input", "size"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return tuple(found) if isinstance(found, list | tuple) else ()


def shaped(inputs: Any, shape: tuple[int, ...]) -> Any:
    """Samples with these axes, row-major, where as many entries have other ones; the same numbers.

    Args:
        inputs: samples (B, ...), an array or a tensor.
        shape: of a sample; nothing to leave all as they are.

    Returns:
        (B, *shape). What has another number of entries is left to the network, which refuses it.

    Example:
        >>> import numpy as np
        >>> shaped(np.zeros((5, 6)), (2, 3)).shape, shaped(np.zeros((5, 7)), (2, 3)).shape
        ((5, 2, 3), (5, 7))
    """
    own = tuple(inputs.shape[1:])
    if not shape or own == shape or prod(own) != prod(shape):
        return inputs
    return inputs.reshape((len(inputs), *shape))
