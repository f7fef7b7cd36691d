"""Method state as arrays and JSON, so that a checkpoint needs no pickle.

A state is a tree of dicts, lists and tuples with None, bool, int, float, str, NumPy arrays and
NumPy scalars at the leaves. JSON keeps the tree; each array moves to a list of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import TrainingError

__all__ = ["StateTree", "decode_state", "encode_state"]

StateTree: TypeAlias = Any
"""A tree as above; its leaves differ from method to method."""


def encode_state(tree: StateTree) -> tuple[str, tuple[NDArray[Any], ...]]:
    """Split a state into JSON text and arrays.

    Raises:
        TrainingError: a leaf is none of the types above.

    Example:
        >>> text, arrays = encode_state({"step": 3, "factor": np.eye(2)})
        >>> text
        '{"dict": [["step", 3], ["factor", {"array": 0}]]}'
        >>> decode_state(text, arrays)["step"]
        3
    """
    arrays: list[NDArray[Any]] = []
    return json.dumps(_encode(tree, arrays, "state")), tuple(arrays)


def _encode(tree: StateTree, arrays: list[NDArray[Any]], place: str) -> Any:
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    if isinstance(tree, np.ndarray | np.generic):
        value = np.asarray(tree)
        if value.dtype.hasobject:
            raise TrainingError(f"{place} holds Python objects, which a checkpoint does not store")
        arrays.append(value)
        return {"scalar" if isinstance(tree, np.generic) else "array": len(arrays) - 1}
    if isinstance(tree, Mapping):
        # Pairs, since the keys may be integers, as in the state of a Torch optimizer.
        return {
            "dict": [
                [_encode(key, arrays, place), _encode(value, arrays, f"{place}[{key!r}]")]
                for key, value in tree.items()
            ]
        }
    if isinstance(tree, list | tuple):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [_encode(value, arrays, f"{place}[{k}]") for k, value in enumerate(tree)]}
    raise TrainingError(
        f"{place} is a {type(tree).__name__}, which a checkpoint does not store",
        hint="None, bool, int, float, str, NumPy arrays, and dicts, lists and tuples of them",
    )


def decode_state(text: str, arrays: Sequence[NDArray[Any]]) -> StateTree:
    """The inverse of :func:`encode_state`.

    Raises:
        TrainingError: the text does not describe a state.
    """
    try:
        return _decode(json.loads(text), arrays)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise TrainingError(f"the state in the checkpoint is damaged: {error}") from error


def _decode(node: Any, arrays: Sequence[NDArray[Any]]) -> StateTree:
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    return _DECODERS[kind](content, arrays)


_DECODERS: Mapping[str, Callable[[Any, Sequence[NDArray[Any]]], StateTree]] = MappingProxyType(
    {
        "array": lambda index, arrays: arrays[index],
        "scalar": lambda index, arrays: arrays[index][()],
        "dict": lambda pairs, arrays: {_decode(k, arrays): _decode(v, arrays) for k, v in pairs},
        "list": lambda items, arrays: [_decode(item, arrays) for item in items],
        "tuple": lambda items, arrays: tuple(_decode(item, arrays) for item in items),
    }
)
