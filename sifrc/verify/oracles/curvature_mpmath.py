"""Curvature of a batch at any precision: nested dual numbers through the forward pass alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import mpmath
import numpy as np

from sifrc.ir.arithmetic import Array
from sifrc.spec.types import Spec
from sifrc.verify.oracles.curvature_reference import Measured, pre_activation_shapes
from sifrc.verify.oracles.duals import part, seed
from sifrc.verify.oracles.forward_mpmath import ForwardMpmath
from sifrc.verify.oracles.network import Pass, forward_pass

__all__ = ["measure_mpmath"]

_ONE = mpmath.mpf(1)


def measure_mpmath(
    spec: Spec, params: Mapping[str, Array], inputs: Array, targets: Sequence[Any]
) -> Measured:
    """The numbers of a batch, at the precision in force (``mpmath.workdps``).

    Args:
        spec: the network.
        params: arrays of mpf by name.
        inputs: (B, *axes of the network input), mpf.
        targets: class indices, or vectors (B, n_out) of mpf.
    """
    return _Measuring(spec, params, inputs, targets).result()


class _Measuring:
    def __init__(
        self, spec: Spec, params: Mapping[str, Array], inputs: Array, targets: Sequence[Any]
    ) -> None:
        self.spec, self.params, self.inputs = spec, params, inputs
        self.oracle = ForwardMpmath(spec)
        pairs = list(zip(inputs, targets, strict=True))
        self.targets = np.stack([self.oracle.target_vector(x, t) for x, t in pairs])
        self.scales = [self.oracle.factors(params, x, t) for x, t in pairs]
        self.runs = [self._run(x) for x in inputs]
        reads = {name: read.shape for name, read in self.runs[0].reads.items()}
        self.shapes = pre_activation_shapes(spec, reads)
        self.layers = {layer.name: layer for layer in spec.layers}
        self.slopes = {name: self._activation(name, (1,)) for name in self.layers}
        self.factors = np.asarray([_ONE for _ in inputs], dtype=object)
        if spec.regularization.output == "spectral":
            # MK(68), held constant under differentiation
            size = [mpmath.sqrt(sum(s * s for s in score)) for score in self._score(self.targets)]
            self.factors = np.asarray(size) / np.abs(self.slopes[spec.layers[-1].name]).max(axis=1)

    def result(self) -> Measured:
        outputs = [run.output for run in self.runs]
        curvature = [
            _second(partial(self._loss_at, t), y) for y, t in zip(outputs, self.targets, strict=True)
        ]
        exponentials = np.frompyfunc(mpmath.exp, 1, 1)(np.stack(outputs))
        exponentials = exponentials.reshape(len(outputs), *self.spec.layers[-1].shape)
        softmax = exponentials / exponentials.sum(axis=1 + self.spec.loss.axis, keepdims=True)
        return Measured(
            spec=self.spec,
            params=self.params,
            shapes=self.shapes,
            values={name: np.stack([run.values[name] for run in self.runs]) for name in self.runs[0].values},
            reads={name: np.stack([run.reads[name] for run in self.runs]) for name in self.runs[0].reads},
            slopes=self.slopes,
            seconds={name: self._activation(name, (2, 1)) for name in self.layers},
            scales={name: np.asarray([scale[name] for scale in self.scales]) for name in self.scales[0]},
            score=self._score,
            targets=self.targets,
            loss_hessian=np.stack(curvature) * self.factors[:, None, None],
            hessian=self.hessian,
            jacobian=self.jacobian,
            softmax=softmax.reshape(len(outputs), -1),
            eigen=_eigen,
            activate=self.oracle.activate,
        )

    def hessian(self, layer: str, whole: bool) -> Array:
        """Second derivatives of the objective, or of the loss alone, by one pre-activation."""
        found = []
        for x, t, scales, factor in zip(self.inputs, self.targets, self.scales, self.factors, strict=True):

            def value(
                shift: Array, x: Any = x, t: Any = t, scales: Any = scales, factor: Any = factor
            ) -> Any:
                run = self._run(x, {layer: shift})
                total = factor * self.oracle.loss_of_output(run.output, t)
                for name, scale in scales.items() if whole else ():
                    total = total + scale / 2 * (run.values[name] * run.values[name]).sum()
                return total

            found.append(_second(value, self._zero(layer)))
        return np.stack(found)

    def jacobian(self, layer: str) -> Array:
        """Outputs by one pre-activation."""
        found = []
        for x in self.inputs:
            zero = self._zero(layer)
            columns = np.empty((len(self.runs[0].output), *zero.shape), dtype=object)
            for place in np.ndindex(zero.shape):
                shift = _moved(zero, place, 1)
                columns[:, *place] = [part(y, (1,)) for y in self._run(x, {layer: shift}).output]
            found.append(columns)
        return np.stack(found)

    def _loss_at(self, target: Array, output: Array) -> Any:
        return self.oracle.loss_of_output(output, target)

    def _zero(self, layer: str) -> Array:
        return np.full(self.shapes[layer], mpmath.mpf(0), dtype=object)

    def _run(self, x: Array, shifts: Mapping[str, Array] | None = None) -> Pass:
        return forward_pass(self.spec, self.params, x, self.oracle.activate, shifts)

    def _score(self, targets: Array) -> Array:
        """∂ℓ by the output at other targets."""
        found = []
        for run, t, factor in zip(self.runs, targets, self.factors, strict=True):
            moved = (_moved(run.output, place, 1) for place in np.ndindex(run.output.shape))
            slopes = [part(self.oracle.loss_of_output(output, t), (1,)) for output in moved]
            found.append(factor * np.asarray(slopes, dtype=object))
        return np.stack(found)

    def _activation(self, name: str, tags: tuple[int, ...]) -> Array:
        """F' or F'' at the pre-activations of every sample."""
        function = self.layers[name].activation
        if function is None:
            values = np.stack([run.values[name] for run in self.runs])
            return np.asarray(0 * values + int(tags == (1,)), dtype=object)

        def derivative(a: Any) -> Any:
            moved = a
            for tag in sorted(tags):
                moved = moved + seed(mpmath.mpf(0), _ONE, tag)
            return part(self.oracle.scalar_function(function, moved), tags)

        arguments = np.stack([run.arguments[name] for run in self.runs])
        return np.asarray(np.frompyfunc(derivative, 1, 1)(arguments), dtype=object)


def _moved(values: Array, place: tuple[int, ...], tag: int) -> Array:
    """The values with one entry moved along ε_tag."""
    moved = np.array(values, dtype=object)
    moved[place] = moved[place] + seed(mpmath.mpf(0), _ONE, tag)
    return moved


def _second(value: Callable[[Array], Any], at: Array) -> Array:
    """All second derivatives of a number by an array, over the axes of the array twice."""
    places = [*np.ndindex(at.shape)]
    found = np.empty(2 * at.shape, dtype=object)
    for i, left in enumerate(places):
        for right in places[: i + 1]:
            second = part(value(_moved(_moved(at, left, 1), right, 2)), (2, 1))
            found[left + right] = found[right + left] = second
    return found


def _eigen(matrix: Array) -> tuple[Array, Array]:
    values, vectors = mpmath.eigsy(mpmath.matrix(matrix.tolist()))
    size = range(len(matrix))
    return np.asarray(list(values), dtype=object), np.asarray([[vectors[i, j] for j in size] for i in size])
