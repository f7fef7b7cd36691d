"""Kronecker factors in networks with norms, embeddings, attention and channels in groups, against autograd.

The oracle is a forward pass in elementary operations, with an array added to each pre-activation: factors are
made of derivatives by these, place by place, and of what every weight reads there.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from compiling import compile_once
from torch import Tensor
from torch.func import grad, hessian, jacrev
from torch.nn import functional as F

from sifrc.cache import entry_name, module_from_cache
from sifrc.compiler import Request, compile_spec
from sifrc.errors import DerivationError
from sifrc.spec import build_spec
from sifrc.verify.points import random_point

Params = dict[str, Tensor]
Named = dict[str, Tensor]
Forward = Callable[[Params, Tensor, Named], tuple[Tensor, Named]]

KINDS = ("hessian", "ggn", "empirical_fisher")
OPERATORS = ("curvature_factors", "gradient_and_factors", "block_vector_product", "diagonal", "block_hessian")


def spec_of(source: dict[str, Any], layers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    network = {"input": {"name": "x", **source}, "layers": layers}
    head = {"sifrc": 1, "name": "beside", "dtype": "float64", "loss": "cross_entropy", "network": network}
    return {**head, "curvature": [*KINDS, "sampled_fisher"], "target": {"operators": [*OPERATORS]}, **more}


TRANSFORMER = spec_of(
    {"size": 3, "classes": 5},
    [
        {"name": "wte", "type": "embedding", "units": 4},
        {"name": "wpe", "type": "positions"},
        {"name": "n1", "type": "layer_norm"},
        {"name": "at", "type": "attention", "heads": 2, "causal": True},
        {"name": "res", "type": "add", "inputs": ["wpe", "at"]},
        {"name": "n2", "type": "rms_norm"},
        {"name": "up", "type": "dense", "units": 3, "activation": "tanh"},
        {"name": "head", "type": "dense", "units": 5},
    ],
)
BLOCK = spec_of(
    {"size": [4, 4, 3]},
    [
        {"name": "wide", "type": "conv", "channels": 6, "kernel": 1, "bias": False},
        {"name": "n1", "type": "group_norm", "groups": 3, "activation": "softplus"},
        {"name": "depth", "type": "conv", "channels": 6, "kernel": [3, 2], "padding": [1, 0], "groups": 6},
        {"name": "pairs", "type": "conv", "channels": 4, "kernel": [2, 1], "groups": 2, "activation": "tanh"},
        {"name": "flat", "type": "flatten"},
        {"name": "out", "type": "dense", "units": 3},
    ],
)


def normal(x: Tensor, epsilon: float = 1e-5) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt()


def transformer(p: Params, x: Tensor, shifts: Named) -> tuple[Tensor, Named]:
    """Logits of one sample, and what every weight reads at each place."""
    read: Named = {}

    def linear(name: str, value: Tensor) -> Tensor:
        read[name] = value
        return value @ p[f"{name}.weight"].T + p[f"{name}.bias"] + shifts.get(name, 0)

    read["wte"] = F.one_hot(x, 5).double()
    h = read["wte"] @ p["wte.weight"] + shifts.get("wte", 0) + p["wpe.weight"]
    a = normal(h - h.mean(-1, keepdim=True)) * p["n1.weight"] + p["n1.bias"]
    q, k, v = (linear(f"at.{part}", a).reshape(3, 2, 2) for part in ("query", "key", "value"))
    heads = []
    for head in range(2):
        scores = q[:, head] @ k[:, head].T / 2**0.5
        exponentials = torch.exp(scores) * torch.ones(3, 3, dtype=torch.float64).tril()
        heads.append(exponentials / exponentials.sum(1, keepdim=True) @ v[:, head])
    h = h + linear("at.output", torch.cat(heads, 1))
    a = normal(h, 1e-6) * p["n2.weight"]
    return linear("head", torch.tanh(linear("up", a))), read


def block(p: Params, x: Tensor, shifts: Named) -> tuple[Tensor, Named]:
    """The same; of groups (places, groups, entries)."""
    read: Named = {}

    def conv(
        name: str, value: Tensor, kernel: tuple[int, int], padding: tuple[int, int], groups: int
    ) -> Tensor:
        weight, bias = p[f"{name}.weight"], p.get(f"{name}.bias")
        entries = F.unfold(value[None], kernel, padding=padding)[0].T
        read[name] = entries.reshape(len(entries), groups, -1)
        return F.conv2d(value[None], weight, bias, 1, padding, groups=groups)[0] + shifts.get(name, 0)

    h = conv("wide", x, (1, 1), (0, 0), 1)
    h = h.reshape(3, -1)
    h = normal(h - h.mean(1, keepdim=True)).reshape(6, 4, 3)
    h = h * p["n1.weight"][:, None, None] + p["n1.bias"][:, None, None]
    h = conv("depth", torch.log1p(torch.exp(h)), (3, 2), (1, 0), 6)
    h = torch.tanh(conv("pairs", h, (2, 1), (0, 0), 2))
    read["out"] = h.flatten()[None]
    return p["out.weight"] @ h.flatten() + p["out.bias"] + shifts.get("out", 0), read


NETWORKS: dict[str, tuple[dict[str, Any], Forward, dict[str, tuple[int, ...]], dict[str, int], list[str]]] = {
    "transformer": (
        TRANSFORMER,
        transformer,
        {"wte": (3, 4), **{f"at.{part}": (3, 4) for part in ("query", "key", "value", "output")}}
        | {"up": (3, 3), "head": (3, 5)},
        {},
        ["wpe.weight", "n1.weight", "n1.bias", "n2.weight"],
    ),
    "block": (
        BLOCK,
        block,
        {"wide": (6, 4, 3), "depth": (6, 4, 2), "pairs": (4, 3, 2), "out": (3,)},
        {"depth": 6, "pairs": 2},
        ["n1.weight", "n1.bias"],
    ),
}


def load(data: dict[str, Any]) -> ModuleType:
    text = compile_once(build_spec(data), Request(backend="torch")).text
    return module_from_cache(entry_name("beside", {"text": text}), lambda: text, None)


def point_of(data: dict[str, Any], batch: int = 3) -> tuple[Params, Tensor, Tensor]:
    point = random_point(build_spec(data), 5, batch)
    params = {name: torch.from_numpy(value) for name, value in point.params.items()}
    return params, torch.from_numpy(point.inputs), torch.from_numpy(point.targets)


def loss(y: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, the mean over the places."""
    rows = y.reshape(-1, y.shape[-1])
    return (torch.logsumexp(rows, 1) - rows[torch.arange(len(rows)), target.reshape(-1)]).mean()


def curved(kind: str, output: Callable[[Tensor], Tensor], zero: Tensor, target: Tensor) -> Tensor:
    """The curvature by an array, both as vectors."""
    size = zero.numel()
    if kind == "hessian":
        return hessian(lambda v: loss(output(v), target))(zero).reshape(size, size)
    if kind == "empirical_fisher":
        slope = grad(lambda v: loss(output(v), target))(zero).flatten()
        return torch.outer(slope, slope)
    y = output(zero)
    slopes = jacrev(output)(zero).reshape(y.numel(), size)
    inner = hessian(lambda v: loss(v, target))(y).reshape(y.numel(), y.numel())
    return slopes.T @ inner @ slopes


def expected_factors(name: str, kind: str, sharing: str, layer: str) -> tuple[Tensor, Tensor]:
    """Moment and block of a layer, with an axis of groups."""
    data, forward, shapes, groups, _ = NETWORKS[name]
    params, inputs, targets = point_of(data)
    shape, count = shapes[layer], groups.get(layer, 1)
    if layer == "wte":
        sharing = "expand"
    moments, blocks = [], []
    for x, target in zip(inputs, targets, strict=True):

        def output(shift: Tensor, x: Tensor = x) -> Tensor:
            return forward(params, x, {layer: shift})[0]

        whole = curved(kind, output, torch.zeros(shape, dtype=torch.float64), target)
        if name == "block":  # rows first: over (row, place)
            rows, places = shape[0], len(whole) // shape[0]
            whole = whole.reshape(rows, places, rows, places)
        else:
            rows, places = shape[-1], len(whole) // shape[-1]
            whole = whole.reshape(places, rows, places, rows).permute(1, 0, 3, 2)
        read = forward(params, x, {})[1][layer].reshape(places, count, -1)
        if sharing == "expand":
            summed = torch.einsum("isjs->ij", whole)
            moments.append(torch.einsum("sgj,sgk->gjk", read, read) / places)
        else:
            summed = torch.einsum("isjt->ij", whole)
            mean = read.mean(0)
            moments.append(torch.einsum("gj,gk->gjk", mean, mean))
        own = rows // count
        blocks.append(
            torch.stack([summed[g * own : (g + 1) * own, g * own : (g + 1) * own] for g in range(count)])
        )
    return torch.stack(moments).mean(0), torch.stack(blocks).mean(0)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_factors(name: str, kind: str, sharing: str) -> None:
    """Of every weight that has some, groups along a first axis, the diagonal alone of classes."""
    data, _, shapes, groups, others = NETWORKS[name]
    point = point_of(data)
    found = load(data).curvature_factors(*point, kind=kind, sharing=sharing)
    assert {*found} == {*shapes}
    assert not {key.rpartition(".")[0] for key in others} & {*found}
    for layer in shapes:
        moment, beside = expected_factors(name, kind, sharing, layer)
        if layer not in groups:
            (moment,), (beside,) = moment, beside
        if layer == "wte":
            close(moment, torch.diag(torch.diagonal(moment)))
            moment = torch.diagonal(moment)
        close(found[layer].moment, moment)
        close(found[layer].block, beside)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_comes_with_them(name: str) -> None:
    data, forward, _, _, _ = NETWORKS[name]
    params, inputs, targets = point_of(data)
    made = load(data)
    slopes, factors = made.gradient_and_factors(params, inputs, targets, kind="ggn")

    def objective(values: Params) -> Tensor:
        pairs = zip(inputs, targets, strict=True)
        return torch.stack([loss(forward(values, x, {})[0], t) for x, t in pairs]).mean()

    for key, value in grad(objective)(params).items():
        close(slopes[key], value)
    alone = made.curvature_factors(params, inputs, targets, kind="ggn")
    assert [*factors] == [*alone]
    for layer, pair in alone.items():
        close(factors[layer].block, pair.block)


def own_blocks(name: str, kind: str) -> dict[str, Tensor]:
    """The exact block of every parameter without factors, by the parameter itself."""
    data, forward, _, _, others = NETWORKS[name]
    params, inputs, targets = point_of(data)
    found = {}
    for key in others:
        parts = []
        for x, target in zip(inputs, targets, strict=True):

            def output(move: Tensor, x: Tensor = x, key: str = key) -> Tensor:
                return forward({**params, key: params[key] + move}, x, {})[0]

            parts.append(curved(kind, output, torch.zeros_like(params[key]), target))
        found[key] = torch.stack(parts).mean(0)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_other_parameters_have_their_exact_diagonals(name: str, kind: str) -> None:
    """Alone and among all; the exact product has their whole blocks."""
    data, _, _, _, others = NETWORKS[name]
    params, inputs, targets = point_of(data)
    made, blocks = load(data), own_blocks(name, kind)
    alone = made.diagonal(params, inputs, targets, kind=kind, others=True)
    every = made.diagonal(params, inputs, targets, kind=kind)
    exact = made.block_vector_product(params, inputs, targets, params, kind=kind, moment="exact")
    assert [*alone] == others
    assert [*every] == [*params]
    for key, whole in blocks.items():
        close(alone[key], torch.diagonal(whole).reshape(params[key].shape))
        close(every[key], alone[key])
        close(exact[key], (whole @ params[key].flatten()).reshape(params[key].shape))


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("moment", ["second", "mean"])
@pytest.mark.parametrize("name", NETWORKS)
def test_products_are_with_factors_and_diagonals(name: str, moment: str, sharing: str) -> None:
    data, _, shapes, groups, others = NETWORKS[name]
    params, inputs, targets = point_of(data)
    made = load(data)
    choices = {"kind": "ggn", "moment": moment, "sharing": sharing}
    found = made.block_vector_product(params, inputs, targets, params, **choices)
    factors = made.curvature_factors(params, inputs, targets, **choices)
    diagonals = made.diagonal(params, inputs, targets, kind="ggn", others=True)
    assert [*found] == [*params]
    for key in others:
        close(found[key], diagonals[key] * params[key])
    for layer in shapes:
        weight, bias = params[f"{layer}.weight"], params.get(f"{layer}.bias")
        columns, rows = factors[layer]
        if layer == "wte":
            columns = torch.diag(columns) if moment == "second" else columns
            weight = weight.T
        count = groups.get(layer, 1)
        rows = rows.reshape(count, *rows.shape[-2:])
        columns = columns.reshape(count, *columns.shape[1:]) if count > 1 else columns[None]
        if moment == "mean":
            columns = columns[:, :, None] * columns[:, None]
        matrices = weight.reshape(count, -1, columns.shape[-1])
        wanted = (rows @ matrices @ columns).reshape(weight.shape)
        close(found[f"{layer}.weight"], wanted.T if layer == "wte" else wanted)
        if bias is not None:
            close(found[f"{layer}.bias"], (rows @ bias.reshape(count, -1, 1)).reshape(bias.shape))


def test_the_moment_of_classes_is_no_matrix() -> None:
    """However many there are: nothing in the module has an array over pairs of them."""
    layers = [
        {"name": "wte", "type": "embedding", "units": 3},
        {"name": "n", "type": "layer_norm"},
        {"name": "flat", "type": "flatten"},
        {"name": "out", "type": "dense", "units": 2},
    ]
    data = spec_of({"size": 4, "classes": 3000}, layers, curvature=["ggn"])
    compiled = compile_spec(build_spec(data), Request(backend="torch", operators=("curvature_factors",)))
    largest = max(
        sum(size == 3000 for size in shape)
        for family in compiled.source.program.families
        for _, shape in family.shapes
    )
    assert largest == 1


def test_a_network_without_any_factor_is_refused_with_the_reason() -> None:
    layers = [{"name": "n", "type": "layer_norm"}, {"name": "place", "type": "positions"}]
    data = spec_of({"size": [3, 4]}, layers, curvature=["ggn"])
    with pytest.raises(DerivationError, match="'n' has no Kronecker factors: it is no matrix") as caught:
        compile_spec(build_spec(data), Request(backend="torch", operators=("curvature_factors",)))
    assert "diagonal" in str(caught.value.hint)


def test_sampled_kinds_draw_where_the_input_is_classes() -> None:
    """Numbers of the dtype of the parameters; another seed gives other factors."""
    params, inputs, targets = point_of(TRANSFORMER)
    made = load(TRANSFORMER)
    one, same, other = (
        made.curvature_factors(params, inputs, targets, kind="sampled_fisher", seed=seed)["up"].block
        for seed in (1, 1, 2)
    )
    assert one.dtype == torch.float64
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
