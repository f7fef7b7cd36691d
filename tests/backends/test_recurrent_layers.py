"""Recurrent layers: PyTorch's tensors, text that does not grow with the steps, and refusals.

Their values and derivatives are among the cases of ``test_layer_types.py``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layer_cases import layer_spec
from torch import nn

import sifrc
from sifrc.compiler import Request, compile_spec
from sifrc.spec import build_spec, spec_to_dict

OPERATORS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product", "summary")


def data_of(kind: str, steps: int = 4, **keys: Any) -> dict[str, Any]:
    """A spec with the layer between the input and a dense layer of the last step."""
    layers = [
        {"name": "r", "type": kind, "units": 2, **keys},
        {"name": "last", "type": "slice", "axis": 1, "start": -1},
    ]
    return layer_spec([steps, 3], layers)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_state_dicts_of_torch_fit(kind: str) -> None:
    """``weight_ih_l0_reverse`` of PyTorch is ``ih_l0_reverse.weight``, gates in the same order."""
    module = sifrc.compile(
        data_of(kind, layers=2, bidirectional=True), method="none", operators=("gradient",)
    )
    torch.manual_seed(0)
    own = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind](
        3, 2, 2, batch_first=True, bidirectional=True, dtype=torch.float64
    )
    params = {name: value.double() for name, value in module.initialize().items()}
    for name, value in own.state_dict().items():
        slot, part = name.split("_", 1)
        assert params[f"r.{part}.{slot}"].shape == value.shape
        params[f"r.{part}.{slot}"] = value
    x = torch.randn(3, 4, 3, dtype=torch.float64)
    expected = own(x)[0][:, -1] @ params["out.weight"].T + params["out.bias"]
    assert (module.predict(params, x) - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("keys", [{}, {"cells": True}], ids=["states", "cells"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_text_does_not_grow_with_the_steps(backend: str, keys: dict[str, Any]) -> None:
    """As many loops for 5 steps as for 50, and lines, but for numbers that are longer; with cells too.

    Arrays that are large, as few are for 5 steps, are let go of in lines of their own, which do not count.
    """
    texts = [
        compile_spec(build_spec(data_of("lstm", steps, **keys)), Request(backend, "none", OPERATORS)).text
        for steps in (5, 50)
    ]
    lengths = [sum("del " not in line for line in text.splitlines()) for text in texts]
    assert abs(lengths[0] - lengths[1]) < 10  # a longer number may be on a line of its own
    assert [text.count("for step in") for text in texts] == [texts[0].count("for step in")] * 2
    assert texts[0].count("for step in") > 4


def test_what_is_given_is_computed_before_the_loop() -> None:
    """Of a plain layer, a step adds one product, applies the function and keeps the state."""
    text = compile_spec(build_spec(data_of("rnn")), Request("torch", "none", ("gradient",))).text
    body = text.partition("for step in range(4):\n")[2].partition("x[2] = torch.stack")[0]
    assert [line.split(" = ")[0].strip() for line in body.splitlines()[:3]] == [
        "a_now_2",
        "x_now_2",
        "x_2_all.append(x_now_2)",
    ]
    assert "torch.addmm(a_given1_2_at[step], x_before_2, weights[2].T)" in body


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request("torch", "none", ("block_hessian",)), "lstm layer 'r' reads its own states"),
        (Request("torch", "none", ("newton_direction",)), "several places"),
        (Request("cuda", "none", ("gradient",)), "steps of recurrent layers"),
    ],
)
def test_refusals(request_: Request, words: str) -> None:
    """What there is not is one error that says so."""
    with pytest.raises(sifrc.SifrcError, match=words):
        compile_spec(build_spec(data_of("lstm")), request_)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"type": "rnn"}, "has no size"),
        ({"type": "lstm", "units": 2, "function": "relu"}, "has no 'function'"),
        ({"type": "rnn", "units": 2, "function": "nothing"}, "unknown activation"),
        ({"type": "gru", "units": 2, "layers": 0}, "too small"),
        ({"type": "gru", "units": 2, "cells": True}, "has no 'cells'"),
    ],
)
def test_errors_of_specs(layer: dict[str, Any], words: str) -> None:
    """Mistakes in a layer."""
    with pytest.raises(sifrc.SifrcError, match=words):
        build_spec(layer_spec([4, 3], [{"name": "r", **layer}]))
    with pytest.raises(sifrc.SifrcError, match="steps with features"):
        build_spec(layer_spec([4], [{"name": "r", "type": "rnn", "units": 2}]))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"units": 3}, "'s' has units: 3, 'r' whose parameters it shares has 2"),
        ({"bidirectional": False}, "'s' has bidirectional: false, 'r' whose parameters it shares has true"),
        ({"bias": False}, "which has a bias"),
        ({"type": "gru"}, "'r' is of type lstm, 's' of type gru"),
        ({"inputs": "d"}, "sizes differ"),
        ({"init": "zeros"}, "cannot start them"),
    ],
)
def test_what_shares_is_built_as_its_owner(keys: dict[str, Any], words: str) -> None:
    """Anything else is one error; what is left out is that of the owner."""
    layers = [
        {"name": "d", "type": "dense", "units": 5},
        {"name": "r", "type": "lstm", "units": 2, "bidirectional": True, "inputs": "x0"},
        {"name": "s", "type": "lstm", "share": "r", "inputs": "x0"},
        {"name": "both", "type": "concatenate", "axis": 2, "inputs": ["r", "s", "d"]},
    ]
    spec = build_spec(layer_spec([4, 3], layers))
    assert spec.shapes["s"] == spec.shapes["r"] == (4, 4)
    assert build_spec(spec_to_dict(spec)) == spec
    layers[2] |= keys
    with pytest.raises(sifrc.SifrcError, match=words):
        build_spec(layer_spec([4, 3], layers))
