"""Curvature of chains of dense layers in plain dense algebra, float64: the equations of EA-CG as printed.

Nothing here uses sifrc or BackPACK, so that it can judge both. One sample has the output h, the loss ξ(h),
pre-activations a_k = W_k x_k + b_k, and δ_k = ∂ξ/∂a_k. Lists go from the first layer to the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "Chain",
    "State",
    "autodiff_blocks",
    "autodiff_diagonal",
    "batch_mean",
    "diagonal",
    "fisher_scores",
    "loss_scores",
    "mean_recursion",
    "random_chain",
    "sample_recursion",
    "score_blocks",
    "second_moments",
    "state_of",
    "whole_output",
]

Residual: TypeAlias = Literal["kept", "dropped", "absolute", "clipped"]

_ACTIVATIONS: Mapping[str, object] = MappingProxyType(
    {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu, None: lambda a: a}
)


@dataclass(frozen=True)
class Chain:
    """Dense layers with one activation between them.

    Args:
        weights: (out, in) of each layer.
        biases: (out,) of each layer.
        activation: tanh, sigmoid or relu.
        loss: mse (mean over the entries) or cross_entropy (class targets).
        last: activation of the output.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    activation: str
    loss: str
    last: str | None = None

    def activation_of(self, k: int) -> str | None:
        """Of layer k, from 0."""
        return self.activation if k < len(self.weights) - 1 else self.last


@dataclass(frozen=True)
class State:
    """What one pass forward and one back give, each with a leading sample axis.

    Args:
        inputs: x_k.
        slopes: F'(a_k).
        curvatures: F''(a_k).
        outer: ∂ξ/∂(F(a_k)).
        loss_hessian: ∂²ξ/∂h², (B, n, n).
    """

    inputs: list[Tensor]
    slopes: list[Tensor]
    curvatures: list[Tensor]
    outer: list[Tensor]
    loss_hessian: Tensor


def random_chain(
    sizes: tuple[int, ...],
    activation: str,
    loss: str,
    last: str | None = None,
    *,
    batch: int = 8,
    seed: int = 0,
) -> tuple[Chain, Tensor, Tensor]:
    """A chain, inputs and targets; every number is one of float32."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).double()

    pairs = list(pairwise(sizes))
    weights = tuple((normal(out, into) * 1.5 / into**0.5).float().double() for into, out in pairs)
    biases = tuple((normal(out) * 0.5).float().double() for _, out in pairs)
    inputs = normal(batch, sizes[0])
    if loss == "cross_entropy":
        targets = torch.randint(0, sizes[-1], (batch,), generator=generator)
    else:
        targets = normal(batch, sizes[-1])
    return Chain(weights, biases, activation, loss, last), inputs, targets


def state_of(chain: Chain, inputs: Tensor, targets: Tensor) -> State:
    """Derivatives in closed form."""
    xs, slopes, curvatures = [], [], []
    x = inputs
    for k, (weight, bias) in enumerate(zip(chain.weights, chain.biases)):
        xs.append(x)
        a = x @ weight.T + bias
        x, slope, curvature = _activate(chain.activation_of(k), a)
        slopes.append(slope)
        curvatures.append(curvature)
    size = x.shape[1]
    eye = torch.eye(size, dtype=x.dtype)
    if chain.loss == "cross_entropy":
        p = torch.softmax(x, 1)
        gradient = p - F.one_hot(targets, size)
        hessian = p[:, :, None] * eye - p[:, :, None] * p[:, None, :]
    else:
        gradient = 2 * (x - targets) / size
        hessian = (2 / size * eye).expand(len(x), size, size)
    outer = [gradient]
    for weight, slope in zip(reversed(chain.weights[1:]), reversed(slopes[1:])):
        outer.append((slope * outer[-1]) @ weight)
    return State(xs, slopes, curvatures, outer[::-1], hessian)


def _activate(name: str | None, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """F, F', F''."""
    if name == "tanh":
        value = torch.tanh(a)
        return value, 1 - value**2, -2 * value * (1 - value**2)
    if name == "sigmoid":
        value = 1 / (1 + torch.exp(-a))
        return value, value * (1 - value), value * (1 - value) * (1 - 2 * value)
    if name == "relu":
        return a.clamp(min=0), (a > 0).to(a.dtype), torch.zeros_like(a)
    return a, torch.ones_like(a), torch.zeros_like(a)


def sample_recursion(chain: Chain, state: State, residual: Residual = "kept") -> list[Tensor]:
    """EA-CG(4a, 4b): (B, n_k, n_k). The residual of each sample may be changed, unlike EA-CG(8b)."""
    blocks: list[Tensor] = []
    inner = state.loss_hessian
    for k in reversed(range(len(chain.weights))):
        slope = state.slopes[k]
        curved = slope[:, :, None] * inner * slope[:, None, :]
        diagonal = _modified(state.curvatures[k] * state.outer[k], residual)
        blocks.append(curved + torch.diag_embed(diagonal))
        inner = chain.weights[k].T @ blocks[-1] @ chain.weights[k]
    return blocks[::-1]


def mean_recursion(
    chain: Chain, state: State, residual: Residual, output: Tensor | None = None
) -> list[Tensor]:
    """EA-CG(6), or EA-CG(8b): (n_k, n_k), from batch means alone.

    Args:
        chain: the network.
        state: of the batch.
        residual: what becomes of E[F'' ∘ ∂ξ/∂h]; ``dropped`` is KFRA.
        output: the block of the output's pre-activation. By default the last layer is treated as the
            others are, from E[∂²ξ/∂h²]; where it has no activation that is EA-CG(8a), both losses
            being convex.
    """
    blocks: list[Tensor] = []
    inner = state.loss_hessian.mean(0)
    for k in reversed(range(len(chain.weights))):
        slope = state.slopes[k]
        curved = inner * (slope.T @ slope / len(slope))
        diagonal = _modified((state.curvatures[k] * state.outer[k]).mean(0), residual)
        block = curved + torch.diag(diagonal)
        if output is not None and not blocks:
            block = output
        blocks.append(block)
        inner = chain.weights[k].T @ block @ chain.weights[k]
    return blocks[::-1]


def whole_output(chain: Chain, state: State, residual: Residual) -> Tensor:
    """The output's block with its activation inside ξ, as the paper has it: EA-CG(8a), absolute values."""
    if residual in ("kept", "dropped"):
        return sample_recursion(chain, state, residual)[-1].mean(0)
    values, vectors = torch.linalg.eigh(sample_recursion(chain, state, "kept")[-1].mean(0))
    return vectors @ torch.diag(values.abs()) @ vectors.T


def _modified(diagonal: Tensor, residual: Residual) -> Tensor:
    if residual == "dropped":
        return torch.zeros_like(diagonal)
    if residual == "absolute":
        return diagonal.abs()
    return diagonal.clamp(min=0) if residual == "clipped" else diagonal


def score_blocks(chain: Chain, state: State, scores: Tensor) -> list[Tensor]:
    """E[Σ_c y_c y_cᵀ], every y_c back-propagated as a vector.

    Args:
        chain: the network.
        state: of the batch.
        scores: (B, n, C), Σ_c s_c s_cᵀ being the curvature in h.
    """
    blocks = []
    for k in reversed(range(len(chain.weights))):
        scores = state.slopes[k][:, :, None] * scores
        blocks.append(torch.einsum("bic,bjc->ij", scores, scores) / len(scores))
        scores = torch.einsum("oi,boc->bic", chain.weights[k], scores)
    return blocks[::-1]


def loss_scores(state: State) -> Tensor:
    """Of the Gauss–Newton matrix: a square root of ∂²ξ/∂h²."""
    values, vectors = torch.linalg.eigh(state.loss_hessian)
    return vectors * values.clamp(min=0).sqrt()[:, None, :]


def fisher_scores(chain: Chain, inputs: Tensor) -> Tensor:
    """Of the Fisher matrix over all classes: √p_c ∂ξ/∂h at the class c."""
    *_, x = _forward(chain, inputs)
    p = torch.softmax(x, 1)
    return (p[:, :, None] - torch.eye(p.shape[1], dtype=p.dtype)) * p.sqrt()[:, None, :]


def batch_mean(per_sample: list[Tensor]) -> list[Tensor]:
    """E of each."""
    return [value.mean(0) for value in per_sample]


def second_moments(state: State) -> list[Tensor]:
    """E[x xᵀ] of each layer."""
    return [x.T @ x / len(x) for x in state.inputs]


def diagonal(state: State, blocks: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Diagonals of EA-CG(4c) and of the bias' block, by layer, from blocks per sample."""
    entries = [block.diagonal(dim1=1, dim2=2) for block in blocks]
    return [(h.T @ x**2 / len(x), h.mean(0)) for x, h in zip(state.inputs, entries)]


def _forward(chain: Chain, x: Tensor, shifts: Mapping[int, Tensor] = MappingProxyType({})) -> list[Tensor]:
    """Outputs of the layers; shifts are added to the pre-activations."""
    values = []
    for k, (weight, bias) in enumerate(zip(chain.weights, chain.biases)):
        a = x @ weight.T + bias + shifts.get(k, 0.0)
        x = _ACTIVATIONS[chain.activation_of(k)](a)
        values.append(x)
    return values


def _loss(chain: Chain, output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target) if chain.loss == "cross_entropy" else F.mse_loss(output, target)


def autodiff_blocks(chain: Chain, inputs: Tensor, targets: Tensor) -> list[Tensor]:
    """∂²ξ/∂a_k², (B, n_k, n_k), by differentiating the forward pass twice."""
    blocks = []
    for k, bias in enumerate(chain.biases):

        def value(shift: Tensor, x: Tensor, t: Tensor, k: int = k) -> Tensor:
            return _loss(chain, _forward(chain, x, {k: shift})[-1], t)

        hessian = torch.func.vmap(torch.func.hessian(value), in_dims=(None, 0, 0))
        blocks.append(hessian(torch.zeros_like(bias), inputs, targets))
    return blocks


def autodiff_diagonal(chain: Chain, inputs: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Diagonal of the Hessian of the mean loss in weights and biases, by layer."""
    found = []
    for k, (weight, bias) in enumerate(zip(chain.weights, chain.biases)):

        def value(flat: Tensor, k: int = k, n: int = weight.numel()) -> Tensor:
            weights, biases = list(chain.weights), list(chain.biases)
            weights[k], biases[k] = flat[:n].reshape(weights[k].shape), flat[n:]
            moved = Chain(tuple(weights), tuple(biases), chain.activation, chain.loss, chain.last)
            return _loss(moved, _forward(moved, inputs)[-1], targets)

        entries = torch.func.hessian(value)(torch.cat([weight.flatten(), bias])).diagonal()
        found.append((entries[: weight.numel()].reshape(weight.shape), entries[weight.numel() :]))
    return found
