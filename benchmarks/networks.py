"""Chains of dense layers that several benchmarks share, as specs and as torch modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

import sifrc

__all__ = ["EA_CG_PAPER", "GN3_MLP", "Chain"]

_MODULES: Mapping[str, type[torch.nn.Module]] = MappingProxyType(
    {"tanh": torch.nn.Tanh, "elu": torch.nn.ELU, "sigmoid": torch.nn.Sigmoid}
)


@dataclass(frozen=True)
class Chain:
    """Dense layers, one activation between them, a linear layer last; cross-entropy, float32.

    Args:
        sizes: of the input and of every layer.
        activation: tanh, elu or sigmoid.
    """

    sizes: tuple[int, ...]
    activation: str

    @property
    def name(self) -> str:
        """Sizes, runs of equal ones shortened, and activation."""
        runs = ((size, len(list(run))) for size, run in groupby(self.sizes))
        return "-".join(f"{n}×{count}" if count > 1 else str(n) for n, count in runs) + f" {self.activation}"

    def spec(self, **more: Any) -> sifrc.Spec:
        """The spec; ``more`` are keys of it."""
        layers = [
            {"name": f"fc{k}", "type": "dense", "units": units}
            | ({"activation": self.activation} if k < len(self.sizes) - 1 else {})
            for k, units in enumerate(self.sizes[1:], 1)
        ]
        return sifrc.build_spec(
            {
                "sifrc": 1,
                "name": f"chain{len(self.sizes)}",
                "network": {"input": {"name": "image", "size": self.sizes[0]}, "layers": layers},
                "loss": {"function": "cross_entropy"},
                "init": "glorot",
                "dtype": "float32",
            }
            | more
        )

    def module(self) -> torch.nn.Sequential:
        """The same network as a torch module, with torch's initial parameters."""
        modules: list[torch.nn.Module] = []
        for k in range(1, len(self.sizes)):
            modules.append(torch.nn.Linear(self.sizes[k - 1], self.sizes[k]))
            modules += [_MODULES[self.activation]()] if k < len(self.sizes) - 1 else []
        return torch.nn.Sequential(*modules)

    def samples(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Random inputs and classes."""
        rng = np.random.default_rng(0)
        inputs = rng.normal(size=(count, self.sizes[0])).astype(np.float32)
        return inputs, rng.integers(0, self.sizes[-1], count)


EA_CG_PAPER = Chain((3072, 1024, 512, 256, 128, 64, 32, 16, 10), "sigmoid")
GN3_MLP = Chain((1024, 200, 100, 10), "tanh")
