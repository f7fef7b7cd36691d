"""BackPACK's curvature of a chain, and its scale convention.

The factors of a Linear layer's weight are [B (out, out), A (in, in)], and its block is B ⊗ A in row-major
order; the bias has [B]. A is E[x xᵀ]. B is the batch mean of the block of the pre-activation where the loss
takes a mean, and the sum where it takes a sum. Diagonals are of the loss as it is, and what is given for each
sample is a part of them: with a mean it has one over the size of the batch in it.

Left out: ``PCHMP``, which multiplies the residual by the gradient twice, and the rank-one expectation
approximation (``ExpectationApproximation.CHEN``), which raises TypeError.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
import torch
from reference import Chain
from torch import Tensor, nn

__all__ = [
    "HBP_TYPES",
    "TOLERANCE",
    "agree",
    "as_float32",
    "distance",
    "empirical",
    "exact_blocks",
    "extended",
    "extensions",
    "factors",
    "hbp",
]

_REASON = "BackPACK, the peer, is not installed: pip install 'sifrc[peers]'"
backpack = pytest.importorskip("backpack", reason=_REASON)
extensions = pytest.importorskip("backpack.extensions", reason=_REASON)
_options = pytest.importorskip("backpack.extensions.secondorder.hbp.hbp_options", reason=_REASON)

TOLERANCE = 1e-5
"""Float32, relative to the largest entry of the block."""

HBP_TYPES = MappingProxyType(
    {"kept": "hessian", "absolute": "pch-abs", "clipped": "pch-clip", "dropped": "ggn"}
)
"""Residual of EA-CG(6, 8b) -> curvature type of BackPACK's HBP."""

_ACTIVATIONS = MappingProxyType({"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "relu": nn.ReLU})


def hbp(residual: str) -> Any:
    """Batch-averaged back-propagation of the block, EA-CG(6, 8b)."""
    return extensions.HBP(
        curv_type=HBP_TYPES[residual],
        loss_hessian_strategy=_options.LossHessianStrategy.SUM,
        backprop_strategy=_options.BackpropStrategy.BATCH_AVERAGE,
        ea_strategy=_options.ExpectationApproximation.BOTEV_MARTENS,
    )


def extended(
    chain: Chain, inputs: Tensor, targets: Tensor, extension: Any, reduction: str = "mean"
) -> list[nn.Linear]:
    """The Linear layers after a backward pass with an extension of BackPACK."""
    modules: list[nn.Module] = []
    for k, (weight, bias) in enumerate(zip(chain.weights, chain.biases)):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
        modules.append(layer)
        if (name := chain.activation_of(k)) is not None:
            modules.append(_ACTIVATIONS[name]())
    loss = nn.CrossEntropyLoss if chain.loss == "cross_entropy" else nn.MSELoss
    network, criterion = backpack.extend(nn.Sequential(*modules)), backpack.extend(loss(reduction=reduction))
    with backpack.backpack(extension):
        criterion(network(inputs.float().requires_grad_()), as_float32(targets)).backward()
    return [module for module in modules if isinstance(module, nn.Linear)]


def factors(layers: list[nn.Linear], field: str) -> tuple[list[Tensor], list[Tensor]]:
    """Output blocks and input moments."""
    for layer in layers:
        (block,) = getattr(layer.bias, field)
        assert torch.equal(block, getattr(layer.weight, field)[0])
    pairs = [getattr(layer.weight, field) for layer in layers]
    return [block for block, _ in pairs], [moment for _, moment in pairs]


def exact_blocks(layers: list[nn.Linear]) -> tuple[list[Tensor], list[Tensor]]:
    """Dense blocks of the biases and, in row-major order, of the weights: BackPACK's products with units."""
    weights = []
    for layer in layers:
        units = torch.eye(layer.weight.numel()).reshape(-1, *layer.weight.shape)
        weights.append(layer.weight.hmp(units).flatten(1))
    return [layer.bias.hmp(torch.eye(len(layer.bias))) for layer in layers], weights


def as_float32(targets: Tensor) -> Tensor:
    """Class indices stay as they are."""
    return targets.float() if targets.is_floating_point() else targets


def agree(found: list[Tensor], expected: list[Tensor], tolerance: float = TOLERANCE) -> None:
    """Equal shapes, and entries to the tolerance relative to the largest of each tensor."""
    assert len(found) == len(expected)
    for k, (ours, theirs) in enumerate(zip(found, expected)):
        assert ours.shape == theirs.shape
        error = distance([ours], [theirs])
        assert error <= tolerance, (k, error)


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference of a block, relative to its largest entry."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(found, expected)]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def empirical(layers: list[nn.Linear]) -> list[Tensor]:
    """E[δ δᵀ] from gradients of single samples, each of which has 1/B in it."""
    return [len(g) * g.T @ g for g in (layer.bias.grad_batch for layer in layers)]
