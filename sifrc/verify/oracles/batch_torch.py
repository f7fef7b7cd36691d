"""The oracle of a batch by ``torch.func`` in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import jvp, vmap

from sifrc.derive.curvature.kinds import Kind
from sifrc.ir.arithmetic import Array
from sifrc.spec.types import Spec
from sifrc.verify.comparison import Agreement, allowed_digits
from sifrc.verify.oracles import forward_torch as oracle
from sifrc.verify.oracles.batch import BatchOracle
from sifrc.verify.oracles.curvature_reference import Measured
from sifrc.verify.oracles.curvature_torch import arrays_of, measure_torch
from sifrc.verify.summary_parts import Coefficients

__all__ = ["TorchBatch"]

_LIMIT = 16.0
_TOGETHER = 2**22
"""Numbers in directions that are differentiated along at once."""

Tensors = Mapping[str, Tensor]


class TorchBatch(BatchOracle):
    """Derivatives of the objective of the batch, a mean or a sum as the spec says.

    Args:
        spec: the network.
        data: parameters, inputs and targets, float64 or class indices.
        vector: the direction, float64.
        seed: of coefficients.
        drawn: the random numbers of the sampled kinds.
    """

    def __init__(
        self,
        spec: Spec,
        data: tuple[Tensors, Tensor, Tensor],
        vector: Tensors,
        seed: int,
        drawn: Callable[[], Array],
    ) -> None:
        factor = len(data[1]) if spec.loss.reduction == "sum" else 1
        super().__init__(spec, seed, _LIMIT, arrays_of(vector), factor)
        self.data, self.direction, self._drawn = data, vector, drawn

    def value(self, of: Literal["loss", "objective", "evaluation_loss"]) -> Any:
        if of == "evaluation_loss":
            return oracle.ForwardTorch(replace(self.spec, mode="evaluation")).loss(*self.data)
        forward = oracle.ForwardTorch(self.spec)
        return forward.loss(*self.data) if of == "loss" else forward(*self.data)

    def gradient(self) -> dict[str, Array]:
        return arrays_of(oracle.gradient(self.spec, *self.data))

    def sample_gradients(self) -> dict[str, Array]:
        params, inputs, targets = self.data
        each = [
            oracle.gradient(self.spec, params, inputs[n : n + 1], targets[n : n + 1])
            for n in range(len(inputs))
        ]
        return {name: np.stack([arrays_of(found)[name] for found in each]) for name in params}

    def product(self, matrix: Literal["hessian", "gauss_newton"]) -> dict[str, Array]:
        times = {"hessian": oracle.hvp, "gauss_newton": oracle.ggn_vp}[matrix]
        return arrays_of(times(self.spec, *self.data, self.direction))

    def output_along(self) -> Array:
        return np.asarray(oracle.output_along(self.spec, *self.data[:2], self.direction).numpy(force=True))

    def pulled(self, cotangents: Array) -> dict[str, Array]:
        given = torch.from_numpy(np.ascontiguousarray(cotangents, dtype=np.float64))
        return arrays_of(oracle.pulled(self.spec, *self.data[:2], given))

    def newton(self, direction: Mapping[str, Array]) -> float:
        """Backward error of the direction: |H d − g| against |H| |d| + |g|."""
        vector = {name: torch.from_numpy(np.array(direction[name])) for name in self.data[0]}
        if not all(bool(torch.isfinite(value).all()) for value in vector.values()):
            raise FloatingPointError("newton_direction is not finite")
        product = oracle.flatten(oracle.hvp(self.spec, *self.data, vector))
        gradient = oracle.flatten(oracle.gradient(self.spec, *self.data))
        scale = self._hessian_norm() * oracle.flatten(vector).norm() + gradient.norm()
        error = float((product - gradient).norm() / scale)
        digits = min(self.limit, allowed_digits(error)) if error > 0 else self.limit
        lengths = f"{float((product - gradient).norm()):.3g} against |H| |d| + |g| = {float(scale):.3g}"
        return Agreement(digits, f"|H d − g| is {lengths}")

    def _hessian_norm(self) -> Tensor:
        """A lower bound of |H|₂ by a few power iterations."""
        vector = dict(self.direction)
        norm = torch.ones((), dtype=torch.float64)
        for _ in range(5):
            length = oracle.flatten(vector).norm()
            vector = {name: value / length for name, value in vector.items()}
            vector = oracle.hvp(self.spec, *self.data, vector)
            norm = oracle.flatten(vector).norm()
            if float(norm) == 0:
                break
        return norm

    def dense_blocks(self) -> dict[str, Array]:
        """Diagonal blocks of the whole Hessian, by parameter."""
        matrix = oracle.dense_hessian(self.spec, *self.data).numpy(force=True)
        found, start = {}, 0
        for name, value in self.data[0].items():
            stop = start + value.numel()
            found[name] = matrix[start:stop, start:stop]
            start = stop
        return found

    def measure(self) -> Measured:
        return measure_torch(self.spec, *self.data)

    def drawn(self, kind: Kind) -> Array | None:
        return self._drawn() if kind.source == "sampled" else None

    @cached_property
    def _objective(self) -> Callable[[Any], Tensor]:
        return oracle.ForwardTorch(self.spec).differentiable(*self.data)

    def derivatives(self, many: Sequence[Coefficients]) -> list[float]:
        entries = len(many[0]) * sum(value.numel() for value in self.direction.values())
        together = max(1, _TOGETHER // entries)

        def one(*directions: Any) -> Tensor:
            value: Callable[[Any], Tensor] = self._objective
            for direction in directions:
                value = _moved(value, direction)
            return value(self.data[0])

        found: list[float] = []
        for start in range(0, len(many), together):
            part = [[self.combined(c) for c in each] for each in many[start : start + together]]
            stacked = (
                {n: torch.from_numpy(np.stack([each[n] for each in directions])) for n in self.direction}
                for directions in zip(*part, strict=True)
            )
            found += vmap(one)(*stacked).tolist()
        return found


def _moved(value: Callable[[Any], Tensor], along: dict[str, Tensor]) -> Callable[[Any], Tensor]:
    """The differential of a function along a direction."""

    def differential(params: Any) -> Tensor:
        result: Tensor = jvp(value, (dict(params),), (along,))[1]
        return result

    return differential
