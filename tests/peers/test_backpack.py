"""Curvature blocks and factors of generated modules against BackPACK, an independent implementation."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import pytest
import reference
import torch
from chains import BATCH, CHAINS, CLOSED
from peer import TOLERANCE, agree, as_float32, empirical, exact_blocks, extended, extensions, factors, hbp
from reference import Chain
from torch import Tensor

import sifrc
from sifrc.spec import build_spec

OPERATORS = ("block_hessian", "curvature_factors", "hessian_diagonal")
KINDS = {"expected": "kept", "pch1": "absolute", "pch2": "clipped", "kfra": "dropped"}
"""Kinds with the expectation approximation -> what becomes of their residual."""
CURVATURE = [
    "hessian",
    "pch1",
    "pch2",
    "kfra",
    "ggn",
    "fisher",
    "empirical_fisher",
    {"name": "expected", "kind": "hessian", "expectation": True},
]
"""Kinds of the modules; ``expected`` is EA-CG(6)."""


@cache
def module_of(
    sizes: tuple[int, ...], activation: str, loss: str, last: str | None = None, reduction: str = "mean"
) -> ModuleType:
    """The generated Torch module of a chain fc1, fc2, …"""
    layers: list[dict[str, Any]] = [
        {"name": f"fc{k}", "type": "dense", "units": units, "activation": activation}
        for k, units in enumerate(sizes[1:], start=1)
    ]
    del layers[-1]["activation"]
    if last is not None:
        layers[-1]["activation"] = last
    document = {
        "sifrc": 1,
        "name": "peer",
        "network": {"input": {"name": "image", "size": sizes[0]}, "layers": layers},
        "loss": {"function": loss, "reduction": reduction},
        "regularization": {"state": "none"},
        "dtype": "float32",
        "curvature": CURVATURE,
    }
    return sifrc.compile(
        build_spec(document), backend="torch", method="none", operators=OPERATORS, cache=False
    )


def arguments(chain: Chain, inputs: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Of the operators, float32."""
    params = {}
    for k, (weight, bias) in enumerate(zip(chain.weights, chain.biases), start=1):
        params |= {f"fc{k}.weight": weight.float(), f"fc{k}.bias": bias.float()}
    return params, inputs.float(), as_float32(targets)


def in_order(found: dict[str, Any], part: str = "") -> list[Any]:
    """Values of the layers fc1, fc2, …; the whole dict must have no other keys of this part."""
    names = sorted(
        (name for name in found if name.endswith(part)), key=lambda name: int(name[2:].split(".")[0])
    )
    assert names == [f"fc{k}{part}" for k in range(1, len(names) + 1)]
    return [found[name] for name in names]


def own_factors(module: ModuleType, batch: Any, kind: str) -> tuple[list[Tensor], list[Tensor]]:
    """Output blocks and input moments of a module; block_hessian must have the same blocks."""
    pairs = in_order(module.curvature_factors(*batch, kind=kind, moment="second"))
    blocks = [block for _, block in pairs]
    agree(in_order(module.block_hessian(*batch, kind=kind), ".bias"), blocks, TOLERANCE)
    assert all(block.dtype == torch.float32 for block in blocks)
    return blocks, [moment for moment, _ in pairs]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sizes", "activation", "loss"), CHAINS)
def test_approximate_kinds_agree_with_hbp(sizes, activation, loss, kind):
    """EA-CG(6), PCH-1, PCH-2 and KFRA: HBP with batch-averaged back-propagation, both factors."""
    chain, *batch = reference.random_chain(sizes, activation, loss)
    found = own_factors(module_of(sizes, activation, loss), arguments(chain, *batch), kind)
    for ours, theirs in zip(found, factors(extended(chain, *batch, hbp(KINDS[kind])), "hbp")):
        agree(ours, theirs)
    if kind == "kfra":
        for ours, theirs in zip(found, factors(extended(chain, *batch, extensions.KFRA()), "kfra")):
            agree(ours, theirs)


@pytest.mark.parametrize("kind", ["ggn", "fisher"])
@pytest.mark.parametrize(("sizes", "activation", "loss"), CHAINS)
def test_gauss_newton_and_fisher_agree_with_kflr(sizes, activation, loss, kind):
    """KFLR back-propagates a square root of ∂²ξ/∂h² for each sample; both losses are log-likelihoods."""
    chain, *batch = reference.random_chain(sizes, activation, loss)
    module, own = module_of(sizes, activation, loss), arguments(chain, *batch)
    for ours, theirs in zip(
        own_factors(module, own, kind), factors(extended(chain, *batch, extensions.KFLR()), "kflr")
    ):
        agree(ours, theirs)
    diagonals = [layer.bias.diag_ggn_exact for layer in extended(chain, *batch, extensions.DiagGGNExact())]
    agree([block.diagonal() for block in in_order(module.block_hessian(*own, kind=kind), ".bias")], diagonals)


@pytest.mark.parametrize(("sizes", "activation", "loss"), CHAINS)
def test_empirical_fisher_agrees_with_gradients_of_samples(sizes, activation, loss):
    """E[δ δᵀ] from BackPACK's BatchGrad."""
    chain, *batch = reference.random_chain(sizes, activation, loss)
    blocks, _ = own_factors(module_of(sizes, activation, loss), arguments(chain, *batch), "empirical_fisher")
    agree(blocks, empirical(extended(chain, *batch, extensions.BatchGrad())))


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_fisher_is_what_kfac_samples(loss):
    """KFAC with many drawn targets; its error falls with the root of their number."""
    sizes, activation = (4, 6, 5, 3), "tanh"
    chain, *batch = reference.random_chain(sizes, activation, loss)
    blocks, _ = own_factors(module_of(sizes, activation, loss), arguments(chain, *batch), "fisher")
    torch.manual_seed(0)
    samples = 20_000
    sampled, _ = factors(extended(chain, *batch, extensions.KFAC(mc_samples=samples)), "kfac")
    agree(blocks, sampled, 5 / samples**0.5)


@pytest.mark.parametrize(("sizes", "activation", "loss"), CHAINS)
def test_hessian_agrees_with_exact_products(sizes, activation, loss):
    """Batch means of exact blocks, of biases and of whole weights: HMP times the unit vectors."""
    chain, *batch = reference.random_chain(sizes, activation, loss)
    module, own = module_of(sizes, activation, loss), arguments(chain, *batch)
    biases, weights = exact_blocks(extended(chain, *batch, extensions.HMP()))
    agree(own_factors(module, own, "hessian")[0], biases)
    dense = module.block_hessian(*own, kind="hessian", dense=True)
    agree(in_order(dense, ".bias"), biases)
    agree(in_order(dense, ".weight"), weights)


@pytest.mark.parametrize(("sizes", "activation", "loss"), CHAINS)
def test_hessian_of_each_sample_agrees_with_hbp(sizes, activation, loss):
    """With one sample HBP(HESSIAN) is exact; so is the mean of its blocks over the samples of a batch."""
    chain, inputs, targets = reference.random_chain(sizes, activation, loss)
    module = module_of(sizes, activation, loss)
    samples = [
        factors(extended(chain, inputs[i : i + 1], targets[i : i + 1], hbp("kept")), "hbp")[0]
        for i in range(BATCH)
    ]
    stacked = [torch.stack(blocks) for blocks in zip(*samples)]
    own = arguments(chain, inputs, targets)
    agree(in_order(module.block_hessian(*own, kind="hessian", reduction="none"), ".bias"), stacked)
    agree(in_order(module.block_hessian(*own), ".bias"), reference.batch_mean(stacked))
    one = arguments(chain, inputs[:1], targets[:1])
    agree(own_factors(module, one, "hessian")[0], samples[0])


@pytest.mark.parametrize(("sizes", "activation", "loss"), CHAINS)
def test_hessian_diagonal_agrees(sizes, activation, loss):
    """DiagHessian and BatchDiagHessian, exact; each sample of the latter has 1/B in it."""
    chain, *batch = reference.random_chain(sizes, activation, loss)
    found = module_of(sizes, activation, loss).hessian_diagonal(*arguments(chain, *batch))
    whole = extended(chain, *batch, extensions.DiagHessian())
    agree(in_order(found, ".weight"), [layer.weight.diag_h for layer in whole])
    agree(in_order(found, ".bias"), [layer.bias.diag_h for layer in whole])
    each = extended(chain, *batch, extensions.BatchDiagHessian())
    agree(in_order(found, ".weight"), [layer.weight.diag_h_batch.sum(0) for layer in each])
    agree(in_order(found, ".bias"), [layer.bias.diag_h_batch.sum(0) for layer in each])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_weight_blocks_are_kronecker_products_of_backpack_factors(activation, kind):
    """EA-CG(8c) in row-major order: B ⊗ A."""
    sizes, loss = (5, 4, 3), "cross_entropy"
    chain, *batch = reference.random_chain(sizes, activation, loss)
    layers = extended(chain, *batch, hbp(KINDS[kind]))
    dense = module_of(sizes, activation, loss).block_hessian(*arguments(chain, *batch), kind=kind, dense=True)
    products = [torch.kron(*(factor.contiguous() for factor in layer.weight.hbp)) for layer in layers]
    agree(in_order(dense, ".weight"), products)


@pytest.mark.parametrize("kind", [*KINDS, "hessian", "ggn", "fisher"])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_sum_over_the_batch(loss, kind):
    """``reduction: sum`` scales the block by B and leaves the moment, as in BackPACK."""
    sizes, activation = (5, 4, 3), "tanh"
    peer = "mse" if loss == "squared_error" else loss
    chain, *batch = reference.random_chain(sizes, activation, peer)
    module = module_of(sizes, activation, loss, reduction="sum")
    blocks, moments = own_factors(module, arguments(chain, *batch), kind)
    if kind in KINDS:
        theirs, means = factors(extended(chain, *batch, hbp(KINDS[kind]), "sum"), "hbp")
    elif kind == "hessian":
        theirs, _ = exact_blocks(extended(chain, *batch, extensions.HMP(), "sum"))
        means = moments
    else:
        theirs, means = factors(extended(chain, *batch, extensions.KFLR(), "sum"), "kflr")
    # The squared error is half of the sum of squares, torch's the whole.
    scale = 0.5 if loss == "squared_error" else 1.0
    agree(blocks, [scale * block for block in theirs])
    agree(moments, means)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(("sizes", "activation", "last"), CLOSED)
def test_output_activation(sizes, activation, last, loss):
    """The exact kinds agree with BackPACK; PCH takes the output's activation into (8a), as the paper does."""
    chain, *batch = reference.random_chain(sizes, activation, loss, last)
    state = reference.state_of(chain, *batch)
    module, own = module_of(sizes, activation, loss, last), arguments(chain, *batch)
    agree(own_factors(module, own, "hessian")[0], exact_blocks(extended(chain, *batch, extensions.HMP()))[0])
    kflr, _ = factors(extended(chain, *batch, extensions.KFLR()), "kflr")
    agree(own_factors(module, own, "ggn")[0], kflr)
    agree(own_factors(module, own, "fisher")[0], kflr)
    for kind, residual in KINDS.items():
        output = reference.whole_output(chain, state, residual)
        agree(own_factors(module, own, kind)[0], reference.mean_recursion(chain, state, residual, output))
    if loss == "mse":
        kfra, _ = factors(extended(chain, *batch, extensions.KFRA()), "kfra")
        agree(own_factors(module, own, "kfra")[0], kfra)
