"""Small networks with every type of layer, and awkward settings of each."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch

__all__ = ["LAYER_CASES", "drawn_buffers", "evaluated", "layer_spec"]

HIDDEN: dict[str, Any] = {"name": "d", "type": "dense", "units": 4, "activation": "tanh"}
SINUSOIDS: dict[str, Any] = {"name": "r", "type": "positions", "kind": "sinusoids"}
END: list[dict[str, Any]] = [
    {"name": "flat", "type": "flatten"},
    {"name": "out", "type": "dense", "units": 3},
]


def layer_spec(size: Any, layers: list[dict[str, Any]], end: bool = True, **more: Any) -> dict[str, Any]:
    """A spec as a dict; at the end comes a dense layer of all entries."""
    network = {"input": {"name": "x0", "size": size}, "layers": [*layers, *(END if end else [])]}
    head = {"sifrc": 1, "name": "layers", "network": network, "loss": "squared_error", "dtype": "float64"}
    return head | more


def drawn_buffers(module: ModuleType, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """What layers of a module keep besides parameters: means, and variances that are positive."""
    return {
        name: torch.rand(*shape, generator=generator, dtype=torch.float64) + 0.5 * name.endswith("var")
        for name, shape in getattr(module, "BUFFERS", {}).items()
    }


def evaluated(data: dict[str, Any]) -> dict[str, Any]:
    """A network after training."""
    return data | {"network": data["network"] | {"mode": "evaluation"}}


def several(inputs: list[dict[str, Any]], layers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A spec with several inputs."""
    found = layer_spec(1, layers, **more)
    found["network"] = {"inputs": inputs, "layers": found["network"]["layers"]}
    return found


def one(size: Any, kind: str, **keys: Any) -> dict[str, Any]:
    """A layer behind a dense one."""
    return layer_spec(size, [HIDDEN, {"name": "r", "type": kind, **keys}])


def first(size: Any, kind: str, **keys: Any) -> dict[str, Any]:
    """A layer that reads the network input itself."""
    return layer_spec(size, [{"name": "r", "type": kind, **keys}])


def two(size: Any, kind: str, left: int, right: int, **keys: Any) -> dict[str, Any]:
    """A layer of two dense ones."""
    layers = [
        {"name": "d", "type": "dense", "units": left, "activation": "tanh"},
        {"name": "e", "type": "dense", "units": right, "inputs": "x0", "activation": "sin"},
        {"name": "r", "type": kind, "inputs": ["d", "e"], **keys},
    ]
    return layer_spec(size, layers)


def channels(size: list[int], kind: str, **keys: Any) -> dict[str, Any]:
    """A layer of channels at places, behind a convolution with a kernel of one entry."""
    conv = {"name": "c", "type": "conv", "channels": 4, "kernel": 1, "activation": "tanh"}
    return layer_spec(size, [conv, {"name": "r", "type": kind, **keys}])


def other(places: int, **keys: Any) -> dict[str, Any]:
    """Attention of five places on others: queries, and what is read."""
    layers = [
        HIDDEN,
        {"name": "t", "type": "permute", "order": [2, 1], "inputs": "x0"},
        {"name": "less", "type": "dense", "units": places, "activation": "sin"},
        {"name": "z", "type": "permute", "order": [2, 1]},
        {"name": "r", "type": "attention", "inputs": ["d", "z"], **keys},
    ]
    return layer_spec([5, 3], layers)


def three(features: int, **keys: Any) -> dict[str, Any]:
    """Attention of queries, keys and values of their own."""
    layers = [
        HIDDEN,
        {"name": "k", "type": "dense", "units": features, "inputs": "x0", "activation": "sin"},
        {"name": "v", "type": "dense", "units": features, "inputs": "x0", "activation": "softplus"},
        {"name": "r", "type": "attention", "inputs": ["d", "k", "v"], **keys},
    ]
    return layer_spec([3, 2], layers)


_SHAPES: dict[str, dict[str, Any]] = {
    "reshape": one([2, 3], "reshape", sizes=[4, 2]),
    "reshape with what is left": one([2, 3, 2], "reshape", sizes=[3, -1, 2]),
    "reshape to one axis": one([2, 3], "reshape", sizes=[-1]),
    "reshape from one axis": one(3, "reshape", sizes=[2, 1, 2]),
    "reshape to the same": one([2, 3], "reshape", sizes=[2, 4]),
    "reshape of ones": one([1, 1], "reshape", sizes=[1, 4, 1]),
    "permute": one([2, 3, 2], "permute", order=[3, 1, 2]),
    "permute backwards": one([2, 3, 2], "permute", order=[-1, 1, -2]),
    "permute nothing": one([2, 3], "permute", order=[1, 2]),
    "permute four": one([2, 1, 3, 2], "permute", order=[4, 2, 1, 3]),
    "slice": one([4, 3], "slice", axis=1, start=1, stop=3),
    "slice of the last": one([2, 3], "slice", start=-2),
    "slice backwards": one([5, 2], "slice", axis=1, step=-2),
    "slice backwards from": one([5, 2], "slice", axis=1, start=3, stop=0, step=-1),
    "slice to one": one([2, 4, 2], "slice", axis=-2, start=2, stop=3),
    "slice by a step": one([7], "slice", step=3),
    "slice beyond": one([3, 2], "slice", axis=1, start=-100, stop=100, step=2),
    "concatenate": two([2, 3], "concatenate", 4, 4),
    "concatenate features": two([2, 3], "concatenate", 4, 1, axis=-1),
    "concatenate three": layer_spec(
        [2, 1, 3],
        [
            {**HIDDEN, "units": 3},
            {"name": "e", "type": "activation", "function": "sin", "inputs": "x0"},
            {"name": "r", "type": "concatenate", "axis": 2, "inputs": ["d", "x0", "e"]},
        ],
    ),
    "pad": one([3, 2], "pad", padding=[[1, 2], 0]),
    "pad much": one([2, 2], "pad", padding=[5, [0, 3]]),
    "pad nothing": one([2, 2], "pad", padding=[0, [0, 0]]),
    "pad circular": one([3, 2], "pad", padding=[[1, 2], 1], mode="circular"),
    "pad circular by all": one([3, 2], "pad", padding=[3, [4, 0]], mode="circular"),
    "pad reflect": one([3, 2], "pad", padding=[[1, 2], 0], mode="reflect"),
    "pad reflect by most": one([2, 3, 2], "pad", padding=[1, 2, [3, 3]], mode="reflect"),
    "pad replicate": one([3, 2], "pad", padding=[[0, 4], 1], mode="replicate"),
    "pad replicate one entry": one([1, 2], "pad", padding=[[2, 3], 0], mode="replicate"),
    "upsample": one([2, 3], "upsample"),
    "upsample by three": one([2, 2, 3], "upsample", factor=[3, 1]),
    "upsample linear": one([2, 3], "upsample", factor=2, mode="linear"),
    "upsample linear by three": one([1, 3], "upsample", factor=3, mode="linear"),
    "upsample bilinear": channels([2, 2, 3], "upsample", factor=[2, 3], mode="linear"),
    "upsample trilinear": channels([1, 2, 1, 2], "upsample", factor=[2, 3, 1], mode="linear"),
    "upsample one entry": channels([2, 1], "upsample", factor=4, mode="linear"),
    "upsample nearest of three": channels([1, 2, 1, 2], "upsample", factor=2),
}

_PRODUCTS: dict[str, dict[str, Any]] = {
    "multiply": two([2, 3], "multiply", 4, 4),
    "multiply with an activation": two(3, "multiply", 4, 4, activation="tanh"),
    "multiply three": layer_spec(
        [2, 3],
        [
            {**HIDDEN, "units": 3},
            {"name": "e", "type": "activation", "function": "sin"},
            {"name": "r", "type": "multiply", "inputs": ["e", "x0", "d"]},
        ],
    ),
    "squeeze and excite": layer_spec(
        [3, 2],
        [
            HIDDEN,
            {"name": "m", "type": "mean", "axes": [1], "keep": True},
            {"name": "e", "type": "activation", "function": "sigmoid"},
            {"name": "r", "type": "multiply", "inputs": ["d", "e"]},
        ],
    ),
    "add to all places": layer_spec(
        [3, 2],
        [
            HIDDEN,
            {"name": "m", "type": "max", "axes": [1], "keep": True},
            {"name": "r", "type": "add", "inputs": ["m", "d"]},
        ],
    ),
    "entrywise": layer_spec(
        [2, 3],
        [
            {**HIDDEN, "units": 3},
            {"name": "e", "type": "activation", "function": "sin"},
            {
                "name": "r",
                "type": "entrywise",
                "expression": "x1*sigmoid(b*x2) + x3**2*x1",
                "parameters": {"b": 1.5},
                "inputs": ["e", "x0", "d"],
            },
        ],
    ),
    "entrywise of one for all": layer_spec(
        [3, 2],
        [
            HIDDEN,
            {"name": "m", "type": "mean", "axes": [1], "keep": True},
            {"name": "r", "type": "entrywise", "expression": "x1/(1 + x2**2)", "inputs": ["m", "d"]},
        ],
    ),
    "entrywise with a condition": two(
        [2, 3], "entrywise", 4, 4, expression="where(x1 > x2, tanh(x1)*x2, x2*x2)"
    ),
    "matmul": layer_spec(
        [3, 2],
        [
            {**HIDDEN, "units": 3},
            {"name": "e", "type": "dense", "units": 2, "inputs": "x0"},
            {"name": "r", "type": "matmul", "inputs": ["d", "e"]},
        ],
    ),
    "matmul transposed first": two([3, 2], "matmul", 2, 4, transpose="first"),
    "matmul transposed second": two([2, 3, 2], "matmul", 4, 4, transpose=["second"]),
    "matmul transposed both": two([3, 2], "matmul", 3, 3, transpose=["first", "second"]),
    "matmul with the input": layer_spec(
        [2, 3],
        [
            {**HIDDEN, "units": 3},
            {"name": "r", "type": "matmul", "inputs": ["x0", "d"], "transpose": "second"},
        ],
    ),
    "matmul of one": two([1, 1], "matmul", 1, 1, transpose="second"),
    "scale": one([2, 3], "scale", value=0.3),
    "scale with a shift": one(3, "scale", value=-2.5, shift=0.7),
    "shift alone": one([2, 3], "scale", shift=-1.25),
    "scale by a small number": one(3, "scale", value=1e-7, shift=1e3),
    "sum": one([2, 3], "sum", axes=[1]),
    "sum of all": one([2, 3], "sum"),
    "sum that keeps": one([2, 3, 2], "sum", axes=[2, -1], keep=True),
    "sum of one axis": one(3, "sum", keep=True),
    "mean": one([2, 3, 2], "mean", axes=2),
    "mean of all": one([2, 3], "mean", keep=True),
    "mean of one entry": one([1, 3], "mean", axes=[1]),
    "max": one([3, 2], "max", axes=[1]),
    "max of several": one([2, 3, 2], "max", axes=[1, 3]),
    "max that keeps": one([2, 3, 2], "max", axes=[-2], keep=True),
    "max of all": one([2, 3], "max"),
    "max of one entry": one([1, 3], "max", axes=[1], keep=True),
    "softmax": one([2, 3], "softmax"),
    "softmax of places": one([3, 2, 2], "softmax", axis=1),
    "softmax in the middle": one([2, 3, 1], "softmax", axis=-2),
    "softmax of one entry": one([1, 2], "softmax", axis=1),
}

_NORMS: dict[str, dict[str, Any]] = {
    "layer norm": one([2, 3], "layer_norm"),
    "layer norm of one axis": one(3, "layer_norm", activation="tanh"),
    "layer norm over several": one([2, 3, 2], "layer_norm", axes=[2, 3], epsilon=0.1),
    "layer norm in the middle": one([2, 3, 2], "layer_norm", axes=[2], bias=False),
    "layer norm of first and last": one([2, 3, 2], "layer_norm", axes=[-1, 1]),
    "layer norm without a weight": one([2, 3], "layer_norm", affine=False, activation="sin"),
    "layer norm without epsilon": one([2, 3], "layer_norm", epsilon=0),
    "layer norm with a large epsilon": one([2, 3], "layer_norm", epsilon=50.0),
    "layer norm of one entry": one([1, 3], "layer_norm", axes=1),
    "layer norm of the input": first([2, 3], "layer_norm"),
    "layer norm with a relu": one([2, 3], "layer_norm", activation="relu"),
    "rms norm": one([2, 3], "rms_norm"),
    "rms norm over all": one([2, 3], "rms_norm", axes=[1, 2], activation="sigmoid"),
    "rms norm without epsilon": one([2, 2, 2], "rms_norm", axes=2, epsilon=0.0, affine=False),
    "rms norm of one entry": one([1, 3], "rms_norm", axes=1, epsilon=0.5),
    "group norm": channels([2, 2, 2], "group_norm", groups=2),
    "group norm of one group": channels([2, 3], "group_norm", groups=1, bias=False, activation="tanh"),
    "group norm of channels": channels([1, 2, 1, 2], "group_norm", groups=4, epsilon=0.3),
    "group norm without places": one(3, "group_norm", groups=2),
    "group norm without a weight": channels([2, 3], "group_norm", groups=2, affine=False, epsilon=0),
    "batch norm": channels([2, 2, 3], "batch_norm", activation="tanh"),
    "batch norm of features": one(3, "batch_norm", activation="softplus"),
    "batch norm without a weight": channels([2, 1, 2, 2], "batch_norm", affine=False, epsilon=0.2),
    "batch norm without a bias": channels([2, 3], "batch_norm", bias=False, momentum=0.5),
    "batch norm of the input": first([2, 3], "batch_norm"),
    "batch norms of a residual": layer_spec(
        [2, 3, 3],
        [
            {"name": "c1", "type": "conv", "channels": 4, "kernel": 3, "padding": 1, "bias": False},
            {"name": "b1", "type": "batch_norm", "activation": "tanh"},
            {"name": "c2", "type": "conv", "channels": 4, "kernel": 3, "padding": 1, "bias": False},
            {"name": "b2", "type": "batch_norm"},
            {"name": "r", "type": "add", "inputs": ["b1", "b2"], "activation": "softplus"},
        ],
    ),
    "batch norm evaluated": evaluated(channels([2, 2, 3], "batch_norm", activation="tanh")),
    "batch norm of features evaluated": evaluated(one(3, "batch_norm", affine=False, activation="softplus")),
    "batch norm of the input evaluated": evaluated(first([2, 3], "batch_norm")),
    "dropout evaluated": evaluated(one([2, 3], "dropout", probability=0.25)),
    "dropout of the input evaluated": evaluated(first(3, "dropout")),
    "instance norm": channels([2, 3], "instance_norm"),
    "instance norm with a weight": channels([2, 2, 2], "instance_norm", affine=True, activation="softplus"),
    "instance norm without a bias": channels([1, 2, 1, 2], "instance_norm", affine=True, bias=False),
    "instance norm of the input": first([2, 3], "instance_norm", affine=True),
}

_ATTENTION: dict[str, dict[str, Any]] = {
    "attention": one([3, 2], "attention", heads=2),
    "attention of one head": one([3, 2], "attention", heads=1),
    "attention of narrow heads": one([2, 3], "attention", heads=4, bias=False),
    "attention of one place": one([1, 2], "attention", heads=2),
    "causal attention": one([3, 2], "attention", heads=2, causal=True),
    "attention of grouped queries": one([3, 2], "attention", heads=4, groups=2),
    "attention of one group": one([3, 2], "attention", heads=2, groups=1, causal=True, bias=False),
    "attention with a scale": one([3, 2], "attention", heads=2, value=1.7),
    "attention to others": other(3, heads=2),
    "attention to one": other(1, heads=2),
    "attention to more": other(7, heads=4, groups=2, bias=False),
    "attention of keys and values": three(3, heads=2),
    "attention without weights": one([3, 2], "attention", heads=2, projected=False),
    "attention without weights, causal": one([3, 2], "attention", heads=1, projected=False, causal=True),
    "attention of three without weights": three(2, heads=4, groups=2, projected=False),
    "attention of the input": first([3, 4], "attention", heads=2),
    "rotary attention": one([3, 2], "attention", heads=1, rotary=True),
    "rotary attention of neighbours": one([3, 2], "attention", heads=2, rotary="interleaved", base=50),
    "rotary attention of grouped queries": layer_spec(
        [3, 2],
        [
            {**HIDDEN, "units": 8},
            {"name": "r", "type": "attention", "heads": 2, "groups": 1, "rotary": "halves", "causal": True},
        ],
    ),
    "rotary attention to others": other(2, heads=2, rotary=True, base=7.5, projected=True),
    "rotary attention without weights": one(
        [3, 2], "attention", heads=1, rotary="interleaved", projected=False
    ),
    "sinusoids": layer_spec([3, 2], [HIDDEN, SINUSOIDS]),
    "sinusoids of odd features": layer_spec(
        [4, 2], [{**HIDDEN, "units": 5}, {"name": "r", "type": "positions", "kind": "sinusoids", "base": 100}]
    ),
    "sinusoids of the input": layer_spec([5, 3], [SINUSOIDS]),
    "positions": one([3, 2], "positions"),
    "positions of three axes": one([2, 1, 2], "positions"),
    "positions of the input": first([3, 2], "positions"),
}

_RECURRENCE: dict[str, dict[str, Any]] = {
    "rnn": first([4, 3], "rnn", units=2),
    "rnn with a relu": one([3, 2], "rnn", units=3, function="relu"),
    "rnn without a bias": first([3, 2], "rnn", units=2, bias=False),
    "rnn of one step": first([1, 3], "rnn", units=2),
    "rnn of one unit": one([3, 2], "rnn", units=1),
    "rnn of two directions": first([3, 2], "rnn", units=2, bidirectional=True),
    "rnn of two layers": first([3, 2], "rnn", units=2, layers=2),
    "lstm": first([4, 3], "lstm", units=2),
    "lstm without a bias": one([3, 2], "lstm", units=2, bias=False),
    "lstm of two directions": first([3, 2], "lstm", units=2, bidirectional=True),
    "lstm of layers and directions": first([2, 3], "lstm", units=3, layers=2, bidirectional=True),
    "lstm that gives cells": first([3, 3], "lstm", units=2, cells=True),
    "cells of layers and directions": layer_spec(
        [3, 2],
        [
            {"name": "r", "type": "lstm", "units": 2, "layers": 2, "bidirectional": True, "cells": True},
            {"name": "s", "type": "slice", "axis": 2, "start": 3, "stop": 7},
            {"name": "a", "type": "activation", "function": "sin"},
        ],
    ),
    "gru": first([4, 3], "gru", units=2),
    "gru of two layers": first([3, 2], "gru", units=2, layers=2, bias=False),
    "gru of layers and directions": first([2, 3], "gru", units=3, layers=2, bidirectional=True),
    "the last step of an lstm": layer_spec(
        [3, 2],
        [
            {"name": "r", "type": "lstm", "units": 3},
            {"name": "l", "type": "slice", "axis": 1, "start": -1},
        ],
        loss="cross_entropy",
    ),
    "activations after a gru": layer_spec(
        [3, 2],
        [
            {"name": "r", "type": "gru", "units": 3},
            {"name": "a", "type": "activation", "function": "sin"},
            {"name": "s", "type": "rnn", "units": 2, "inputs": "a"},
            {"name": "t", "type": "concatenate", "axis": -1, "inputs": ["a", "s"]},
        ],
    ),
    "an rnn at the end": layer_spec(
        [3, 2],
        [{"name": "r", "type": "rnn", "units": 2}, {"name": "f", "type": "flatten"}],
        end=False,
    ),
}


def masked(mask: Any, read: int = 3, **keys: Any) -> dict[str, Any]:
    """Attention with a mask that is an input."""
    layer = {"name": "r", "type": "attention", "heads": 2, "mask": "allowed", **keys}
    inputs = [{"name": "x0", "size": [3, 2]}, {"name": "allowed", "size": mask}]
    if read == 3:
        return several(inputs, [HIDDEN, layer])
    inputs.append({"name": "z", "size": [read, 3]})
    return several(inputs, [HIDDEN, {**layer, "inputs": ["d", "z"]}])


_MASKS: dict[str, dict[str, Any]] = {
    "attention with a mask": masked([3, 3]),
    "attention with a mask of what is read": masked(3),
    "causal attention with a mask": masked([3, 3], causal=True, bias=False),
    "causal attention with a mask of what is read": masked([3], causal=True, groups=1, value=0.8),
    "attention to others with a mask": masked([3, 5], read=5),
    "attention without weights, with a mask": masked(3, projected=False),
    "attention with a mask that is a state": several(
        [{"name": "x0", "size": [3, 2]}, {"name": "x1", "size": [2, 9]}],
        [
            HIDDEN,
            {"name": "s", "type": "mean", "axes": [1], "inputs": "x1"},
            {"name": "m", "type": "reshape", "sizes": [3, 3]},
            {"name": "r", "type": "attention", "heads": 2, "inputs": "d", "mask": "m"},
        ],
    ),
    "attention with a mask that is trained": layer_spec(
        [3, 2],
        [
            HIDDEN,
            {"name": "m", "type": "dense", "units": 3, "inputs": "x0"},
            {"name": "r", "type": "attention", "heads": 2, "inputs": "d", "mask": "m"},
        ],
    ),
}

_INPUTS: dict[str, dict[str, Any]] = {
    "two inputs": several(
        [{"name": "x0", "size": 3}, {"name": "x1", "size": [2]}],
        [
            HIDDEN,
            {"name": "e", "type": "dense", "units": 4, "inputs": "x1"},
            {"name": "r", "type": "add", "inputs": ["d", "e"], "activation": "tanh"},
        ],
    ),
    "three inputs of several ranks": several(
        [{"name": "x0", "size": [2, 3]}, {"name": "x1", "size": [2, 4]}, {"name": "x2", "size": 5}],
        [
            HIDDEN,
            {"name": "g", "type": "multiply", "inputs": ["d", "x1"]},
            {"name": "e", "type": "dense", "units": 4, "inputs": "x2", "activation": "sin"},
            {"name": "q", "type": "reshape", "sizes": [1, 4]},
            {"name": "r", "type": "add", "inputs": ["g", "q"], "activation": "tanh"},
        ],
    ),
    "an input of classes after one of numbers": several(
        [{"name": "x0", "size": [3, 4]}, {"name": "x1", "size": 3, "classes": 5}],
        [
            {"name": "e", "type": "embedding", "units": 4, "inputs": "x1"},
            {"name": "r", "type": "attention", "heads": 2, "inputs": ["x0", "e"]},
        ],
        loss="cross_entropy",
    ),
    "two inputs of classes with one weight": several(
        [{"name": "x0", "size": 3, "classes": 5}, {"name": "x1", "size": 2, "classes": 5}],
        [
            {"name": "d", "type": "embedding", "units": 3},
            {"name": "e", "type": "embedding", "share": "d", "inputs": "x1"},
            {"name": "r", "type": "concatenate", "inputs": ["e", "d"]},
            {"name": "h", "type": "dense", "units": 2, "activation": "tanh"},
        ],
        loss="cross_entropy",
    ),
}

_WHOLE: dict[str, dict[str, Any]] = {
    "transformer": layer_spec(
        [3, 2],
        [
            HIDDEN,
            {"name": "p", "type": "positions"},
            {"name": "n1", "type": "layer_norm"},
            {"name": "a", "type": "attention", "heads": 2, "causal": True},
            {"name": "s", "type": "add", "inputs": ["p", "a"]},
            {"name": "n2", "type": "rms_norm"},
            {"name": "up", "type": "dense", "units": 3, "activation": "gelu"},
            {"name": "down", "type": "dense", "units": 4},
            {"name": "s2", "type": "add", "inputs": ["s", "down"]},
            {"name": "m", "type": "mean", "axes": [1]},
        ],
        loss="cross_entropy",
    ),
    "branches side by side": layer_spec(
        5,
        [
            {"name": "a", "type": "dense", "units": 4, "activation": "tanh"},
            {"name": "b", "type": "dense", "units": 4, "inputs": "x0", "activation": "sigmoid"},
            {"name": "r", "type": "multiply", "inputs": ["a", "b"]},
        ],
        loss="cross_entropy",
    ),
    "gated": layer_spec(
        [2, 3],
        [
            {**HIDDEN, "units": 3, "activation": "silu"},
            {"name": "g", "type": "dense", "units": 3, "inputs": "x0"},
            {"name": "r", "type": "multiply", "inputs": ["g", "d"]},
            {"name": "n", "type": "rms_norm", "activation": "tanh"},
            {"name": "c", "type": "concatenate", "inputs": ["n", "x0"]},
        ],
        loss="cross_entropy",
    ),
    "residual of convolutions": layer_spec(
        [2, 4],
        [
            {"name": "c", "type": "conv", "channels": 4, "kernel": 3, "padding": 1},
            {"name": "n", "type": "group_norm", "groups": 2, "activation": "silu"},
            {"name": "u", "type": "conv", "channels": 4, "kernel": 3, "padding": 1},
            {"name": "s", "type": "add", "inputs": ["c", "u"], "activation": "elu"},
            {"name": "q", "type": "pool", "function": "max", "kernel": 2},
            {"name": "w", "type": "upsample", "mode": "linear"},
            {"name": "v", "type": "mean", "axes": [2]},
        ],
        loss="cross_entropy",
    ),
    "a norm at the end": layer_spec(3, [HIDDEN, {"name": "r", "type": "layer_norm"}], end=False),
    "a log softmax within": one([3, 2], "log_softmax", axis=1),
    "a log softmax at the end": layer_spec(
        3, [HIDDEN, {"name": "r", "type": "log_softmax"}], end=False, loss="cross_entropy"
    ),
    "a softmax at the end": layer_spec(3, [HIDDEN, {"name": "r", "type": "softmax"}], end=False),
    "a maximum at the end": layer_spec([3, 2], [HIDDEN, {"name": "r", "type": "max", "axes": 1}], end=False),
    "a number at the end": layer_spec([3, 2], [HIDDEN, {"name": "r", "type": "sum"}], end=False),
    "a product at the end": layer_spec(
        [2],
        [
            HIDDEN,
            {"name": "e", "type": "dense", "units": 4, "inputs": "x0"},
            {"name": "r", "type": "multiply", "inputs": ["d", "e"], "activation": "tanh"},
        ],
        end=False,
    ),
}

_FROZEN = {
    "frozen layers among others": layer_spec(
        [2, 4, 4],
        [
            {"name": "c", "type": "conv", "channels": 3, "kernel": 2, "frozen": True, "activation": "tanh"},
            {"name": "n", "type": "batch_norm", "frozen": True},
            {"name": "k", "type": "conv", "channels": 2, "kernel": 2, "activation": "sin"},
            {"name": "f", "type": "flatten"},
            {"name": "r", "type": "dense", "units": 4, "frozen": True, "activation": "tanh"},
        ],
    ),
    "frozen attention": one([5, 4], "attention", heads=2, frozen=True),
    "a frozen embedding of the input": layer_spec(
        3,
        [
            {"name": "r", "type": "embedding", "units": 4, "frozen": True},
            {"name": "h", "type": "dense", "units": 3, "activation": "tanh"},
        ],
    ),
}
_FROZEN["a frozen embedding of the input"]["network"]["input"]["classes"] = 5

_STRIDED = {
    "windows that overlap": one([3, 2], "strided", axis=2, sizes=[2, 2], steps=[1, 2]),
    "windows of places, one axis backwards": one(
        [7, 2], "strided", axis=1, sizes=[2, 1, 3], steps=[-3, 5, 1], start=3
    ),
    "relative positions": layer_spec(
        [3, 2],
        [
            {"name": "p", "type": "parameter", "sizes": [5, 4]},
            {"name": "rows", "type": "strided", "axis": 1, "start": 2, "sizes": [3, 3], "steps": [1, -1]},
            {"name": "back", "type": "permute", "order": [1, 3, 2]},
            {"name": "x3", "type": "dense", "units": 12, "inputs": "x0"},
            {"name": "split", "type": "reshape", "sizes": [3, 4, 3]},
            {"name": "r", "type": "multiply", "inputs": ["split", "back"], "activation": "tanh"},
        ],
    ),
}

_TENSORS = {
    "a token, and positions of more places": layer_spec(
        [3, 2],
        [
            HIDDEN,
            {"name": "p", "type": "parameter", "sizes": [1, 4]},
            {"name": "all", "type": "concatenate", "inputs": ["p", "d"]},
            {"name": "w", "type": "parameter", "sizes": [6, 4]},
            {"name": "some", "type": "slice", "axis": 1, "stop": 4},
            {"name": "r", "type": "add", "inputs": ["all", "some"], "activation": "tanh"},
        ],
    ),
    "a product with a bent parameter, plus what is given": layer_spec(
        [3, 2],
        [
            HIDDEN,
            {"name": "p", "type": "parameter", "sizes": [4, 3], "init": "he"},
            {"name": "bent", "type": "activation", "function": "tanh"},
            {"name": "r", "type": "matmul", "inputs": ["d", "bent"]},
            {"name": "g", "type": "parameter", "sizes": [1, 3], "trained": False},
            {"name": "s", "type": "add", "inputs": ["r", "g"], "activation": "sin"},
        ],
    ),
    "tables of numbers and of a formula": layer_spec(
        [3, 2],
        [
            HIDDEN,
            {"name": "t", "type": "table", "sizes": [3, 1], "values": [0.5, -1.25, 2.0]},
            {
                "name": "f",
                "type": "table",
                "sizes": [1, 4],
                "expression": "sigmoid(a*x2) + x1",
                "parameters": {"a": 0.3},
            },
            {"name": "r", "type": "multiply", "inputs": ["d", "t"]},
            {"name": "s", "type": "add", "inputs": ["r", "f"], "activation": "tanh"},
        ],
    ),
    "a parameter that is normalised": layer_spec(
        [3, 2],
        [
            HIDDEN,
            {"name": "p", "type": "parameter", "sizes": [3, 4]},
            {"name": "n", "type": "layer_norm"},
            {"name": "r", "type": "multiply", "inputs": ["d", "n"]},
        ],
    ),
}

LAYER_CASES: Mapping[str, dict[str, Any]] = {
    **_SHAPES,
    **_PRODUCTS,
    **_NORMS,
    **_ATTENTION,
    **_RECURRENCE,
    **_INPUTS,
    **_MASKS,
    **_WHOLE,
    **_TENSORS,
    **_STRIDED,
    **_FROZEN,
}
"""Name -> spec as a dict."""
