"""Kronecker factors of weights at several places against autograd, and where they are exact."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import prod
from types import ModuleType
from typing import Any

import pytest
import torch
from compiling import compile_once
from torch import Tensor
from torch.func import jacrev
from torch.nn import functional as F

from sifrc.cache import entry_name, module_from_cache
from sifrc.compiler import Request, compile_spec
from sifrc.derive.curvature.parameters import LARGEST
from sifrc.errors import DerivationError
from sifrc.spec import build_spec
from sifrc.verify.points import random_point

SHARINGS = ("expand", "reduce")
Params = dict[str, Tensor]
Shifts = dict[str, Tensor]


def spec_of(size: Any, layers: list[dict[str, Any]], loss: Any, **more: Any) -> dict[str, Any]:
    network = {"input": {"name": "x", "size": size}, "layers": layers}
    operators = ["gradient", "block_hessian", "curvature_factors", "block_vector_product", "diagonal"]
    target = {"operators": operators}
    head = {"sifrc": 1, "name": "shared", "dtype": "float64", "loss": loss, "network": network}
    return {**head, "target": target, **more}


def load(data: dict[str, Any]) -> ModuleType:
    text = compile_once(build_spec(data), Request(backend="torch")).text
    return module_from_cache(entry_name("shared", {"text": text}), lambda: text, None)


def point_of(data: dict[str, Any], batch: int) -> tuple[Params, Tensor, Tensor]:
    point = random_point(build_spec(data), 3, batch)
    params = {name: torch.from_numpy(value) for name, value in point.params.items()}
    return params, torch.from_numpy(point.inputs), torch.from_numpy(point.targets)


# -- a network with windows and one of vectors at places, written out

WINDOWS = spec_of(
    [2, 6, 5],
    [
        {"name": "c1", "type": "conv", "channels": 3, "kernel": [2, 3], "stride": [2, 1], "padding": 1},
        {"name": "t1", "type": "activation", "function": "tanh"},
        {"name": "pool", "type": "pool", "function": "max", "kernel": 2},
        {"name": "c2", "type": "conv", "channels": 4, "kernel": 2, "activation": "softplus"},
        {"name": "flat", "type": "flatten"},
        {"name": "out", "type": "dense", "units": 3},
    ],
    "cross_entropy",
    curvature=["hessian", "ggn", "fisher", "sampled_fisher", "empirical_fisher"],
)
TOKENS = spec_of(
    [4, 3],
    [
        {"name": "fc1", "type": "dense", "units": 5, "activation": "tanh"},
        {"name": "turned", "type": "permute", "order": [2, 1]},
        {"name": "mix", "type": "dense", "units": 4, "activation": "softplus"},
        {"name": "back", "type": "permute", "order": [2, 1]},
        {"name": "out", "type": "dense", "units": 3},
    ],
    "cross_entropy",
    curvature=["hessian", "ggn", "fisher", "sampled_fisher", "empirical_fisher"],
)


def windows(p: Params, x: Tensor, shifts: Shifts) -> tuple[Tensor, dict[str, Tensor]]:
    """The output of one sample, and what every weight reads, (places, entries)."""
    read = {"c1": F.unfold(x[None], (2, 3), padding=1, stride=(2, 1))[0].T}
    a = F.conv2d(x[None], p["c1.weight"], p["c1.bias"], (2, 1), 1)[0] + shifts.get("c1", 0)
    h = F.max_pool2d(torch.tanh(a)[None], 2)[0]
    read["c2"] = F.unfold(h[None], 2)[0].T
    a = F.conv2d(h[None], p["c2.weight"], p["c2.bias"])[0] + shifts.get("c2", 0)
    flat = torch.log1p(torch.exp(a)).flatten()
    read["out"] = flat[None]
    return p["out.weight"] @ flat + p["out.bias"] + shifts.get("out", 0), read


def tokens(p: Params, x: Tensor, shifts: Shifts) -> tuple[Tensor, dict[str, Tensor]]:
    read = {"fc1": x}
    h = torch.tanh(x @ p["fc1.weight"].T + p["fc1.bias"] + shifts.get("fc1", 0)).T
    read["mix"] = h
    h = torch.log1p(torch.exp(h @ p["mix.weight"].T + p["mix.bias"] + shifts.get("mix", 0))).T
    read["out"] = h
    return h @ p["out.weight"].T + p["out.bias"] + shifts.get("out", 0), read


NETWORKS: dict[str, tuple[dict[str, Any], Callable[..., Any], dict[str, tuple[int, ...]]]] = {
    "windows": (WINDOWS, windows, {"c1": (3, 4, 5), "c2": (4, 1, 1), "out": (3,)}),
    "tokens": (TOKENS, tokens, {"fc1": (4, 5), "mix": (5, 4), "out": (4, 3)}),
}


def loss(y: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, the mean over the places."""
    rows = y.reshape(-1, y.shape[-1])
    return (torch.logsumexp(rows, 1) - rows[torch.arange(len(rows)), target.reshape(-1)]).mean()


def own_rows(block: Tensor, shape: tuple[int, ...], first: bool) -> Tensor:
    """Over (places, rows, places, rows): the rows are the first axis of an image, the last one of others."""
    block, half = block.reshape(*shape, *shape), len(shape)
    if first:
        block = block.movedim(0, half - 1).movedim(half, -1)
    rows = shape[0] if first else shape[-1]
    places = prod(shape) // rows
    return block.reshape(places, rows, places, rows)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("kind", ["hessian", "ggn", "fisher", "empirical_fisher"])
def test_factors_are_sums_over_places(name: str, sharing: str, kind: str) -> None:
    """Blocks by autograd through shifts of the pre-activations; inputs as ``unfold`` has them."""
    data, forward, shapes = NETWORKS[name]
    params, inputs, targets = point_of(data, 3)
    found = load(data).curvature_factors(params, inputs, targets, kind=kind, sharing=sharing)
    assert [*found] == [*shapes]
    for layer, shape in shapes.items():
        moment, beside = 0.0, 0.0
        for x, target in zip(inputs, targets, strict=True):

            def output(s: Tensor, x: Tensor = x, layer: str = layer) -> Tensor:
                y: Tensor = forward(params, x, {layer: s})[0]
                return y

            zero = torch.zeros(shape, dtype=torch.float64)
            y, read = forward(params, x, {})
            if kind == "hessian":
                whole = torch.func.hessian(lambda s, t=target, o=output: loss(o(s), t))(zero)
            elif kind == "empirical_fisher":
                slope = torch.func.grad(lambda s, t=target, o=output: loss(o(s), t))(zero).flatten()
                whole = torch.outer(slope, slope)
            else:
                slopes = jacrev(output)(zero).reshape(y.numel(), -1)
                curved = torch.func.hessian(lambda v, t=target: loss(v, t))(y).reshape(y.numel(), -1)
                whole = slopes.T @ curved @ slopes
            rows = own_rows(whole, shape, first=layer in ("c1", "c2"))
            places = range(len(rows))
            x_read = read[layer]
            if sharing == "expand":
                beside = beside + sum(rows[s, :, s] for s in places)
                moment = moment + sum(torch.outer(x_read[s], x_read[s]) for s in places) / len(places)
            else:
                beside = beside + sum(rows[s, :, t] for s, t in itertools.product(places, places))
                mean = sum(x_read[s] for s in places) / len(places)
                moment = moment + torch.outer(mean, mean)
        count = len(inputs)
        torch.testing.assert_close(found[layer].moment, moment / count, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found[layer].block, beside / count, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_drawn_targets_give_the_fisher_matrix_on_average(name: str) -> None:
    """The mean over many draws is near the expectation; one draw is not."""
    data, _, shapes = NETWORKS[name]
    params, inputs, targets = point_of(data, 1)
    many = inputs.expand(40_000, *inputs.shape[1:]), targets.expand(40_000, *targets.shape[1:])
    made = load(data)
    for sharing in SHARINGS:
        exact = made.curvature_factors(params, inputs, targets, kind="fisher", sharing=sharing)
        drawn = made.curvature_factors(params, *many, kind="sampled_fisher", sharing=sharing, seed=1)
        once = made.curvature_factors(params, inputs, targets, kind="sampled_fisher", sharing=sharing, seed=1)
        for layer in shapes:
            near, far = (
                float((one[layer].block - exact[layer].block).norm() / exact[layer].block.norm())
                for one in (drawn, once)
            )
            assert near < 0.03 < far, (layer, sharing)


# -- where they are exact

LINEAR = [{"name": f"fc{k}", "type": "dense", "units": n} for k, n in ((1, 4), (2, 5), (3, 2))]
PER_PLACE = spec_of([3, 2], LINEAR, "squared_error", curvature=["ggn", "fisher"])
AVERAGED = spec_of(
    [3, 2],
    [*LINEAR, {"name": "mean", "type": "mean", "axes": [1]}],
    "squared_error",
    curvature=["ggn", "fisher"],
)
CIRCULAR = spec_of(
    [2, 4],
    [
        {"name": "c1", "type": "conv", "channels": 3, "kernel": 3, "padding": 1, "mode": "circular"},
        {"name": "c2", "type": "conv", "channels": 2, "kernel": 3, "padding": 1, "mode": "circular"},
        {"name": "pool", "type": "pool", "function": "average", "output": 1},
        {"name": "flat", "type": "flatten"},
        {"name": "out", "type": "dense", "units": 2},
    ],
    "squared_error",
    curvature=["ggn", "fisher"],
)


def errors(data: dict[str, Any], sharing: str, kind: str) -> dict[str, float]:
    """Relative error of block ⊗ moment, by layer."""
    params, inputs, targets = point_of(data, 4)
    made = load(data)
    blocks = made.block_hessian(params, inputs, targets, kind=kind, dense=True)
    factors = made.curvature_factors(params, inputs, targets, kind=kind, sharing=sharing)
    found = {}
    for layer, pair in factors.items():
        exact = blocks[f"{layer}.weight"]
        found[layer] = float((torch.kron(pair.block, pair.moment) - exact).norm() / exact.norm())
    return found


@pytest.mark.parametrize("kind", ["ggn", "fisher"])
def test_expand_is_exact_for_linear_layers_and_a_loss_at_each_place(kind: str) -> None:
    assert max(errors(PER_PLACE, "expand", kind).values()) < 1e-13
    assert min(errors(PER_PLACE, "reduce", kind).values()) > 0.05


@pytest.mark.parametrize("kind", ["ggn", "fisher"])
@pytest.mark.parametrize("data", [AVERAGED, CIRCULAR], ids=["mean", "circular"])
def test_reduce_is_exact_for_linear_layers_and_a_loss_of_the_mean(data: dict[str, Any], kind: str) -> None:
    """Also of windows around a circle: all places have the same derivatives."""
    assert max(errors(data, "reduce", kind).values()) < 1e-13
    wrong = errors(data, "expand", kind)
    assert all(error > 0.05 for layer, error in wrong.items() if layer != "out")


def test_neither_is_exact_behind_a_curved_activation() -> None:
    bent = spec_of(
        [3, 2],
        [{**LINEAR[0], "activation": "tanh"}, LINEAR[2]],
        "squared_error",
        curvature=["ggn"],
    )
    assert all(errors(bent, sharing, "ggn")["fc1"] > 0.01 for sharing in SHARINGS)


# -- what is refused


def test_blocks_over_large_states_are_refused_with_what_would_do() -> None:
    layers = [
        {"name": "c1", "type": "conv", "channels": 6, "kernel": 5, "activation": "tanh"},
        {"name": "flat", "type": "flatten"},
        {"name": "out", "type": "dense", "units": 3},
    ]
    for kind in ("hessian", "pch1", "kfra"):
        data = spec_of([1, 28, 28], layers, "cross_entropy", curvature=[kind])
        with pytest.raises(DerivationError) as caught:
            compile_spec(build_spec(data), Request(backend="torch"))
        assert f"kind '{kind}' has a matrix over the state of layer 'c1'" in caught.value.message
        assert "6 x 24 x 24" in caught.value.message and str(LARGEST) in caught.value.message
        assert "sampled_fisher" in str(caught.value.hint)
    every = compile_spec(build_spec(spec_of([1, 28, 28], layers, "cross_entropy")), Request(backend="torch"))
    kinds = {plan.name for operator in every.source.program.operators for plan in operator.kinds}
    assert kinds == {"ggn", "fisher", "sampled_fisher", "empirical_fisher"}


def test_scores_of_many_places_are_refused_with_what_would_do() -> None:
    layers = [{"name": "fc", "type": "dense", "units": 40}]
    for kind in ("ggn", "fisher"):
        data = spec_of([30, 2], layers, "cross_entropy", curvature=[kind])
        with pytest.raises(DerivationError, match="each of the 1200 entries of the output") as caught:
            compile_spec(build_spec(data), Request(backend="torch"))
        assert "sampled_fisher" in str(caught.value.hint)
    assert compile_spec(
        build_spec(spec_of([30, 2], layers, "cross_entropy", curvature=["sampled_fisher"])),
        Request(backend="torch"),
    ).text
