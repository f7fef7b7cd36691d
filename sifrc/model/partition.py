"""Partitions of the parameter tensors into groups, one step size for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from types import MappingProxyType

from sifrc.spec.layers import parameter_shapes
from sifrc.spec.partition import groups_of
from sifrc.spec.types import Spec

__all__ = ["Partition", "partition_of"]


@dataclass(frozen=True)
class Partition:
    """Groups of parameter tensors, in the order of their first tensor.

    Args:
        names: of the groups.
        members: names of the tensors of each group, as users see them (``fc1.weight``).
        counts: of the discrete partition, where every number is a group of its own: how many numbers each
            tensor has; names and members are then those of the tensors. Empty otherwise.

    Example:
        >>> Partition(("all",), (("fc1.weight", "fc1.bias"),)).position["fc1.bias"]
        0
        >>> single = Partition(("fc1.weight", "fc1.bias"), (("fc1.weight",), ("fc1.bias",)), (6, 2))
        >>> single.discrete, single.size, single.position["fc1.bias"]
        (True, 8, 6)
    """

    names: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]
    counts: tuple[int, ...] = ()

    @property
    def discrete(self) -> bool:
        """Whether every number is a group of its own."""
        return bool(self.counts)

    @property
    def size(self) -> int:
        """S, the number of groups."""
        return sum(self.counts) if self.discrete else len(self.names)

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Tensor -> number of its group, from 0; of its first group in the discrete partition."""
        starts = accumulate(self.counts, initial=0) if self.discrete else range(self.size)
        pairs = zip(starts, self.members, strict=False)
        return MappingProxyType({tensor: start for start, tensors in pairs for tensor in tensors})


def partition_of(spec: Spec) -> Partition:
    """The partition that a spec asks for; ``Spec.partition`` was checked when it was made.

    Example:
        >>> from sifrc.spec import build_spec
        >>> layers = [{"name": f"fc{k}", "type": "dense", "units": 2} for k in (1, 2, 3)]
        >>> spec = build_spec({"sifrc": 1, "name": "tiny", "loss": "mse", "partition": "weights-biases",
        ...     "network": {"input": {"size": 4}, "layers": layers}})
        >>> partition_of(spec).names, partition_of(spec).members[0]
        (('weights', 'biases'), ('fc1.weight', 'fc2.weight', 'fc3.weight'))
    """
    groups = groups_of(spec.partition, spec.layers)
    return Partition(
        tuple(name for name, _ in groups),
        tuple(tensors for _, tensors in groups),
        _counts(spec) if spec.partition.kind == "discrete" else (),
    )


def _counts(spec: Spec) -> tuple[int, ...]:
    """Numbers in each tensor, in the order of the network."""
    return tuple(prod(shape) for shape in parameter_shapes(spec.layers, spec.shapes).values())
