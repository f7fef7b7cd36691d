"""Curvature blocks from the spec alone: torch.func where a kind is exact, dense algebra where it is not.

Derivatives by pre-activations are those by vectors that are added to the arguments of the activations.
``rewritten`` applies the named rewrites of EA-CG(5, 6, 8) to numbers, layer of the spec by layer of the
spec; it shares nothing with the derivation but the definition of the rewrites, and without a rewrite it
must agree with torch.func, which the tests check.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, jacrev, jvp, vmap

from sifrc.derive.curvature.kinds import Kind
from sifrc.spec.types import LayerSpec, Spec
from sifrc.verify.oracles import forward_torch as oracle_torch
from sifrc.verify.oracles.network import forward_pass
from sifrc.verify.points import Point, random_point

__all__ = ["Oracle", "assert_close", "owners", "point_for"]

RELATIVE = 1e-9
ABSOLUTE = 1e-12
"""Of the largest number among all blocks, for blocks that cancel."""


def point_for(spec: Spec, seed: int, batch: int) -> Point:
    """A random point; class targets take several values."""
    return random_point(spec, seed, batch)


def owners(spec: Spec) -> list[LayerSpec]:
    """Dense layers that own parameters."""
    return [layer for layer in spec.layers if layer.kind == "dense" and layer.share is None]


def assert_close(found: Mapping[str, Any], expected: Mapping[str, Any], relative: float = RELATIVE) -> None:
    """Arrays agree by name to ``relative`` of the largest entry of each."""
    assert set(found) == set(expected)
    arrays = {name: np.asarray(value) for name, value in expected.items()}
    overall = max([1.0, *(float(np.abs(value).max(initial=0.0)) for value in arrays.values())])
    for name, value in arrays.items():
        got = np.asarray(found[name])
        assert got.shape == value.shape, (name, got.shape, value.shape)
        bound = relative * np.abs(value).max(initial=0.0) + max(ABSOLUTE, relative * 1e-3) * overall
        error = np.abs(got.astype(np.float64) - value).max(initial=0.0)
        assert error <= bound, (name, error, bound)  # NaN fails too


class Oracle:
    """Dense curvature of a spec at a point.

    Args:
        spec: the network.
        point: parameters and a batch, float64.
    """

    def __init__(self, spec: Spec, point: Point) -> None:
        self.spec = spec
        self.params = {name: torch.from_numpy(value) for name, value in point.params.items()}
        self.inputs, self.raw = torch.from_numpy(point.inputs), torch.from_numpy(point.targets)
        self.forward = oracle_torch.ForwardTorch(spec)
        self.targets = self.forward.target_vectors(self.inputs, self.raw)
        self.scales = self.forward.factors(self.params, self.inputs, self.raw)
        self.loss_scale = torch.ones(len(self.inputs), dtype=torch.float64)
        if spec.regularization.output == "spectral":
            self.loss_scale = vmap(self._output_factor)(self.inputs, self.targets)
        self.sizes = {layer.name: layer.size for layer in spec.layers}

    def _run(self, x: Tensor, shifts: Mapping[str, Tensor] | None = None) -> Any:
        return forward_pass(self.spec, self.params, x, self.forward.activate, shifts)

    def _output_factor(self, x: Tensor, t: Tensor) -> Tensor:
        """λ_n of MK(68), held constant: ‖∂ℓ/∂x_n‖ / ‖F'(a_n)‖_∞."""
        run, last = self._run(x), self.spec.layers[-1]
        slope = grad(lambda y: self.forward.loss_of_output(y, t))(run.output)
        if last.activation is None:
            return torch.linalg.vector_norm(slope)
        return torch.linalg.vector_norm(slope) / self._slopes(last, run.arguments[last.name])[0].abs().amax()

    def _value(
        self, shifts: Mapping[str, Tensor], x: Tensor, t: Tensor, scales: Any, factor: Tensor, whole: bool
    ) -> Tensor:
        """Objective of a sample, or its loss alone."""
        run = self._run(x, shifts)
        value = factor * self.forward.loss_of_output(run.output, t)
        for name, scale in scales.items() if whole else ():
            value = value + scale / 2 * (run.values[name] ** 2).sum()
        return value

    def _split(self, flat: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.sizes, torch.split(flat, list(self.sizes.values())), strict=True))

    def _diagonal(self, matrix: Tensor) -> dict[str, np.ndarray]:
        """Diagonal blocks (…, n, n) by layer."""
        found, start = {}, 0
        for name, size in self.sizes.items():
            found[name] = matrix[..., start : start + size, start : start + size].numpy()
            start += size
        return found

    def exact(self, whole: bool = True) -> dict[str, np.ndarray]:
        """Second derivatives of each sample's objective (or loss) by every pre-activation, (B, n, n)."""
        zeros = torch.zeros(sum(self.sizes.values()), dtype=torch.float64)

        def one(x: Tensor, t: Tensor, scales: Any, factor: Tensor) -> Tensor:
            def value(flat: Tensor) -> Tensor:
                return self._value(self._split(flat), x, t, scales, factor, whole)

            return jacrev(jacrev(value))(zeros)

        return self._diagonal(vmap(one)(self.inputs, self.targets, self.scales, self.loss_scale))

    @cached_property
    def jacobian(self) -> Tensor:
        """Outputs by all pre-activations, (B, n_out, S)."""
        zeros = torch.zeros(sum(self.sizes.values()), dtype=torch.float64)
        return vmap(lambda x: jacrev(lambda flat: self._run(x, self._split(flat)).output)(zeros))(self.inputs)

    @cached_property
    def outputs(self) -> Tensor:
        """(B, n_out)."""
        return vmap(lambda x: self._run(x).output)(self.inputs)

    @cached_property
    def loss_hessian(self) -> Tensor:
        """∂²ℓ by the output, (B, n, n)."""
        found = vmap(jacrev(jacrev(self.forward.loss_of_output)))(self.outputs, self.targets)
        return found * self.loss_scale[:, None, None]

    def gauss_newton(self) -> dict[str, np.ndarray]:
        """Jᵀ ∂²ℓ J of each sample."""
        j = self.jacobian
        return self._diagonal(j.transpose(1, 2) @ self.loss_hessian @ j)

    def scores(self, targets: Tensor) -> Tensor:
        """∂ℓ by the output at other targets (B, n)."""
        return vmap(grad(self.forward.loss_of_output))(self.outputs, targets) * self.loss_scale[:, None]

    def outer(self, weights: Tensor, scores: Tensor) -> dict[str, np.ndarray]:
        """Σ_c w_c (Jᵀ s_c)(Jᵀ s_c)ᵀ of every sample, (B, n, n); weights (B, C), scores (B, C, n)."""
        pulled = torch.einsum("bcn,bns->bcs", scores, self.jacobian)
        return self._diagonal(torch.einsum("bc,bcs,bcu->bsu", weights, pulled, pulled))

    def fisher(self) -> dict[str, np.ndarray]:
        """Batch means of :meth:`fisher_of_samples`."""
        return means(self.fisher_of_samples())

    def fisher_of_samples(self) -> dict[str, np.ndarray]:
        """Over the classes with softmax of the output whatever the loss is; for vectors Jᵀ ∂²ℓ J."""
        if self.spec.loss.targets == "vectors":
            return self.gauss_newton()
        p = torch.softmax(self.outputs, dim=1)
        every = torch.eye(p.shape[1], dtype=torch.float64)
        scores = [self.scores(row.expand(len(p), -1)) for row in every]
        return self.outer(p, torch.stack(scores, dim=1))

    def at(self, targets: Tensor) -> dict[str, np.ndarray]:
        """Outer products of the gradients of the data loss at given targets, averaged."""
        return means(self.of_samples_at(targets))

    def of_samples_at(self, targets: Tensor) -> dict[str, np.ndarray]:
        """Outer products of the gradients of the data loss at given targets."""
        scores = self.scores(targets)[:, None]
        return self.outer(torch.ones(len(scores), 1, dtype=torch.float64), scores)

    def dense(self) -> dict[str, np.ndarray]:
        """Diagonal blocks of the dense Hessian of the objective by parameter tensor."""
        matrix = oracle_torch.dense_hessian(self.spec, self.params, self.inputs, self.raw).numpy()
        found, start = {}, 0
        for name, value in self.params.items():
            stop = start + value.numel()
            found[name] = matrix[start:stop, start:stop]
            start = stop
        return found

    def layer_inputs(self) -> dict[str, np.ndarray]:
        """Inputs of the layers that own parameters, (B, m)."""
        values = vmap(lambda x: dict(self._run(x).values))(self.inputs)
        return {layer.name: values[layer.inputs[0]].numpy() for layer in owners(self.spec)}

    def _slopes(self, layer: LayerSpec, a: Tensor) -> tuple[Tensor, Tensor]:
        """F'(a) and F''(a)."""
        if layer.activation is None:
            return torch.ones_like(a), torch.zeros_like(a)

        def slope(v: Tensor) -> Tensor:
            return jvp(lambda u: self.forward.activate(layer.activation, u), (v,), (torch.ones_like(v),))[1]

        return jvp(slope, (a,), (torch.ones_like(a),))

    @cached_property
    def _layers(self) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
        """Values of all layers (B, n), and F'(a) and F''(a) of each."""
        runs = vmap(lambda x: (lambda r: (dict(r.values), dict(r.arguments)))(self._run(x)))(self.inputs)
        values, arguments = runs
        shapes = {
            layer.name: vmap(lambda a, layer=layer: self._slopes(layer, a))(
                arguments.get(layer.name, values[layer.name])
            )
            for layer in self.spec.layers
        }
        return values, shapes

    def rewritten(self, kind: Kind) -> dict[str, np.ndarray]:
        """Blocks (B, n, n), or (1, n, n) with the expectation approximation, of a kind that is not factored.

        States are eliminated from the last layer to the first: C is the Hessian by the values of the
        layers that are left.
        """
        whole = kind.source == "objective"
        layers = {layer.name: layer for layer in self.spec.layers}
        last = self.spec.layers[-1].name
        values, shapes = self._layers
        count = len(self.inputs)
        scale = {n: (self.scales.get(n) if whole else None) for n in layers}
        scale = {n: torch.zeros(count, dtype=torch.float64) if s is None else s for n, s in scale.items()}
        left = {n: torch.diag_embed(scale[n][:, None].expand(-1, layers[n].size)) for n in layers}
        curvature: dict[tuple[str, str], Tensor] = {(n, n): value for n, value in left.items()}
        curvature[last, last] = curvature[last, last] + self.loss_hessian
        slopes = {n: scale[n][:, None] * values[n] for n in layers}
        slopes[last] = slopes[last] + self.scores(self.targets)
        found: dict[str, np.ndarray] = {}

        def mean(value: Tensor) -> Tensor:
            return value.mean(0, keepdim=True) if kind.expectation else value

        for name in reversed(list(layers)):
            layer, (d, second) = layers[name], shapes[name]
            own = curvature.pop((name, name))
            block = mean(d[:, :, None] * own * d[:, None, :])
            residual = mean(second * slopes[name])
            match kind.residual:
                case "dropped":
                    residual = torch.zeros_like(residual)
                case "absolute":
                    residual = residual.abs()
                case "clipped":
                    residual = residual.clamp(min=0)
            if name == last and kind.output != "kept":
                # EA-CG(8a): the whole block of the output, the curvature of its activation in it.
                if kind.residual != "dropped":
                    residual = mean(second * slopes[name])
                eigenvalues, vectors = torch.linalg.eigh(block + torch.diag_embed(residual))
                eigenvalues = eigenvalues.abs() if kind.output == "absolute" else eigenvalues.clamp(min=0)
                block = (vectors * eigenvalues[:, None, :]) @ vectors.transpose(1, 2)
            else:
                block = block + torch.diag_embed(residual)
            found[name] = block.numpy()
            mixed = {
                u: mean(d[:, :, None] * curvature.pop((v, u)))
                for v, u in list(curvature)
                if v == name and u != name
            }
            for key in [key for key in curvature if name in key]:
                del curvature[key]
            steps = {}
            for source in layer.inputs:
                if source in layers:
                    weight = self.params.get(f"{layer.share or name}.weight")
                    identity = torch.eye(layer.size, dtype=torch.float64)
                    steps[source] = weight if layer.kind == "dense" else identity
            for u, j in steps.items():
                slopes[u] = slopes[u] + (d * slopes[name]) @ j
                for w, k in steps.items():
                    self._add(curvature, u, w, j.T @ block @ k)
                for w, cross in mixed.items():
                    self._add(curvature, u, w, j.T @ cross)
                    self._add(curvature, w, u, cross.transpose(1, 2) @ j)
        return found

    @staticmethod
    def _add(curvature: dict[tuple[str, str], Tensor], u: str, w: str, part: Tensor) -> None:
        curvature[u, w] = curvature[u, w] + part if (u, w) in curvature else part

    def each(self, kind: Kind) -> dict[str, np.ndarray] | None:
        """Blocks of every sample; None with the expectation approximation, or where it depends on draws."""
        if kind.source == "fisher":
            return self.fisher_of_samples()
        if kind.source == "empirical":
            return self.of_samples_at(self.targets)
        return None if kind.expectation or kind.source == "sampled" else self.rewritten(kind)

    def kind(self, kind: Kind) -> dict[str, np.ndarray] | None:
        """Batch means of a kind; None where it depends on draws."""
        match kind.source:
            case "sampled":
                return None
            case "fisher":
                return self.fisher()
            case "empirical":
                return self.at(self.targets)
        return means(self.rewritten(kind))


def means(blocks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Over the first axis."""
    return {name: value.mean(axis=0) for name, value in blocks.items()}
