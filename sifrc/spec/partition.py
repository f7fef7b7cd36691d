"""Words for partitions of the parameter tensors, and the groups that each word makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeAlias

from sifrc.spec.layers import owned_by
from sifrc.spec.types import LayerSpec, PartitionKind, PartitionSpec

__all__ = ["COUNTED", "WORDS", "Group", "groups_of", "in_order", "largest_count", "owners", "tensor_names"]

Group: TypeAlias = tuple[str, tuple[str, ...]]
"""The name of a group and its tensors."""

WORDS: tuple[PartitionKind, ...] = ("canonical", "trivial", "weights-biases", "discrete")
"""Words that stand alone."""
COUNTED: tuple[PartitionKind, ...] = ("blocks", "alternate", "chunks")
"""Words that a number follows: ``blocks-2``."""


def owners(layers: Iterable[LayerSpec]) -> tuple[LayerSpec, ...]:
    """Layers with parameters of their own, in the order of the network."""
    return tuple(layer for layer in layers if owned_by(layer))


def tensor_names(layers: Iterable[LayerSpec]) -> tuple[str, ...]:
    """Names of the parameter tensors, in the order of the network.

    Example:
        >>> tensor_names([LayerSpec("fc", "dense", ("x",), 2), LayerSpec("act", "activation", ("fc",), 2)])
        ('fc.weight', 'fc.bias')
    """
    return tuple(name for layer in owners(layers) for name in _tensors(layer))


def largest_count(kind: str, layers: Iterable[LayerSpec]) -> int:
    """The largest K of a counted word: ``blocks`` and ``alternate`` leave the last layer out."""
    return len(owners(layers)) - (kind != "chunks")


def groups_of(partition: PartitionSpec, layers: Sequence[LayerSpec]) -> tuple[Group, ...]:
    """The groups of a partition, in the order of their first tensor.

    Args:
        partition: checked against these layers.
        layers: of the spec, in the order of the network.

    Example:
        >>> layers = [LayerSpec(f"fc{k}", "dense", ("x",), 2, bias=k == 1) for k in (1, 2, 3)]
        >>> for name, tensors in groups_of(PartitionSpec("blocks", 1), layers):
        ...     print(name, *tensors)
        block1_weights fc1.weight fc2.weight
        block1_biases fc1.bias
        final_weights fc3.weight
    """
    tensors, own = tensor_names(layers), owners(layers)
    count = partition.count
    match partition.kind:
        case "groups":
            groups: Iterable[Group] = partition.groups
        case "canonical" | "discrete":
            groups = [(name, (name,)) for name in tensors]
        case "trivial":
            groups = [("all", tensors)]
        case "weights-biases":
            groups = _split("", own)
        case "chunks":
            groups = _split_all("chunk", _consecutive(own, count))
        case "blocks":
            groups = [*_split_all("block", _consecutive(own[:-1], count)), *_split("final_", own[-1:])]
        case "alternate":
            classes = [own[:-1][start::count] for start in range(count)]
            groups = [*_split_all("block", classes), *_split("final_", own[-1:])]
    return in_order(groups, tensors)


def in_order(groups: Iterable[Group], tensors: Sequence[str]) -> tuple[Group, ...]:
    """Groups by their first tensor, and the tensors of each, in the order of ``tensors``.

    Example:
        >>> in_order([("late", ("c", "b")), ("early", ("a",))], "abc")
        (('early', ('a',)), ('late', ('b', 'c')))
    """
    place = {name: index for index, name in enumerate(tensors)}
    inside = [(name, tuple(sorted(members, key=place.__getitem__))) for name, members in groups]
    return tuple(sorted(inside, key=lambda group: place[group[1][0]]))


def _tensors(layer: LayerSpec) -> tuple[str, ...]:
    return tuple(name for owner in owned_by(layer) for name in owner.names(layer.name))


def _consecutive(layers: tuple[LayerSpec, ...], count: int) -> list[tuple[LayerSpec, ...]]:
    """As many runs as ``count``, as equal as possible, the longer ones first."""
    size, longer = divmod(len(layers), count)
    starts = [size * k + min(k, longer) for k in range(count + 1)]
    return [layers[start:end] for start, end in pairwise(starts)]


def _split(prefix: str, layers: Sequence[LayerSpec]) -> list[Group]:
    """All weights of some layers, and all their biases, if they have any."""
    names = tensor_names(layers)
    parts = {kind: tuple(name for name in names if name.endswith(f".{kind}")) for kind in ("weight", "bias")}
    groups = [(f"{prefix}weights", parts["weight"]), (f"{prefix}biases", parts["bias"])]
    return [(name, tensors) for name, tensors in groups if tensors]


def _split_all(word: str, runs: Iterable[Sequence[LayerSpec]]) -> list[Group]:
    return [group for k, run in enumerate(runs, start=1) for group in _split(f"{word}{k}_", run)]
