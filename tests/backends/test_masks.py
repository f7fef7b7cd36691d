"""Masks of attention: where nothing may be read, truth values, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from curvature_modules import load
from elementary_layers import drawn_inputs
from layer_cases import LAYER_CASES
from numba.typed import List

from sifrc.compiler import Request, compile_spec
from sifrc.errors import SifrcError
from sifrc.spec import build_spec

assert List is not None
"""Imported with the JIT on: Numba's own functions for lists are compiled or not as they were imported."""
DATA = LAYER_CASES["attention with a mask"]
OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product")


pytestmark = pytest.mark.usefixtures("jit_off")


def point(module: Any, dtype: torch.dtype = torch.float64) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(5)
    x, mask = drawn_inputs(DATA, 4, generator)
    params = {
        name: torch.randn(*shape, generator=generator).to(dtype) for name, shape in module.SHAPES.items()
    }
    return params, (x.to(dtype), mask.to(dtype)), torch.randn(4, 3, generator=generator).to(dtype)


def arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: arrays(item) for name, item in value.items()}
    return tuple(map(arrays, value)) if isinstance(value, tuple) else value.numpy()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_nothing_to_read_is_zero(backend: str, dtype: str, tmp_path: Path) -> None:
    """The weights of such a place are zero, as in PyTorch, and all derivatives are finite."""
    module = load(build_spec({**DATA, "dtype": dtype}), backend, tmp_path, OPERATORS)
    params, (x, mask), t = point(module, getattr(torch, dtype))
    mask[0], mask[1, 2] = 0, 0
    params["out.weight"][...] = 0
    params["out.weight"][0, 0] = params["out.weight"][1, 8] = 1
    params["out.bias"][...] = 0
    given = (params, (x, mask), t) if backend == "torch" else arrays((params, (x, mask), t))
    found = np.asarray(module.predict(*given[:2]))
    # The first entry of the first place and that of the third; of nothing, the bias of the output is left.
    bias = params["r.output.bias"][0]
    np.testing.assert_allclose(found[0, :2], [bias, bias], rtol=1e-6)
    np.testing.assert_allclose(found[1, 1], bias, rtol=1e-6)
    for values in (
        module.gradient(*given),
        module.hessian_vector_product(*given, given[0]),
        module.gauss_newton_vector_product(*given, given[0]),
    ):
        assert all(np.isfinite(np.asarray(value)).all() for value in values.values())


def test_derivatives_are_those_of_the_softmax() -> None:
    """A mask is added to the scores: what is derived reads it only where a place may read nothing."""
    layers = [
        {"name": "attn", "type": "attention", "heads": 2, "causal": True},
        {"name": "flat", "type": "flatten"},
    ]
    network = {
        "input": {"name": "x", "size": [3, 4]},
        "layers": [*layers, {"name": "out", "type": "dense", "units": 2}],
    }
    spec = build_spec({"sifrc": 1, "name": "n", "loss": "squared_error", "network": network})
    text = compile_spec(spec, Request(backend="torch", method="none", operators=(*OPERATORS, "summary"))).text
    forward, _, derived = text.partition("def _forward(")[2].partition("\ndef ")
    assert "torch.where(constant1" in forward and "constant1" not in derived


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_truth_values_are_masks(backend: str, tmp_path: Path) -> None:
    """As PyTorch has them; other numbers are read where they are more than a half."""
    module = load(build_spec(DATA), backend, tmp_path, OPERATORS)
    params, (x, mask), t = point(module)
    own = (lambda value: value) if backend == "torch" else arrays
    expected = module.gradient(own(params), own((x, mask)), own(t))
    for other in (mask > 0.5, 0.7 * mask, 1 + 3 * (mask - 1)):
        found = module.gradient(own(params), own((x, other)), own(t))
        for name, value in found.items():
            np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"mask": "nobody"}, "unknown input 'nobody' of layer 'r'"),
        ({"mask": "d"}, "input 'd' of layer 'r' is named twice"),
        ({"mask": 1}, "mask"),
        ({"mask": "wide"}, "the mask 'wide' of 'r' has 4"),
        ({"mask": "tokens"}, "'tokens' has classes for entries"),
        ({"mask": "out"}, "the layers form a cycle"),
        (
            {"inputs": ["d", "allowed", "x0", "wide"], "mask": "tokens"},
            "attention layer 'r' has 4 inputs, it takes three",
        ),
    ],
)
def test_wrong_masks(layer: dict[str, Any], message: str) -> None:
    """One error each, at the key."""
    more = [{"name": "wide", "size": 4}, {"name": "tokens", "size": 3, "classes": 2}]
    used = [source for source in more if source["name"] in (layer["mask"], *layer.get("inputs", ()))]
    before, attention, *after = DATA["network"]["layers"]
    x0, allowed = DATA["network"]["inputs"]
    inputs = [x0, *([allowed] if "inputs" in layer else []), *used]
    layers = [before, {**attention, "inputs": "d", **layer}, *after]
    with pytest.raises(SifrcError, match=message):
        build_spec({**DATA, "network": {"inputs": inputs, "layers": layers}})
