"""Small named specs as plain dicts: one line here tests a network in every quantity and backend.

``CHAINS`` have a closed-form Newton direction; ``CASES`` are all of them. Sizes that meet are mostly
different, so that a transposition shows, and equal in some, so that an accidental match shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import pytest

from sifrc.derive.derived import Derived
from sifrc.model import build_model
from sifrc.spec import build_spec

__all__ = ["CASES", "CHAINS", "CUSTOM_ACTIVATION", "ONE_AXIS", "SPREAD", "SQUARE", "derived_of", "marked"]

Case = Mapping[str, Any]

CUSTOM_ACTIVATION = {"expression": "a*x + tanh(b*x)", "parameters": {"a": 0.3, "b": 1.5}}
"""Strictly monotone, curved, with parameters."""

_ACTIVATIONS: Mapping[str, Any] = MappingProxyType(
    {
        "leaky_relu": {"function": "leaky_relu", "parameters": {"slope": 0.1}},
        "tanh": "tanh",
        "softplus": "softplus",
        "custom": CUSTOM_ACTIVATION,
    }
)


def _spec(
    name: str, layers: list[dict[str, Any]], loss: Any = "squared_error", **more: Any
) -> dict[str, Any]:
    size = more.pop("input_size", 3)
    return {
        "sifrc": 1,
        "name": name,
        "network": {"input": {"name": "image", "size": size}, "layers": layers},
        "loss": loss,
        "dtype": "float64",
        **more,
    }


def _dense(name: str, units: int, activation: Any = None, **more: Any) -> dict[str, Any]:
    layer = {"name": name, "type": "dense", "units": units, **more}
    return layer if activation is None else {**layer, "activation": activation}


def _chain(
    name: str, sizes: list[int], activation: Any, loss: Any, state: Any = 0.1, **more: Any
) -> dict[str, Any]:
    """Dense layers with an activation, a linear one last."""
    layers = [_dense(f"fc{k}", units, activation) for k, units in enumerate(sizes[:-1], start=1)]
    layers.append(_dense(f"fc{len(sizes)}", sizes[-1]))
    return _spec(name, layers, loss, regularization={"state": state}, **more)


def _chains() -> dict[str, dict[str, Any]]:
    """Two to five layers with every activation, squared error and cross-entropy."""
    sizes = {2: [4, 3], 3: [4, 2, 3], 4: [3, 4, 2, 3], 5: [2, 3, 3, 4, 2]}
    cases: dict[str, dict[str, Any]] = {}
    for depth, widths in sizes.items():
        for label, activation in _ACTIVATIONS.items():
            for loss in ("squared_error", "cross_entropy"):
                name = f"{label}_{loss}_{depth}"
                cases[name] = _chain(name, widths, activation, loss)
    return cases


_MORE_CHAINS: dict[str, dict[str, Any]] = {
    "output_tanh": _spec("output_tanh", [_dense("fc1", 4, "tanh"), _dense("fc2", 3, "tanh")]),
    "output_softplus": _spec(
        "output_softplus",
        [_dense("fc1", 2, "tanh"), _dense("fc2", 3, "softplus")],
        regularization={"state": 0.2},
    ),
    "one_layer": _spec("one_layer", [_dense("fc1", 2)], regularization={"state": "none"}),
    "granular": _chain("granular", [3, 2], "tanh", "squared_error", state="none"),
    "equal_sizes": _chain("equal_sizes", [3, 3, 3], "tanh", "cross_entropy"),
    "per_state": _chain("per_state", [4, 2, 3], "tanh", "squared_error", state={"fc1": 0.3, "fc3": 0.05}),
    "spectral": _chain("spectral", [4, 2, 3], "leaky_relu", "squared_error", state="spectral"),
    "spectral_smooth": _chain("spectral_smooth", [3, 4, 2], "softplus", "cross_entropy", state="spectral"),
    "separate_activation": _spec(
        "separate_activation",
        [
            _dense("fc1", 4),
            {"name": "act1", "type": "activation", "function": "elu"},
            _dense("fc2", 2),
        ],
        "mse",
        regularization={"state": {"act1": 0.2}},
    ),
    "bounded": _chain("bounded", [4, 3], "tanh", "bounded"),
    "custom_loss": _chain("custom_loss", [4, 2], "softplus", {"expression": "sum((y - t)**4)/4"}),
    "reduction_sum": _chain(
        "reduction_sum", [4, 2], "tanh", {"function": "squared_error", "reduction": "sum"}
    ),
}

_OTHERS: dict[str, dict[str, Any]] = {
    "skip": _spec(
        "skip",
        [
            _dense("fc1", 4, "tanh"),
            _dense("fc2", 4, "softplus"),
            {"name": "sum1", "type": "add", "inputs": ["fc1", "fc2"]},
            _dense("fc3", 2),
        ],
        "cross_entropy",
        regularization={"state": 0.1},
    ),
    "skip_pre_activation": _spec(
        "skip_pre_activation",
        [
            _dense("fc1", 3),
            {"name": "act1", "type": "activation", "function": "silu"},
            {"name": "sum1", "type": "add", "inputs": ["act1", "fc1", "image"], "activation": "tanh"},
            _dense("fc2", 2),
        ],
        regularization={"state": {"fc1": 0.1, "sum1": 0.2}},
    ),
    "shared": _spec(
        "shared",
        [
            _dense("fc1", 3, "tanh"),
            {"name": "fc2", "type": "dense", "share": "fc1", "activation": "mish"},
            _dense("fc3", 2),
        ],
        "huber",
        regularization={"state": 0.1},
    ),
    "shared_skip": _spec(
        "shared_skip",
        [
            _dense("fc1", 3, "sin"),
            {"name": "fc2", "type": "dense", "share": "fc1", "activation": "tanh"},
            {"name": "sum1", "type": "add", "inputs": ["fc2", "fc1"]},
            {"name": "fc3", "type": "dense", "share": "fc1"},
        ],
        regularization={"state": 0.05},
    ),
    "no_bias": _spec(
        "no_bias",
        [_dense("fc1", 4, "tanh", bias=False), _dense("fc2", 2, bias=False)],
        "cross_entropy",
        regularization={"state": 0.1},
    ),
    "places": _spec(
        "places",
        [
            _dense("fc1", 2, "tanh"),
            _dense("fc2", 2, "softplus"),
            {"name": "sum1", "type": "add", "inputs": ["fc1", "fc2"]},
            {"name": "flat", "type": "flatten"},
            _dense("fc3", 3),
        ],
        "cross_entropy",
        input_size=[2, 3],
        regularization={"state": 0.1},
    ),
    "places_shared": _spec(
        "places_shared",
        [
            _dense("fc1", 2, "tanh", bias=False),
            {"name": "fc2", "type": "dense", "share": "fc1", "activation": "sin"},
            {"name": "flat", "type": "flatten", "inputs": "fc2"},
            {"name": "act", "type": "activation", "function": "tanh"},
            {"name": "whole", "type": "flatten", "inputs": "image"},
            {"name": "sum1", "type": "add", "inputs": ["act", "whole"]},
        ],
        input_size=[2, 1, 2],
        regularization={"state": {"fc1": 0.3, "act": 0.1}},
    ),
    "flattened": _spec(
        "flattened",
        [
            {"name": "act0", "type": "activation", "function": "tanh"},
            {"name": "flat", "type": "flatten"},
            _dense("fc1", 3, "tanh"),
            _dense("fc2", 2),
        ],
        "mse",
        input_size=[2, 2],
    ),
    "relu": _chain("relu", [4, 3, 2], "relu", "cross_entropy"),
    "gelu": _chain("gelu", [4, 3, 2], "gelu", "squared_error"),
    "selu_huber": _chain("selu_huber", [4, 2], "selu", {"function": "huber", "parameters": {"delta": 0.3}}),
    "sigmoid_binary": _chain("sigmoid_binary", [4, 2], "sigmoid", "binary_cross_entropy"),
    "probabilities": _chain(
        "probabilities", [4, 3], "tanh", {"function": "cross_entropy", "targets": "vectors"}
    ),
    "criterion": _chain(
        "criterion",
        [4, 3],
        "tanh",
        {
            "expression": "1/(1 + exp(d*(dot(t, softmax(y)) - eps)))",
            "parameters": {"d": 5.0, "eps": 0.2},
            "targets": "classes",
        },
    ),
    "mixed_loss": _chain(
        "mixed_loss",
        [3, 3],
        "tanh",
        {
            "expression": "log(1 + sum((y - t)**2)) + c*logsumexp(y) + mean(exp(y)*t)",
            "parameters": {"c": 0.4},
        },
    ),
    "custom_curved": _chain(
        "custom_curved", [3, 2], {"expression": "x*tanh(log(1 + b*exp(x)))", "parameters": {"b": 0.7}}, "mse"
    ),
    "custom_branches": _chain(
        "custom_branches",
        [3, 2],
        {"expression": "where(x > c, x, c + a*(x - c) + (x - c)**2/10)", "parameters": {"c": 0.2, "a": 0.5}},
        "squared_error",
    ),
}

CHAINS: Mapping[str, Case] = MappingProxyType({**_chains(), **_MORE_CHAINS})
"""Chains with strictly monotone activations and biases: all quantities, the Newton direction too."""

CASES: Mapping[str, Case] = MappingProxyType({**CHAINS, **_OTHERS})
"""Every case."""

ONE_AXIS: Mapping[str, Case] = MappingProxyType(
    {name: case for name, case in CASES.items() if isinstance(case["network"]["input"]["size"], int)}
)
"""Cases whose states are vectors."""


_GRID = list(_chains())
"""By depth, activation and loss."""
SQUARE = tuple(name for k, name in enumerate(_GRID) if k // 8 == (k // 2 + 2 * (k % 2)) % 4)
"""Every activation with both losses, at two depths, and every depth with two activations."""
SPREAD = tuple(name for name in CASES if name in SQUARE or name not in _GRID)
"""Cases that differ in more than depth, activation and loss of a chain."""


def marked(names: Iterable[str]) -> list[Any]:
    """Parameters of a test that is long: what is not in ``SPREAD`` is slow."""
    return [name if name in SPREAD else pytest.param(name, marks=pytest.mark.slow) for name in names]


@cache
def derived_of(name: str, white_layer: bool = True) -> Derived:
    """What is derived for a case, made once; tests of faults make their own."""
    return Derived(build_model(build_spec(dict(CASES[name]))), white_layer)
