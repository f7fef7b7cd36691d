"""Curvature of a batch by ``torch.func`` in float64, from the plain forward pass.

Derivatives by pre-activations are those by vectors that are added to the arguments of the activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, hessian, jacrev, vmap

from sifrc.ir.arithmetic import Array
from sifrc.spec.types import FunctionSpec, LayerSpec, Spec
from sifrc.verify.oracles.curvature_reference import Measured, pre_activation_shapes
from sifrc.verify.oracles.forward_torch import ForwardTorch, Parameters
from sifrc.verify.oracles.network import forward_pass

__all__ = ["arrays_of", "measure_torch"]


def measure_torch(spec: Spec, params: Parameters, inputs: Tensor, targets: Tensor) -> Measured:
    """The numbers of a batch.

    Args:
        spec: the network.
        params: float64, by name.
        inputs: (B, *axes of the network input).
        targets: (B,) class indices or (B, n_out).

    Example:
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "tiny", "loss": "squared_error", "network": {
        ...     "input": {"size": 1}, "layers": [{"name": "fc", "type": "dense", "units": 1}]}})
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> at = measure_torch(spec, {"fc.weight": one, "fc.bias": one[0]}, one, one)
        >>> at.hessian("fc", True).tolist()
        [[[1.0]]]
    """
    return _Measuring(spec, params, inputs, targets).result()


class _Measuring:
    def __init__(self, spec: Spec, params: Parameters, inputs: Tensor, targets: Tensor) -> None:
        self.spec, self.params, self.inputs = spec, params, inputs
        self.forward = ForwardTorch(spec)
        self.targets = self.forward.target_vectors(inputs, targets)
        self.scales = self.forward.factors(params, inputs, targets)
        self.layers = {layer.name: layer for layer in spec.layers}

        def parts(x: Tensor) -> tuple[dict[str, Tensor], ...]:
            run = self._run(x)
            return dict(run.values), dict(run.arguments), dict(run.reads)

        self.values, arguments, self.reads = vmap(parts)(inputs)
        self.shapes = pre_activation_shapes(spec, {name: read.shape[1:] for name, read in self.reads.items()})
        self.slopes: dict[str, Tensor] = {}
        self.seconds: dict[str, Tensor] = {}
        for name, layer in self.layers.items():
            a = arguments.get(name, self.values[name])
            self.slopes[name], self.seconds[name] = vmap(lambda v, k=layer: self._slopes(k, v))(a)
        self.outputs = self.values[spec.layers[-1].name].flatten(1)
        self.factor = torch.ones(len(inputs), dtype=torch.float64)
        if spec.regularization.output == "spectral":
            # MK(68), held constant under differentiation
            size = torch.linalg.vector_norm(self._score(self.targets), dim=1)
            self.factor = size / self.slopes[spec.layers[-1].name].abs().amax(dim=1)

    def result(self) -> Measured:
        last = self.values[self.spec.layers[-1].name]
        softmax = torch.softmax(last, dim=1 + self.spec.loss.axis).flatten(1)
        curvature = vmap(hessian(self.forward.loss_of_output))(self.outputs, self.targets)
        return Measured(
            spec=self.spec,
            params=arrays_of(self.params),
            shapes=self.shapes,
            values=arrays_of(self.values),
            reads=arrays_of(self.reads),
            slopes=arrays_of(self.slopes),
            seconds=arrays_of(self.seconds),
            scales=arrays_of(self.scales),
            score=lambda at: self._score(torch.from_numpy(at)).numpy(force=True),
            targets=self.targets.numpy(force=True),
            loss_hessian=(curvature * self.factor[:, None, None]).numpy(force=True),
            hessian=self.hessian,
            jacobian=self.jacobian,
            softmax=softmax.numpy(force=True),
            eigen=_eigen,
            activate=self._activate,
        )

    def _activate(self, function: FunctionSpec, *arguments: Array) -> Array:
        """A function of entries on arrays."""
        tensors = (torch.from_numpy(np.ascontiguousarray(value)) for value in arguments)
        return np.asarray(self.forward.activate(function, *tensors).numpy(force=True))

    def hessian(self, layer: str, whole: bool) -> Array:
        """Second derivatives of the objective, or of the loss alone, by one pre-activation."""

        def one(x: Tensor, t: Tensor, scales: Mapping[str, Tensor], factor: Tensor) -> Tensor:
            def value(shift: Tensor) -> Tensor:
                run = self._run(x, {layer: shift})
                total = factor * self.forward.loss_of_output(run.output, t)
                for name, scale in scales.items() if whole else ():
                    total = total + scale / 2 * (run.values[name] ** 2).sum()
                return total

            found = hessian(value)(self._zero(layer))
            assert isinstance(found, Tensor)
            return found

        blocks: Tensor = vmap(one)(self.inputs, self.targets, dict(self.scales), self.factor)
        return np.asarray(blocks.numpy(force=True))

    def jacobian(self, layer: str) -> Array:
        """Outputs by one pre-activation."""

        def one(x: Tensor) -> Tensor:
            found = jacrev(lambda shift: self._run(x, {layer: shift}).output)(self._zero(layer))
            assert isinstance(found, Tensor)
            return found

        rows = vmap(one)(self.inputs)
        return np.asarray(rows.numpy(force=True))

    def _zero(self, layer: str) -> Tensor:
        return torch.zeros(self.shapes[layer], dtype=torch.float64)

    def _run(self, x: Tensor, shifts: Mapping[str, Tensor] | None = None) -> Any:
        return forward_pass(self.spec, self.params, x, self.forward.activate, shifts)

    def _score(self, targets: Tensor) -> Tensor:
        slopes: Tensor = vmap(grad(self.forward.loss_of_output))(self.outputs, targets) * self.factor[:, None]
        return slopes

    def _slopes(self, layer: LayerSpec, a: Tensor) -> tuple[Tensor, Tensor]:
        """F'(a) and F''(a)."""
        function = layer.activation
        if function is None:
            return torch.ones_like(a), torch.zeros_like(a)

        def slope(v: Tensor) -> Tensor:
            found: Tensor = grad(lambda u: self.forward.activate(function, u).sum())(v)
            return found

        first, second = slope(a), grad(lambda v: slope(v).sum())(a)
        return first, second


def _eigen(matrix: Array) -> tuple[Array, Array]:
    values, vectors = np.linalg.eigh(matrix)
    return values, vectors


def arrays_of(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """The numbers of tensors, by name."""
    return {name: value.numpy(force=True) for name, value in tensors.items()}
