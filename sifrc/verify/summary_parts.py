"""Parts of a direction by groups of the parameters, and comparing what was found along them.

Groups are read from the spec, as the oracles read it. With few groups every entry is compared; with many,
sums of entries with random coefficients, which are derivatives along other directions, and some of the
diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations_with_replacement, permutations
from typing import Any

import numpy as np

from sifrc.ir.arithmetic import Array
from sifrc.spec.partition import groups_of
from sifrc.spec.types import Spec
from sifrc.verify.oracles.network import parameter_shapes

__all__ = ["FEW", "Along", "Coefficients", "compared", "parts_of", "remembered"]

FEW = 6
"""Up to this many groups every entry is compared."""
_PROBES = 3

Arrays = Mapping[str, Array]
Coefficients = Sequence[Array]
Along = Callable[[Sequence[Coefficients]], Sequence[Any]]
"""Mixed derivatives of the objective, each along Σ_s c_s u_s for coefficients c (S,); all of one order."""


def parts_of(spec: Spec, vector: Arrays) -> list[dict[str, Array]]:
    """The part u_s of a direction in each group: the tensors of the group, zeros in the others.

    Args:
        spec: with the partition.
        vector: direction by name.

    Example:
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "tiny", "loss": "mse", "network": {
        ...     "input": {"size": 2}, "layers": [{"name": "fc", "type": "dense", "units": 1}]}})
        >>> parts = parts_of(spec, {"fc.weight": np.ones((1, 2)), "fc.bias": np.ones(1)})
        >>> [[float(part[name].sum()) for name in part] for part in parts]
        [[2.0, 0.0], [0.0, 1.0]]
    """
    zeros = {name: 0 * value for name, value in vector.items()}
    found: list[dict[str, Array]] = []
    for _, tensors in groups_of(spec.partition, spec.layers):
        if spec.partition.kind != "discrete":
            found.append({**zeros, **{name: vector[name] for name in tensors}})
            continue
        (name,) = tensors
        for place in np.ndindex(parameter_shapes(spec)[name]):
            single = zeros[name].copy()
            single[place] = vector[name][place]
            found.append({**zeros, name: single})
    return found


def remembered(along: Along) -> Along:
    """The same derivatives, each computed once: summaries of several orders are compared with them.

    Example:
        >>> calls = []
        >>> def along(many):
        ...     calls.append(len(many))
        ...     return [float(c.sum()) for (c,) in many]
        >>> known = remembered(along)
        >>> known([[np.ones(2)]]), known([[np.zeros(2)], [np.ones(2)]]), calls
        ([2.0], [0.0, 2.0], [1, 1])
    """
    values: dict[tuple[bytes, ...], Any] = {}

    def known(many: Sequence[Coefficients]) -> list[Any]:
        keys = [tuple(c.tobytes() for c in each) for each in many]
        missing = {key: each for key, each in zip(keys, many, strict=True) if key not in values}
        if missing:
            values.update(zip(missing, along([*missing.values()]), strict=True))
        return [values[key] for key in keys]

    return known


def compared(
    values: Array, order: int, full: bool, along: Along, seed: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Numbers of a summary, and what they must be.

    Args:
        values: (S,), (S, S), or of order 3 the diagonal (S,) or all of it (S, S, S).
        order: of the derivatives.
        full: whether it is all of order 3.
        along: of the oracle.
        seed: of coefficients.
    """
    size = len(values)
    units = np.eye(size)
    generator = np.random.default_rng(seed)
    probes = [generator.normal(size=size) / np.sqrt(size) for _ in range(_PROBES)]
    ours: list[Any] = []
    places: list[Coefficients] = []
    if order == 3 and not full:
        for place in range(size) if size <= FEW else generator.choice(size, FEW, replace=False):
            ours.append(values[place])
            places.append([units[place]] * 3)
    elif size > FEW:
        ours.append(_contracted(values, probes[:order]))
        places.append(probes[:order])
    else:
        for chosen in combinations_with_replacement(range(size), order):
            for turned in dict.fromkeys(permutations(chosen)):
                # One derivative, in whatever order it is taken.
                ours.append(values[turned])
                places.append([units[place] for place in chosen])
    name = f"order {order}"
    return {name: np.asarray(ours)}, {name: np.asarray(along(places))}


def _contracted(values: Array, coefficients: Sequence[Array]) -> Any:
    for c in reversed(coefficients):
        values = values @ c
    return values
