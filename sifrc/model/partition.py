"""Partitions of the parameter tensors into groups, one step size for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from sifrc.model.types import Model

__all__ = ["Partition", "partition_of"]


@dataclass(frozen=True)
class Partition:
    """Groups of parameter tensors, in the order of their first tensor.

    Args:
        names: of the groups.
        members: names of the tensors of each group, as users see them (``fc1.weight``).

    Example:
        >>> Partition(("all",), (("fc1.weight", "fc1.bias"),)).position["fc1.bias"]
        0
    """

    names: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]

    @property
    def size(self) -> int:
        """S, the number of groups."""
        return len(self.names)

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Tensor -> number of its group, from 0."""
        return MappingProxyType({tensor: s for s, tensors in enumerate(self.members) for tensor in tensors})


def partition_of(model: Model) -> Partition:
    """Every tensor its own group."""
    names = tuple(name for owned in model.parameters for name, _ in owned.members)
    return Partition(names, tuple((name,) for name in names))
