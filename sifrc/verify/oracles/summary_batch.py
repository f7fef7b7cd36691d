"""The precise oracle on a batch: derivatives of the mean objective along directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mpmath
import numpy as np

from sifrc.ir.arithmetic import MPMATH, Array
from sifrc.spec.types import Spec
from sifrc.verify.oracles.forward_mpmath import ForwardMpmath
from sifrc.verify.points import Point, near_targets

__all__ = ["OracleBatch", "settled"]

Arrays = Mapping[str, Array]


def settled(spec: Spec, point: Point, seed: int) -> Point:
    """The point with vector targets next to the outputs: losses such as huber are curved only there."""
    oracle = ForwardMpmath(spec)
    params = {name: MPMATH.array(value) for name, value in point.params.items()}
    outputs = [oracle.output(params, MPMATH.array(x)) for x in point.inputs]
    return near_targets(spec, point, np.stack(outputs), seed)


class OracleBatch:
    """Nested duals through the forward passes of some samples.

    Args:
        spec: the network.
        params: by name, mpf.
        point: its inputs and targets.
    """

    def __init__(self, spec: Spec, params: Arrays, point: Point) -> None:
        self.oracle = ForwardMpmath(spec)
        self.params = params
        self.inputs = MPMATH.array(point.inputs)
        classes = spec.loss.targets == "classes"
        self.targets: Any = point.targets if classes else MPMATH.array(point.targets)

    @property
    def vectors(self) -> Array:
        """Targets as vectors (B, n_out)."""
        return np.stack([self.oracle.target_vector(target) for target in self.targets])

    def derivative(self, directions: Sequence[Arrays]) -> Any:
        """Mixed derivative of the mean objective."""
        pairs = zip(self.inputs, self.targets, strict=True)
        values = [self.oracle.derivative(self.params, x, t, directions) for x, t in pairs]
        return sum(values, mpmath.mpf(0)) / len(values)

    def gradient(self) -> dict[str, Array]:
        """Of the mean objective, by name."""
        pairs = zip(self.inputs, self.targets, strict=True)
        each = [self.oracle.gradient(self.params, x, t) for x, t in pairs]
        return {
            name: np.stack([found[name] for found in each]).sum(axis=0) / len(each) for name in self.params
        }
