"""What summaries along a direction must be, from the spec's forward pass by nested torch.func derivatives.

With η one number for each group, the objective at θ + η_s u_s is a function of η, and its derivatives at zero
are the summaries. Partitions are made here again: names of tensors in, groups in order out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from cases import CASES
from torch import Tensor
from torch.func import grad, jacfwd, jacrev

from sifrc.spec import Spec, build_spec
from sifrc.verify.oracles.forward_torch import ForwardTorch
from sifrc.verify.oracles.network import forward_pass, parameter_shapes
from sifrc.verify.points import Point, near_targets, random_point

__all__ = [
    "WORDS",
    "Derivatives",
    "assert_near",
    "derivatives",
    "groups_of",
    "pairs",
    "partition_of_case",
    "point_of",
    "random_groups",
    "rotated",
    "spec_with",
    "state_derivatives",
]

Groups = Mapping[str, Sequence[str]]
"""Name of a group -> its tensors, in order."""

WORDS = ("canonical", "trivial", "weights-biases", "blocks-1", "alternate-2")
RELATIVE = 1e-10


def groups_of(spec: Spec, word: str) -> dict[str, list[str]] | None:
    """The groups that a word means, None where it is not possible; of single numbers where ``discrete``."""
    shapes = parameter_shapes(spec)
    if word == "canonical":
        return {name: [name] for name in shapes}
    if word == "trivial":
        return {"all": list(shapes)}
    if word == "discrete":
        return {
            f"{name}[{entry}]": [name] for name, shape in shapes.items() for entry in range(np.prod(shape))
        }
    *hidden, last = dict.fromkeys(name.rpartition(".")[0] for name in shapes)
    runs = {"": [*hidden, last]}
    if word != "weights-biases":
        count = int(word[-1])
        if count > len(hidden):
            return None
        assert word.startswith("alternate") or count == 1
        runs = {f"block{k + 1}_": hidden[k::count] for k in range(count)} | {"final_": [last]}
    found = {
        f"{prefix}{plural}": [f"{layer}.{kind}" for layer in layers if f"{layer}.{kind}" in shapes]
        for prefix, layers in runs.items()
        for kind, plural in (("weight", "weights"), ("bias", "biases"))
    }
    return _ordered(found, list(shapes))


def random_groups(spec: Spec, seed: int) -> dict[str, list[str]]:
    """Every tensor in one of some groups, by chance."""
    names = list(parameter_shapes(spec))
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, len(names) + 1))
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(f"part{generator.integers(count)}", []).append(name)
    return _ordered(found, names)


def _ordered(groups: Groups, names: Sequence[str]) -> dict[str, list[str]]:
    kept = {name: list(tensors) for name, tensors in groups.items() if tensors}
    return dict(sorted(kept.items(), key=lambda item: min(map(names.index, item[1]))))


def partition_of_case(data: Mapping[str, Any], word: str) -> tuple[Spec, dict[str, list[str]]] | None:
    """The spec of a case with a partition, and its groups; ``random`` is one by chance."""
    plain = spec_with(data)
    groups = random_groups(plain, len(str(data))) if word == "random" else groups_of(plain, word)
    if groups is None:
        return None
    return spec_with(data, groups if word == "random" else word), groups


def pairs(names: Iterable[str], words: Sequence[str]) -> list[tuple[str, str]]:
    """(case, word) for every case and every word that is possible for it."""
    plain = {name: spec_with(CASES[name]) for name in names}
    return [
        (name, word)
        for name, spec in plain.items()
        for word in words
        if word == "random" or groups_of(spec, word) is not None
    ]


def rotated(names: Iterable[str], words: Sequence[str], start: int = 0) -> list[tuple[str, str]]:
    """(case, word) with one possible word for each case, in turn: all words meet many networks."""
    found = []
    for k, name in enumerate(names, start):
        possible = [word for _, word in pairs([name], words)]
        found.append((name, possible[k % len(possible)]))
    return found


def spec_with(data: Mapping[str, Any], partition: Any = "canonical", **changes: Any) -> Spec:
    """The spec of a case with a partition."""
    return build_spec({**data, "partition": partition, **changes})


def point_of(spec: Spec, seed: int, batch: int) -> Point:
    """A random point; targets near the outputs where a loss is curved only there."""
    point = random_point(spec, seed, batch)
    if spec.loss.function.name != "huber":
        return point
    params = {name: torch.from_numpy(value) for name, value in point.params.items()}
    outputs = ForwardTorch(spec).output(params, torch.from_numpy(point.inputs))
    half = near_targets(spec, point, outputs.numpy(), seed).targets
    # Some samples in the linear part.
    return replace(point, targets=np.where(np.arange(batch)[:, None] % 2, point.targets, half))


@dataclass(frozen=True)
class Derivatives:
    """By groups: objective, order 1 (S,), order 2 (S, S), order 3 (S, S, S)."""

    objective: float
    g: np.ndarray
    H: np.ndarray
    T: np.ndarray
    tangent: float
    """Largest entry of a state's tangent."""

    @property
    def D(self) -> np.ndarray:
        """The diagonal of order 3."""
        return np.einsum("iii->i", self.T)

    @property
    def scale(self) -> float:
        """Size of the terms that derivatives are sums of: what cancels leaves roundings of this."""
        sizes = (np.abs(value).max(initial=0.0) for value in (self.g, self.H, self.T))
        return float(max(1.0, *sizes, self.tangent**3))


def _slices(spec: Spec, point: Point, groups: Groups) -> dict[str, Tensor]:
    """Tensor -> (S, …): the direction within each group."""
    found = {
        name: torch.zeros(len(groups), *value.shape, dtype=torch.float64)
        for name, value in point.vector.items()
    }
    for position, (group, tensors) in enumerate(groups.items()):
        for name in tensors:
            given = torch.from_numpy(point.vector[name])
            if group.startswith(f"{name}["):  # a single number, name[n]
                n = int(group[len(name) + 1 : -1])
                found[name][position].view(-1)[n] = given.reshape(-1)[n]
            else:
                found[name][position] = given
    return found


def derivatives(spec: Spec, point: Point, groups: Groups) -> Derivatives:
    """All summaries at a point."""
    params = {name: torch.from_numpy(value) for name, value in point.params.items()}
    inputs, targets = torch.from_numpy(point.inputs), torch.from_numpy(point.targets)
    objective = ForwardTorch(spec).differentiable(params, inputs, targets)
    slices = _slices(spec, point, groups)

    def along(eta: Tensor) -> Tensor:
        return objective(
            {name: value + torch.tensordot(eta, slices[name], 1) for name, value in params.items()}
        )

    start = torch.zeros(len(groups), dtype=torch.float64)
    first = grad(along)
    # Backwards: forward derivatives of what torch has in one operation are made in Python.
    second = jacrev(first)
    orders = (first(start), second(start), jacrev(second)(start))
    moves = [
        np.abs(first).max(initial=0.0) for first, _ in state_derivatives(spec, point, groups, 1).values()
    ]
    return Derivatives(float(along(start)), *(value.numpy() for value in orders), float(max(moves)))


def state_derivatives(
    spec: Spec, point: Point, groups: Groups, order: int = 2
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Layer -> ẋ (S, B, n) and ẍ (S, B, n) of its output; ẋ twice for order 1."""
    forward = ForwardTorch(spec)
    params = {name: torch.from_numpy(value) for name, value in point.params.items()}
    slices = _slices(spec, point, groups)

    def states(eta: Tensor) -> dict[str, Tensor]:
        moved = {name: value + torch.tensordot(eta, slices[name], 1) for name, value in params.items()}
        one = lambda x: dict(forward_pass(spec, moved, x, forward.activate).values)  # noqa: E731
        return torch.vmap(one)(torch.from_numpy(point.inputs))

    start = torch.zeros(len(groups), dtype=torch.float64)
    first = {name: value.movedim(-1, 0) for name, value in jacfwd(states)(start).items()}
    second = first
    if order > 1:
        pairs_of = jacfwd(jacfwd(states))(start)
        second = {name: torch.einsum("...ss->s...", value) for name, value in pairs_of.items()}
    return {name: (first[name].numpy(), second[name].numpy()) for name in first if name != spec.input.name}


def assert_near(found: Any, expected: Any, relative: float = RELATIVE, floor: float = 1.0) -> None:
    """Arrays agree relative to the largest entry; what cancels, to the same part of ``floor`` in 1000."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    largest = np.abs(expected).max(initial=0.0)
    error = np.abs(found.astype(np.float64) - expected).max(initial=0.0)
    bound = relative * max(largest, floor / 1000)
    assert error <= bound, (error, bound)  # NaN fails too
