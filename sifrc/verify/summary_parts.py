"""Summaries as verification sees them: what is looked at, parts of a direction, and comparing by groups.

Groups are read from the spec, as the oracles read it. With few groups every entry is compared; with many,
sums of entries with random coefficients, which are derivatives along other directions, and some of the
diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations
from types import MappingProxyType
from typing import Any

import numpy as np

from sifrc.errors import VerificationError
from sifrc.ir.arithmetic import Array
from sifrc.spec.partition import groups_of
from sifrc.spec.types import Spec
from sifrc.verify.oracles.network import parameter_shapes

__all__ = [
    "FEW",
    "SUMMARY",
    "SUMMARY_QUANTITIES",
    "Along",
    "Coefficients",
    "Found",
    "compared",
    "looked_at",
    "parts_of",
    "remembered",
]

SUMMARY = "summary"
SUMMARY_QUANTITIES: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {1: (SUMMARY,), 2: (SUMMARY,), 3: (SUMMARY,)}
)
"""Level -> operators that it checks."""
_METHOD = "grouped_newton"

FEW = 6
"""Up to this many groups every entry is compared."""
_PROBES = 3

Arrays = Mapping[str, Array]
Coefficients = Sequence[Array]
Along = Callable[[Sequence[Coefficients]], Sequence[Any]]
"""Mixed derivatives of the objective, each along Σ_s c_s u_s for coefficients c (S,); all of one order."""


def looked_at(spec: Spec, required: Iterable[str], module: Any, wanted: bool | None) -> bool:
    """Whether summaries are: as the caller says, or where they are required or used."""
    if wanted is not None:
        return wanted
    method = spec.method is not None and spec.method.name == _METHOD
    return SUMMARY in set(required) or method or hasattr(module, SUMMARY)


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


@dataclass(frozen=True)
class Found:
    """Summaries of some orders; None is not there.

    Args:
        g: (S,).
        h: (S, S).
        d: (S,), the diagonal of order 3.
        t: (S, S, S).
    """

    g: Array
    h: Array | None = None
    d: Array | None = None
    t: Array | None = None

    @classmethod
    def of(cls, values: Iterable[Array | None]) -> Found:
        """The same from ḡ, H̿, D̄ and T̄.

        Raises:
            VerificationError: there is no ḡ.
        """
        g, *others = values
        if g is None:
            raise VerificationError("there is no summary of order 1")
        return cls(g, *others)


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


def compared(found: Found, along: Along, seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Numbers of some summaries, and what they must be, by order.

    Those of order 3 go together: D̄ is a part of T̄, and is as exact as its largest entries.

    Args:
        found: summaries.
        along: of the oracle.
        seed: of coefficients.
    """
    size = len(found.g)
    units = np.eye(size)
    few = size <= FEW
    generator = np.random.default_rng(seed)
    probes = [generator.normal(size=size) / np.sqrt(size) for _ in range(_PROBES)]
    ours: dict[str, list[Any]] = {}
    places: dict[str, list[Coefficients]] = {}

    def put(name: str, own: Any, coefficients: Coefficients) -> None:
        ours.setdefault(name, []).append(own)
        places.setdefault(name, []).append(coefficients)

    def put_all(name: str, values: Array, order: int) -> None:
        if not few:
            put(name, _contracted(values, probes[:order]), probes[:order])
            return
        for chosen in combinations_with_replacement(range(size), order):
            for turned in dict.fromkeys(permutations(chosen)):
                # One derivative, in whatever order it is taken.
                put(name, values[turned], [units[place] for place in chosen])

    put_all("order 1", found.g, 1)
    if found.h is not None:
        put_all("order 2", found.h, 2)
    if found.d is not None:
        for place in range(size) if few else generator.choice(size, FEW, replace=False):
            put("order 3", found.d[place], [units[place]] * 3)
    if found.t is not None:
        put_all("order 3", found.t, 3)
    return _arrays(ours), _arrays({name: along(each) for name, each in places.items()})


def _contracted(values: Array, coefficients: Sequence[Array]) -> Any:
    for c in reversed(coefficients):
        values = values @ c
    return values


def _arrays(numbers: Mapping[str, Sequence[Any]]) -> dict[str, Array]:
    return {name: np.asarray(values) for name, values in numbers.items()}
