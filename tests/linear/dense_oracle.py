"""Dense matrices of small networks by torch.func, through networks written out in elementary operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from elementary_layers import Elementary, drawn_inputs, loss_of_outputs
from torch import Tensor
from torch.func import grad, hessian, jacrev, vmap

import sifrc
from sifrc.linear import CurvatureOperators, LinearOperator

__all__ = ["NETWORKS", "Case", "agrees", "close", "relative"]

HEAD: dict[str, Any] = {"sifrc": 1, "name": "linear", "dtype": "float64"}
OUT: list[dict[str, Any]] = [
    {"name": "flat", "type": "flatten"},
    {"name": "out", "type": "dense", "units": 3},
]

NETWORKS: Mapping[str, tuple[Any, list[dict[str, Any]]]] = {
    "dense": (
        4,
        [
            {"name": "fc1", "type": "dense", "units": 5, "activation": "tanh"},
            {"name": "fc2", "type": "dense", "units": 4, "activation": "softplus", "bias": False},
            {"name": "out", "type": "dense", "units": 3},
        ],
    ),
    "conv": (
        [2, 5, 5],
        [
            {"name": "conv", "type": "conv", "channels": 3, "kernel": 3, "padding": 1, "activation": "tanh"},
            {"name": "pool", "type": "pool", "function": "average", "kernel": 2, "stride": 2},
            *OUT,
        ],
    ),
    "norm": (
        4,
        [
            {"name": "fc1", "type": "dense", "units": 5, "activation": "tanh"},
            {"name": "norm", "type": "layer_norm"},
            {"name": "out", "type": "dense", "units": 3},
        ],
    ),
    "attention": (
        [3, 4],
        [
            {"name": "attention", "type": "attention", "heads": 2},
            {"name": "norm", "type": "layer_norm"},
            *OUT,
        ],
    ),
}


@dataclass(frozen=True)
class Case:
    """A network with a loss, parameters and batches.

    Args:
        network: name of it.
        loss: cross_entropy or squared_error.
        sizes: of the batches.
        keys: more of the spec's.
    """

    network: str = "dense"
    loss: str = "cross_entropy"
    sizes: tuple[int, ...] = (3, 1, 4)
    keys: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        # Tensors that are made inside of a transform of torch.func belong to it.
        _ = self.inputs, self.targets

    @property
    def data(self) -> dict[str, Any]:
        """The spec as a dict."""
        size, layers = NETWORKS[self.network]
        return {
            **HEAD,
            "loss": self.loss,
            "network": {"input": {"name": "image", "size": size}, "layers": layers},
            **dict(self.keys),
        }

    @cached_property
    def params(self) -> dict[str, Tensor]:
        """Drawn, with biases and scales that are not what they begin with."""
        module = sifrc.compile(self.data, "torch", "none", ("gradient",))
        drawn = torch.Generator().manual_seed(5)
        return {
            name: 0.6 * torch.randn(shape, generator=drawn, dtype=torch.float64) + 0.3
            for name, shape in module.SHAPES.items()
        }

    @cached_property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs and targets."""
        drawn, found = torch.Generator().manual_seed(6), []
        for size in self.sizes:
            inputs = drawn_inputs(self.data, size, drawn)
            classes = torch.randint(3, (size,), generator=drawn)
            vectors = torch.randn(size, 3, generator=drawn, dtype=torch.float64)
            found.append((inputs, classes if self.loss == "cross_entropy" else vectors))
        return found

    def operators(self, data: Any = None, **more: Any) -> CurvatureOperators:
        """By the package."""
        given = (self.batches if len(self.sizes) > 1 else self.batches[0]) if data is None else data
        return sifrc.operators(self.data, None, given, params=self.params, **more)

    # -- dense matrices

    @cached_property
    def inputs(self) -> Tensor:
        return torch.cat([inputs for inputs, _ in self.batches])

    @cached_property
    def targets(self) -> Tensor:
        return torch.cat([targets for _, targets in self.batches])

    @cached_property
    def flat(self) -> Tensor:
        return torch.cat([value.reshape(-1) for value in self.params.values()])

    def outputs(self, flat: Tensor) -> Tensor:
        """(N, 3)."""
        sizes = [value.numel() for value in self.params.values()]
        parts = zip(self.params.items(), torch.split(flat, sizes), strict=True)
        return Elementary(self.data)({n: part.view(v.shape) for (n, v), part in parts}, self.inputs)

    def of_outputs(self, outputs: Tensor) -> Tensor:
        """The loss, mean over all samples."""
        return loss_of_outputs(self.loss, outputs, self.targets)

    @cached_property
    def H(self) -> Tensor:
        return hessian(lambda flat: self.of_outputs(self.outputs(flat)))(self.flat)

    @cached_property
    def J(self) -> Tensor:
        """(N · 3, P)."""
        return jacrev(self.outputs)(self.flat).reshape(-1, len(self.flat))

    def from_outputs(self, blocks: Tensor) -> Tensor:
        """Mean of J_bᵀ M_b J_b, for blocks (N, 3, 3)."""
        each = self.J.reshape(len(blocks), 3, -1)
        return torch.einsum("bip,bij,bjq->pq", each, blocks, each) / len(blocks)

    def sample_loss(self, y: Tensor, t: Tensor) -> Tensor:
        """Of one sample."""
        return loss_of_outputs(self.loss, y[None], t[None])

    @cached_property
    def at(self) -> Tensor:
        """Outputs."""
        return self.outputs(self.flat)

    @cached_property
    def G(self) -> Tensor:
        return self.from_outputs(
            torch.stack(
                [
                    hessian(lambda y, t=t: self.sample_loss(y, t))(y)  # type: ignore[misc]
                    for y, t in zip(self.at, self.targets, strict=True)
                ]
            )
        )

    @cached_property
    def empirical(self) -> Tensor:
        """The empirical Fisher matrix."""
        scores = vmap(grad(lambda y, t: self.sample_loss(y, t)))(self.at, self.targets)
        return self.from_outputs(scores[:, :, None] * scores[:, None, :])

    @cached_property
    def fisher(self) -> Tensor:
        """Scores at every class by its probability; for the Gaussian of squared errors JᵀJ."""
        if self.loss == "squared_error":
            return self.from_outputs(torch.eye(3, dtype=torch.float64).expand(len(self.at), 3, 3))
        p = torch.softmax(self.at, 1)
        scores = p[:, None, :] - torch.eye(3, dtype=torch.float64)  # (N, class, output)
        return self.from_outputs(torch.einsum("bc,bci,bcj->bij", p, scores, scores))

    def block_diagonal(self, matrix: Tensor, groups: Sequence[Sequence[str]] | None = None) -> Tensor:
        """A matrix without what is beside its blocks; those of single parameters by default."""
        numbers: dict[str, int] = {}
        for number, names in enumerate(groups or [[name] for name in self.params]):
            numbers |= dict.fromkeys(names, number)
        owner = torch.cat(
            [torch.full((value.numel(),), numbers[name]) for name, value in self.params.items()]
        )
        return matrix * (owner[:, None] == owner)


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, by the size of what is expected."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found - expected).abs().max() / (expected.abs().max() + 1e-300))


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-11) -> None:
    """Equal to rounding."""
    assert relative(found, expected) < tolerance, relative(found, expected)


def agrees(operator: LinearOperator, matrix: Tensor, tolerance: float = 1e-11) -> None:
    """An operator and its transpose map vectors as a matrix does."""
    drawn = torch.Generator().manual_seed(8)
    assert operator.shape == tuple(matrix.shape)
    for op, dense in ((operator, matrix), (operator.T, matrix.T)):
        vectors = torch.randn(dense.shape[1], 3, generator=drawn, dtype=torch.float64)
        close(op @ vectors, dense @ vectors, tolerance)
        close(op @ vectors[:, 0], dense @ vectors[:, 0], tolerance)
