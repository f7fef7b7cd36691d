"""The oracle of a batch at any precision: nested dual numbers through the forward pass of every sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import mpmath
import numpy as np

from sifrc.derive.curvature.kinds import Kind
from sifrc.ir.arithmetic import MPMATH, Array
from sifrc.spec.types import Spec
from sifrc.verify.comparison import agreed_digits
from sifrc.verify.oracles.batch import BatchOracle
from sifrc.verify.oracles.curvature_mpmath import measure_mpmath
from sifrc.verify.oracles.curvature_reference import Measured, batch_mean
from sifrc.verify.oracles.forward_mpmath import ForwardMpmath
from sifrc.verify.oracles.joint_mpmath import JointMpmath
from sifrc.verify.oracles.network import couples
from sifrc.verify.points import Point, near_targets, parameter_count, random_point
from sifrc.verify.summary_parts import Coefficients

__all__ = ["PreciseBatch", "settled"]

_FULL = 80
"""Up to this many parameters every entry is compared, beyond it products with random probes."""

Arrays = Mapping[str, Array]


def settled(spec: Spec, point: Point, seed: int) -> Point:
    """The point with vector targets next to the outputs: losses such as huber are curved only there."""
    batch = PreciseBatch(spec, point, seed, 0)
    return near_targets(spec, point, batch.outputs, seed)


def _precise(tensors: Arrays) -> dict[str, Array]:
    return {name: MPMATH.array(value) for name, value in tensors.items()}


class PreciseBatch(BatchOracle):
    """Mean over the samples of what the forward pass says.

    Args:
        spec: the network.
        point: parameters, batch and direction.
        seed: of probes and draws.
        digits: that can agree.
    """

    def __init__(self, spec: Spec, point: Point, seed: int, digits: int) -> None:
        super().__init__(spec, seed, digits, _precise(point.vector))
        joint = couples(spec)
        self.oracle = JointMpmath(spec) if joint else ForwardMpmath(spec)
        self.params = _precise(point.params)
        self.inputs = MPMATH.array(point.inputs)
        classes = spec.loss.targets == "classes"
        self.targets: Any = point.targets if classes else MPMATH.array(point.targets)
        # Samples that act on each other are looked at as one.
        each = zip(self.inputs, self.targets, strict=True)
        self._pairs = [(self.inputs, self.targets)] if joint else list(each)
        self.point = point
        self.full = parameter_count(spec) <= _FULL

    @property
    def outputs(self) -> Array:
        """Of the network, (B, n_out)."""
        found = [self.oracle.output(self.params, x) for x, _ in self._pairs]
        return np.concatenate(found) if found[0].ndim > 1 else np.stack(found)

    @property
    def vectors(self) -> Array:
        """Targets as vectors (B, n_out), without a mask."""
        pairs = zip(self.inputs, self.targets, strict=True)
        whole = np.stack([self.oracle.target_vector(x, t) for x, t in pairs])
        return whole[:, : self.spec.layers[-1].size]

    def value(self, of: Literal["loss", "objective", "evaluation_loss"]) -> Any:
        if of == "evaluation_loss":
            evaluated = replace(self.spec, mode="evaluation")
            return PreciseBatch(evaluated, self.point, self.seed, 0).value("loss")
        return self._mean(getattr(self.oracle, of))

    def gradient(self) -> dict[str, Array]:
        return self._linear(lambda probe: self.derivative([probe]))

    def sample_gradients(self) -> dict[str, Array]:
        pairs = zip(self.inputs, self.targets, strict=True)
        each = [self.oracle.gradient(self.params, x, t) for x, t in pairs]
        return {name: np.stack([found[name] for found in each]) for name in self.params}

    def whole_gradient(self) -> dict[str, Array]:
        """Every entry of it, however many there are."""
        return self.oracle.components(self.params, lambda unit: self.derivative([unit]))

    def product(self, matrix: Literal["hessian", "gauss_newton"]) -> dict[str, Array]:
        if matrix == "hessian":
            return self._linear(lambda probe: self.derivative([self.vector, probe]))
        bilinear = self.oracle.ggn_bilinear
        return self._linear(lambda probe: self._mean(lambda p, x, t: bilinear(p, x, t, probe, self.vector)))

    def output_along(self) -> Array:
        found = [self.oracle.output_along(self.params, x, self.vector) for x, _ in self._pairs]
        return np.concatenate(found).reshape(len(self.inputs), -1)

    def pulled(self, cotangents: Array) -> dict[str, Array]:
        def value(probe: Arrays) -> Any:
            pairs = zip(self._pairs, cotangents, strict=True)
            moved = (self.oracle.output_along(self.params, x, probe) @ back for (x, _), back in pairs)
            return sum(moved, mpmath.mpf(0))

        return self._linear(value)

    def newton(self, direction: Arrays) -> float:
        moved = self._linear(lambda probe: self.derivative([direction, probe]))
        return agreed_digits(moved, self.gradient(), self.limit)

    def derivative(self, directions: Sequence[Arrays]) -> Any:
        """Mixed derivative of the mean objective."""
        return self._mean(lambda p, x, t: self.oracle.derivative(p, x, t, directions))

    def derivatives(self, many: Sequence[Coefficients]) -> list[Any]:
        return [self.derivative([self.combined(MPMATH.array(c)) for c in each]) for each in many]

    def measure(self) -> Measured:
        return measure_mpmath(self.spec, self.params, self.inputs, self.targets)

    def drawn(self, kind: Kind) -> Array | None:
        if kind.source != "sampled":
            return None
        return self.uniform if self.spec.loss.targets == "classes" else self.normal

    @cached_property
    def normal(self) -> Array:
        """Standard normal numbers."""
        generator = np.random.default_rng(self.seed)
        return MPMATH.array(generator.normal(size=(len(self.inputs), self.spec.layers[-1].size)))

    @cached_property
    def uniform(self) -> Array:
        """Uniform numbers u for which all x + g, g = −log(−log u), are about equal.

        A draw depends on its numbers through the order of the x + g alone: only there a wrong g shows.
        """
        outputs = self.outputs
        gumbel = self.normal / 20 - outputs + batch_mean(outputs.T)[:, None]
        return np.asarray(np.frompyfunc(lambda g: mpmath.exp(-mpmath.exp(-g)), 1, 1)(gumbel), dtype=object)

    def seen(self, tensors: Arrays) -> dict[str, Array]:
        if self.full:
            return dict(tensors)
        products = [_inner(tensors, probe) for probe in self._probes]
        return {"probe": np.asarray(products)}

    @cached_property
    def _probes(self) -> list[dict[str, Array]]:
        return [_precise(random_point(self.spec, self.seed + k).vector) for k in (1, 2, 3)]

    def _linear(self, value: Callable[[Arrays], Any]) -> dict[str, Array]:
        """A tensor for each parameter as :meth:`seen`, from its products with directions."""
        if not self.full:
            return {"probe": np.asarray([value(probe) for probe in self._probes])}
        return self.oracle.components(self.params, value)

    def _mean(self, value: Callable[[Arrays, Array, Any], Any]) -> Any:
        total = sum((value(self.params, x, t) for x, t in self._pairs), mpmath.mpf(0))
        return total / len(self._pairs)


def _inner(left: Arrays, right: Arrays) -> Any:
    return sum(((left[name] * right[name]).sum() for name in left), mpmath.mpf(0))
