"""Oracle by automatic differentiation: the spec's forward pass in torch, float64, and ``torch.func``.

It reads the spec and its syntax trees only, never a derived expression. Both branches of a ``where`` are
computed, as torch does: a branch that is infinite or undefined where it is not taken gives NaN in
derivatives, which a comparison then reports as a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, hessian, jacrev, jvp, vjp, vmap

from sifrc.spec.types import FunctionSpec, Spec
from sifrc.verify.oracles.network import (
    Pass,
    argument_names,
    buffer_values,
    counted,
    couples,
    forward_pass,
    forward_passes,
    one_hot,
    parameter_shapes,
    placed_loss,
    regularized_states,
    spectral_chain,
    with_mask,
)
from sifrc.verify.oracles.trees import evaluate_tree

__all__ = [
    "ForwardTorch",
    "Parameters",
    "dense_hessian",
    "flatten",
    "ggn_vp",
    "gradient",
    "hvp",
    "jacobian",
    "output_along",
    "pulled",
    "unflatten",
]

Parameters: TypeAlias = Mapping[str, Tensor]


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def _softplus(x: Tensor) -> Tensor:
    # torch's own softplus is the identity above a threshold, off by 2e-9 there.
    return torch.logaddexp(x, torch.zeros_like(x))


_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {name: getattr(torch, name) for name in ("abs", "asinh", "atan", "cos", "cosh", "erf", "exp", "expm1")}
    | {name: getattr(torch, name) for name in ("log", "log1p", "sigmoid", "sin", "sinh", "sqrt", "tan")}
    | {"tanh": torch.tanh, "softplus": _softplus}
)


class _TorchOperations:
    """Tensors of float64; what a loss sums has one dimension."""

    functions: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
        {name: lambda x, f=function: f(_tensor(x)) for name, function in _FUNCTIONS.items()}  # type: ignore[misc]
    )

    def __init__(self, size: int) -> None:
        self.size = size

    def number(self, numerator: int, denominator: int) -> float:
        return numerator / denominator

    def parameter(self, value: float) -> float:
        return value

    def power(self, base: Any, exponent: Any) -> Any:
        return _tensor(base) ** exponent

    def choose(self, condition: Any, chosen: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        if isinstance(condition, bool):
            return chosen() if condition else otherwise()
        return torch.where(condition, _tensor(chosen()), _tensor(otherwise()))

    def total(self, vector: Any) -> Tensor:
        value = _tensor(vector)
        return value.sum() if value.dim() else value * self.size

    def log_sum_exp(self, vector: Any) -> Tensor:
        return torch.logsumexp(_tensor(vector).expand(self.size), dim=0)


class ForwardTorch:
    """The objective of a spec as a function of its parameters.

    Calling it gives the objective of a batch: mean (or sum, as the spec says) of loss and state
    regularisation. Parameters are float64 tensors by name, inputs (B, *axes of the network input), targets
    (B,) class indices or (B, n_out).

    Args:
        spec: the network.

    Example:
        >>> from sifrc.spec import build_spec
        >>> spec = build_spec({"sifrc": 1, "name": "tiny", "loss": "squared_error", "network": {
        ...     "input": {"size": 1}, "layers": [{"name": "fc", "type": "dense", "units": 1}]}})
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> float(ForwardTorch(spec)({"fc.weight": one, "fc.bias": one[0]}, 2 * one, 0 * one))
        4.5
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.shapes = parameter_shapes(spec)
        self.couples = couples(spec)
        self.buffers = {name: _tensor(value) for name, value in buffer_values(spec).items()}
        self.operations = _TorchOperations(spec.layers[-1].shape[spec.loss.axis])

    def __call__(self, params: Parameters, inputs: Tensor, targets: Tensor) -> Tensor:
        """Objective of the batch, a scalar."""
        return self.differentiable(params, inputs, targets)(params)

    def output(self, params: Parameters, inputs: Tensor) -> Tensor:
        """Network outputs, (B, n_out)."""
        whole = {**self.buffers, **params}
        if self.couples:
            runs = forward_passes(self.spec, whole, inputs.unbind(), self.activate)
            return torch.stack([run.output for run in runs])
        outputs: Tensor = vmap(lambda x: forward_pass(self.spec, whole, x, self.activate).output)(inputs)
        return outputs

    def sample_losses(self, params: Parameters, inputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of every sample, (B,)."""
        vectors = self.target_vectors(inputs, targets)
        losses: Tensor = vmap(self.loss_of_output)(self.output(params, inputs), vectors)
        return losses * self._per_counted(inputs, targets)

    def loss(self, params: Parameters, inputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of the batch without regularisation, a scalar."""
        return self._reduce(self.sample_losses(params, inputs, targets))

    def factors(self, params: Parameters, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """λ of every regularised state for every sample, state name -> (B,).

        For ``spectral`` it is MK(65), ‖F'(a_{k+1}) ∘ b_{k+1}‖₂ / ‖F'(a_k)‖_∞ with the adjoint of the loss
        alone; it is computed apart, so that nothing differentiates through it.
        """
        if self.spec.regularization.kind != "spectral":
            one = torch.ones(len(inputs), dtype=torch.float64)
            return {name: one * (value or 0.0) for name, value in regularized_states(self.spec).items()}
        states = spectral_chain(self.spec)
        with torch.no_grad():
            pairs = vmap(lambda x, t: self._adjoint_norms(params, x, t))(
                inputs, self.target_vectors(inputs, targets)
            )
        norms, slopes = pairs
        return {name: norms[after] / slopes[name] for name, after in pairwise(states)}

    def differentiable(self, params: Parameters, inputs: Tensor, targets: Tensor) -> Callable[[Any], Tensor]:
        """The objective as a function of the parameters alone, λ held at its value at ``params``."""
        vectors, held = self.target_vectors(inputs, targets), self._held(params, inputs, targets)
        return lambda moved: self._reduce(self._sample_objectives(moved, inputs, vectors, *held))

    def data_loss(self, params: Parameters, inputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """The loss of the batch, as the objective has it, as a function of the network outputs (B, n_out)."""
        vectors, weights = self.target_vectors(inputs, targets), self.loss_factors(params, inputs, targets)
        return lambda outputs: self._reduce(weights * vmap(self.loss_of_output)(outputs, vectors))

    def loss_factors(self, params: Parameters, inputs: Tensor, targets: Tensor) -> Tensor:
        """What the objective multiplies the loss of every sample by, (B,): one for all, or λ_n of MK(68)."""
        one = torch.ones(len(inputs), dtype=torch.float64)
        if self.spec.regularization.output == "none":
            return one * self._per_counted(inputs, targets)
        with torch.no_grad():
            outputs = self.output(params, inputs)
            scores = vmap(grad(self.loss_of_output))(outputs, self.target_vectors(inputs, targets))
            pairs = vmap(lambda x, t: self._adjoint_norms(params, x, t))(
                inputs, self.target_vectors(inputs, targets)
            )
        factors: Tensor = torch.linalg.vector_norm(scores, dim=1) / pairs[1][spectral_chain(self.spec)[-1]]
        return factors

    def _held(
        self, params: Parameters, inputs: Tensor, targets: Tensor
    ) -> tuple[Mapping[str, Tensor], Tensor]:
        """What is a value of the sample and no variable."""
        return self.factors(params, inputs, targets), self.loss_factors(params, inputs, targets)

    def _sample_objectives(
        self,
        params: Parameters,
        inputs: Tensor,
        vectors: Tensor,
        factors: Mapping[str, Tensor],
        weights: Tensor,
    ) -> Tensor:
        whole = {**self.buffers, **params}
        penalty = sum(
            (number / 2 * (params[name] ** 2).sum() for name, number in self.spec.regularization.parameters),
            torch.zeros((), dtype=torch.float64),
        )

        def of_run(run: Pass, t: Tensor, scales: Mapping[str, Tensor], weight: Tensor) -> Tensor:
            value = weight * self.loss_of_output(run.output, t)
            for name, factor in scales.items():
                value = value + factor / 2 * (run.values[name] ** 2).sum()
            return value + penalty

        def one(x: Tensor, t: Tensor, scales: Mapping[str, Tensor], weight: Tensor) -> Tensor:
            return of_run(forward_pass(self.spec, whole, x, self.activate), t, scales, weight)

        if not self.couples:
            return vmap(one)(inputs, vectors, dict(factors), weights)
        runs = forward_passes(self.spec, whole, inputs.unbind(), self.activate)
        each = [{name: factor[n] for name, factor in factors.items()} for n in range(len(runs))]
        return torch.stack([of_run(*own) for own in zip(runs, vectors, each, weights, strict=True)])

    def _adjoint_norms(
        self, params: Parameters, x: Tensor, t: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """By state, which is named as the layer with its pre-activation: ‖∂ℓ/∂a_k‖₂ and ‖F'(a_k)‖_∞."""
        shapes, params = self.spec.shapes, {**self.buffers, **params}
        zeros = {state: x.new_zeros(shapes[state]) for state in spectral_chain(self.spec)}

        def loss(shifts: Mapping[str, Tensor]) -> Tensor:
            return self.loss_of_output(forward_pass(self.spec, params, x, self.activate, shifts).output, t)

        by_shift = grad(loss)(zeros)
        arguments = forward_pass(self.spec, params, x, self.activate).arguments
        norms = {state: torch.linalg.vector_norm(by_shift[state]) for state in zeros}
        functions = {layer.name: layer.activation for layer in self.spec.layers}
        slopes: dict[str, Tensor] = {}
        for state in zeros:
            function = functions[state]
            if function is None:
                slopes[state] = x.new_ones(())
                continue
            ones = x.new_ones(shapes[state])
            slope = jvp(lambda a, f=function: self.activate(f, a), (arguments[state],), (ones,))[1]
            slopes[state] = slope.abs().amax()
        return norms, slopes

    def activate(self, function: FunctionSpec, argument: Tensor, *others: Tensor) -> Tensor:
        """An activation at all entries of a tensor, or a function of entries of several."""
        arguments = (argument, *others)
        scope = dict(zip(argument_names(len(arguments)), arguments, strict=True)) | dict(function.parameters)
        value = _tensor(evaluate_tree(function.expression, scope, self.operations))
        # A function that is a constant has one number for all entries.
        return value.expand_as(argument).clone()

    def loss_of_output(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of an output and a target, all axes as one."""
        function = self.spec.loss.function

        def loss(y: Tensor, t: Tensor) -> Tensor:
            scope = {"y": y, "t": t, **dict(function.parameters)}
            return _tensor(evaluate_tree(function.expression, scope, self.operations))

        return _tensor(placed_loss(self.spec, output, target, loss))

    def target_vectors(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Targets as vectors (B, n_out), with a mask after them; class indices become one-hot."""
        if self.spec.loss.targets == "vectors":
            vectors = targets.to(torch.float64).reshape(len(targets), -1)
        else:
            vectors = torch.from_numpy(np.stack([one_hot(self.spec, target.numpy()) for target in targets]))
        found: Tensor = with_mask(self.spec, vectors, inputs)
        return found

    def _per_counted(self, inputs: Tensor, targets: Tensor) -> float:
        """One over what counts of the targets of a sample on average."""
        return 1.0 / float(counted(self.spec, [*self.target_vectors(inputs, targets)]))

    def _reduce(self, values: Tensor) -> Tensor:
        return values.sum() if self.spec.loss.reduction == "sum" else values.mean()


def flatten(params: Parameters) -> Tensor:
    """All entries as one vector, in the order of the dict."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(vector: Tensor, params: Parameters) -> dict[str, Tensor]:
    """A vector cut into the shapes of ``params``."""
    pieces = torch.split(vector, [value.numel() for value in params.values()])
    return {
        name: piece.reshape(value.shape) for piece, (name, value) in zip(pieces, params.items(), strict=True)
    }


def gradient(spec: Spec, params: Parameters, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Gradient of the objective, shaped like the parameters."""
    objective = ForwardTorch(spec).differentiable(params, inputs, targets)
    result: dict[str, Tensor] = grad(objective)(dict(params))
    return result


def hvp(
    spec: Spec, params: Parameters, inputs: Tensor, targets: Tensor, vector: Parameters
) -> dict[str, Tensor]:
    """Hessian of the objective times a vector, both shaped like the parameters."""
    objective = ForwardTorch(spec).differentiable(params, inputs, targets)

    def slope(moved: Parameters) -> Tensor:
        along = grad(objective)(moved)
        return torch.stack([(along[name] * vector[name]).sum() for name in along]).sum()

    result: dict[str, Tensor] = grad(slope)(dict(params))
    return result


def ggn_vp(
    spec: Spec, params: Parameters, inputs: Tensor, targets: Tensor, vector: Parameters
) -> dict[str, Tensor]:
    """Jᵀ ∇²ℓ J times a vector: the Gauss–Newton matrix of the loss, as the objective has it."""
    forward = ForwardTorch(spec)

    def network(moved: Parameters) -> Tensor:
        return forward.output(moved, inputs)

    linear = jvp(network, (dict(params),), ({name: vector[name] for name in params},))
    outputs, moved = linear[0], linear[1]
    loss = forward.data_loss(params, inputs, targets)
    curved = grad(lambda y: (grad(loss)(y) * moved).sum())(outputs)
    pull = vjp(network, dict(params))[1]
    result: dict[str, Tensor] = pull(curved)[0]
    return result


def output_along(spec: Spec, params: Parameters, inputs: Tensor, vector: Parameters) -> Tensor:
    """J times a vector, (B, n_out): all axes of the output as one."""
    forward = ForwardTorch(spec)
    directions = {name: vector[name] for name in params}
    moved: Tensor = jvp(lambda values: forward.output(values, inputs), (dict(params),), (directions,))[1]
    return moved.flatten(1)


def pulled(spec: Spec, params: Parameters, inputs: Tensor, cotangents: Tensor) -> dict[str, Tensor]:
    """Jᵀ times cotangents (B, n_out)."""
    forward = ForwardTorch(spec)
    pull = vjp(lambda values: forward.output(values, inputs).flatten(1), dict(params))[1]
    result: dict[str, Tensor] = pull(cotangents)[0]
    return result


def dense_hessian(spec: Spec, params: Parameters, inputs: Tensor, targets: Tensor) -> Tensor:
    """Hessian of the objective, (P, P), in the order of the params dict."""
    objective = ForwardTorch(spec).differentiable(params, inputs, targets)
    result: Tensor = hessian(lambda vector: objective(unflatten(vector, params)))(flatten(params))
    return result


def jacobian(spec: Spec, params: Parameters, inputs: Tensor) -> Tensor:
    """Derivative of the network outputs, (B, n_out, P), in the order of the params dict."""
    forward = ForwardTorch(spec)
    result: Tensor = jacrev(lambda vector: forward.output(unflatten(vector, params), inputs))(flatten(params))
    return result
