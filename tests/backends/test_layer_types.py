"""Every type of layer in generated modules: values against PyTorch's own, derivatives against torch.func.

Derivatives are taken of networks that are written out in elementary operations: through what PyTorch fuses,
higher ones are wrong. Numba modules run with the JIT off, some compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from curvature_modules import load
from curvature_oracle import assert_close
from elementary_layers import Elementary, derivatives_of, drawn_inputs, loss_of_outputs
from layer_cases import LAYER_CASES, drawn_buffers, layer_spec
from numba.typed import List
from sampled import one_in
from summary_modules import SummaryCalls, agree, texts
from summary_modules import load as load_text
from summary_oracle import Derivatives
from torch.func import grad, jacrev
from torch_layers import Fused

from sifrc.compiler import compile_spec
from sifrc.spec import build_spec
from sifrc.verify.points import Point

assert List is not None
"""Imported with the JIT on: Numba's own functions for lists are compiled or not as they were imported."""
OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product")
BATCH = 3

IN_NUMBA = (
    *("slice backwards", "concatenate three", "pad reflect by most", "pad circular", "upsample bilinear"),
    *("reshape with what is left", "permute four", "matmul transposed both", "max of several"),
    *("softmax in the middle", "layer norm over several", "rms norm", "group norm", "instance norm"),
    *("attention of one group", "attention to more", "attention of three without weights", "positions"),
    *("three inputs of several ranks", "an input of classes after one of numbers"),
    *("causal attention with a mask", "attention to others with a mask"),
    *("transformer", "residual of convolutions", "scale with a shift", "sum that keeps"),
    *("batch norm", "batch norm of features", "batch norm without a weight", "batch norm evaluated"),
    *("rnn", "rnn of one step", "lstm of layers and directions", "gru of two layers"),
    *("the last step of an lstm", "activations after a gru", "cells of layers and directions"),
    *("a token, and positions of more places", "a product with a bent parameter, plus what is given"),
    *("relative positions", "windows of places, one axis backwards"),
    *("frozen layers among others", "frozen attention"),
)
COMPILED = (
    *("concatenate three", "pad reflect by most", "upsample bilinear", "matmul transposed both"),
    *("max of several", "layer norm over several", "group norm", "attention of one group"),
    *("attention to more", "transformer", "residual of convolutions", "softmax in the middle"),
    *("slice backwards", "permute four", "instance norm", "three inputs of several ranks"),
    *("batch norms of a residual", "batch norm evaluated"),
    *("rnn of two directions", "lstm", "gru", "lstm that gives cells"),
    "causal attention with a mask of what is read",
)
SUMMARIES = (
    *("layer norm", "rms norm over all", "group norm", "attention of grouped queries"),
    *("causal attention", "max of several", "matmul", "multiply three"),
    *("batch norms of a residual", "batch norm of features", "batch norm evaluated"),
    *("rnn of two directions", "lstm", "gru of two layers", "activations after a gru"),
    "cells of layers and directions",
    *("a token, and positions of more places", "a parameter that is normalised"),
    *("windows that overlap", "relative positions"),
    *("frozen layers among others", "branches side by side"),
)

At = tuple[dict[str, Any], Any, Any]


def point_at(module: ModuleType, data: Mapping[str, Any], seed: int = 3) -> tuple[At, dict[str, Any]]:
    """Parameters, a batch and targets, and a vector; tensors of float64."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    spec = build_spec(data)
    params, vector = ({name: drawn(*shape) for name, shape in module.SHAPES.items()} for _ in range(2))
    outputs = spec.layers[-1].size
    classes = data["loss"] == "cross_entropy"
    t = torch.randint(outputs, (BATCH,), generator=generator) if classes else drawn(BATCH, outputs)
    params |= drawn_buffers(module, generator)
    return (params, drawn_inputs(data, BATCH, generator), t), vector


def expected_of(data: Mapping[str, Any], point: At, vector: dict[str, Any]) -> Any:
    whole, x, t = point
    params = {name: whole[name] for name in vector}
    return derivatives_of(
        lambda own, x: Elementary(data)(whole | own, x), data["loss"], (params, x, t), vector
    )


@pytest.mark.parametrize("name", one_in(3, LAYER_CASES))
def test_torch_module(name: str, tmp_path: Path) -> None:
    """Values as PyTorch's own functions give them, derivatives as torch.func does."""
    data = LAYER_CASES[name]
    module = load(build_spec(data), "torch", tmp_path, OPERATORS)
    point, vector = point_at(module, data)
    params, x, _ = point
    found, fused = module.predict(params, x), Fused(data, training=False)(params, x)
    torch.testing.assert_close(found, fused, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(Elementary(data)(params, x), Fused(data)(params, x), rtol=1e-12, atol=1e-12)
    expected = expected_of(data, point, vector)
    assert_close(module.gradient(*point), expected["gradient"])
    for operator in OPERATORS[1:]:
        assert_close(getattr(module, operator)(*point, vector), expected[operator])


def test_a_module_of_a_network_is_one_of_torch(tmp_path: Path) -> None:
    """Its parameters have the names, and start as the layers of PyTorch do."""
    data = LAYER_CASES["transformer"]
    module = load(build_spec(data), "torch", tmp_path, ("gradient",))
    network = module.Network()
    held = dict(network.named_parameters())
    assert sorted(p.numel() for p in held.values()) == sorted(
        int(np.prod(shape)) for shape in module.SHAPES.values()
    )
    start = module.initialize()
    assert (start["n1.weight"] == 1).all() and (start["n1.bias"] == 0).all()
    x = torch.randn(2, 3, 2, dtype=torch.float64)
    params = {name: value.double() for name, value in start.items()}
    torch.testing.assert_close(module.predict(params, x), Fused(data)(params, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_what_begins_normal(backend: str, tmp_path: Path) -> None:
    """Vectors of classes and of places are standard normal, as those of ``torch.nn.Embedding``."""
    layers = [
        {"name": "e", "type": "embedding", "units": 50},
        {"name": "p", "type": "positions"},
        {"name": "out", "type": "dense", "units": 2},
    ]
    network = {"input": {"name": "x0", "size": 40, "classes": 30}, "layers": layers}
    data = {"sifrc": 1, "name": "start", "network": network, "loss": "cross_entropy", "dtype": "float64"}
    module = load(build_spec(data), backend, tmp_path, ("gradient",))
    start = module.initialize() if backend == "torch" else module.init(0)
    for name in ("e.weight", "p.weight"):
        assert np.std(np.asarray(start[name])) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("units, heads, groups", [(8, 2, 1), (8, 4, 2), (16, 4, 2)])
def test_grouped_queries_are_products_of_matrices(units: int, heads: int, groups: int) -> None:
    """Whatever the sizes: no array has an entry for each place, each that it reads, and each feature."""
    layers = [{"name": "r", "type": "attention", "heads": heads, "groups": groups}]
    data = layer_spec([5, units], layers) | {"target": {"operators": ["gradient"]}}
    text = compile_spec(build_spec(data)).text
    assert "torch.einsum(" in text and "diagonal(" not in text and ".sum((1, 3, 5))" not in text


def test_attention_is_that_of_torch(tmp_path: Path) -> None:
    """``MultiheadAttention`` with the layer's weights one below the other."""
    data = LAYER_CASES["attention"]
    module = load(build_spec(data), "torch", tmp_path, ("gradient",))
    (params, x, _), _ = point_at(module, data)
    own = torch.nn.MultiheadAttention(4, 2, batch_first=True, dtype=torch.float64)
    parts = [params[f"r.{part}.weight"] for part in ("query", "key", "value")]
    biases = [params[f"r.{part}.bias"] for part in ("query", "key", "value")]
    own.load_state_dict(
        {
            "in_proj_weight": torch.cat(parts),
            "in_proj_bias": torch.cat(biases),
            "out_proj.weight": params["r.output.weight"],
            "out_proj.bias": params["r.output.bias"],
        }
    )
    hidden = torch.tanh(x @ params["d.weight"].T + params["d.bias"])
    mixed = own(hidden, hidden, hidden, need_weights=False)[0]
    expected = mixed.flatten(1) @ params["out.weight"].T + params["out.bias"]
    torch.testing.assert_close(module.predict(params, x), expected.detach(), rtol=1e-12, atol=1e-12)


# ── Numba ─────────────────────────────────────────────────────────────────────────────────────────────


def numba_agrees(name: str, folder: Path) -> None:
    data = LAYER_CASES[name]
    module = load(build_spec(data), "numba", folder, OPERATORS)
    point, vector = point_at(module, data)
    expected = expected_of(data, point, vector)
    arrays = [{key: value.numpy() for key, value in tensors.items()} for tensors in (point[0], vector)]
    inputs = tuple(x.numpy() for x in point[1]) if isinstance(point[1], tuple) else point[1].numpy()
    given = (arrays[0], inputs, point[2].numpy())
    fused = Fused(data, training=False)(*point[:2])
    np.testing.assert_allclose(module.predict(*given[:2]), fused, rtol=1e-12, atol=1e-12)
    assert_close(module.gradient(*given), expected["gradient"])
    for operator in OPERATORS[1:]:
        assert_close(getattr(module, operator)(*given, arrays[1]), expected[operator])


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("name", IN_NUMBA)
def test_numba_module(name: str, tmp_path: Path) -> None:
    """The same numbers, as Python runs them."""
    numba_agrees(name, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("name", [name for name in LAYER_CASES if name not in IN_NUMBA])
def test_numba_module_of_the_others(name: str, tmp_path: Path) -> None:
    numba_agrees(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_numba_module(name: str, tmp_path: Path) -> None:
    """Through Numba's compiler."""
    numba_agrees(name, tmp_path)


# ── summaries along a direction ───────────────────────────────────────────────────────────────────────


def summaries_of(data: Mapping[str, Any], point: At, vector: dict[str, Any]) -> Derivatives:
    """Derivatives by how far each tensor is moved along its part of the vector."""
    params, x, t = point
    run = Elementary(data)

    def along(eta: Any) -> Any:
        moved = {name: params[name] + eta[n] * move for n, (name, move) in enumerate(vector.items())}
        return loss_of_outputs(data["loss"], run(params | moved, x), t)

    start = torch.zeros(len(vector), dtype=torch.float64)
    slope = grad(along)
    orders = (slope(start), jacrev(slope)(start), jacrev(jacrev(slope))(start))
    return Derivatives(float(along(start)), *(value.numpy() for value in orders), 1.0)


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("name", one_in(4, SUMMARIES))
def test_summaries(name: str, tmp_path: Path) -> None:
    """Orders 1, 2 and 3, and all of order 3, in both backends."""
    data = LAYER_CASES[name]
    spec = build_spec(data)
    for text in texts(spec).values():
        module = load_text(text, tmp_path)
        (params, x, t), vector = point_at(module, data)
        expected = summaries_of(data, (params, x, t), vector)
        own, along = ({key: value.numpy() for key, value in tensors.items()} for tensors in (params, vector))
        call = SummaryCalls(module, Point(own, x.numpy(), t.numpy(), along))
        agree(call, expected, tuple(vector))
