"""Oracle by nested dual numbers for samples that act on each other: a batch is looked at as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mpmath
import numpy as np

from sifrc.ir.arithmetic import Array
from sifrc.verify.oracles.duals import part, primal
from sifrc.verify.oracles.forward_mpmath import Arrays, ForwardMpmath, seeded
from sifrc.verify.oracles.network import Pass, counted, forward_passes

__all__ = ["JointMpmath"]


class JointMpmath(ForwardMpmath):
    """As :class:`ForwardMpmath`, with a batch (B, …) in the place of each sample, and means over it."""

    def output(self, params: Arrays, sample: Array) -> Array:
        """Network outputs of the batch, (B, n_out)."""
        return np.asarray([run.output for run in self._runs(params, sample)], dtype=object)

    def loss(self, params: Arrays, sample: Array, target: Any) -> Any:
        """Mean loss of the batch."""
        losses = [
            self.loss_of_output(run.output, self.target_vector(x, wanted))
            for run, x, wanted in zip(self._runs(params, sample), sample, target, strict=True)
        ]
        return sum(losses, mpmath.mpf(0)) * self.loss_factor(params, sample, target) / len(losses)

    def loss_factor(self, params: Arrays, sample: Array, target: Any) -> Any:
        """One over the mean number of targets that count."""
        vectors = [self.target_vector(x, wanted) for x, wanted in zip(sample, target, strict=True)]
        return mpmath.mpf(1) / counted(self.spec, vectors)

    def _objective(
        self, params: Arrays, sample: Array, target: Any, factors: Mapping[str, Any], weight: Any
    ) -> Any:
        total = mpmath.mpf(0)
        runs = self._runs(params, sample)
        for run, x, wanted in zip(runs, sample, target, strict=True):
            total = total + weight * self.loss_of_output(run.output, self.target_vector(x, wanted))
            for name, factor in factors.items():
                total = total + factor / 2 * (run.values[name] * run.values[name]).sum()
        return total / len(runs) + self._penalty(params)

    def output_along(self, params: Arrays, sample: Array, direction: Arrays) -> Array:
        """J times direction, (B · n_out)."""
        moved = {name: seeded(value, direction[name], 1) for name, value in params.items()}
        outputs = [y for run in self._runs(moved, sample) for y in run.output]
        return np.asarray([part(y, (1,)) for y in outputs], dtype=object)

    def _loss_curvature(self, params: Arrays, sample: Array, target: Any, left: Array, right: Array) -> Any:
        """leftᵀ ∇²ℓ right at the outputs, the mean over the batch."""
        runs = self._runs(params, sample)
        total = mpmath.mpf(0)
        moves = [np.reshape(move, (len(runs), -1)) for move in (left, right)]
        for number, (run, x, wanted) in enumerate(zip(runs, sample, target, strict=True)):
            found = np.asarray([primal(y) for y in run.output], dtype=object)
            for tag, move in enumerate(moves, start=1):
                found = seeded(found, move[number], tag)
            total = total + part(self.loss_of_output(found, self.target_vector(x, wanted)), (2, 1))
        return total * self.loss_factor(params, sample, target) / len(runs)

    def _runs(self, params: Arrays, samples: Array) -> list[Pass]:
        return forward_passes(self.spec, {**self.buffers, **params}, list(samples), self.activate)
