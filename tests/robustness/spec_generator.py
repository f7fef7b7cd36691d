"""Random specs as plain data: graphs of layers, some with several axes, ordinary and degenerate functions."""

from __future__ import annotations

from math import prod
from random import Random
from typing import Any

import spec_expressions as expressions
from spec_windows import WINDOWED, divisor, places_of, window_of
from spec_words import aside

__all__ = ["random_spec"]

SEVERAL_AXES = 0.2
"""Share of networks that have layers of type flatten, and mostly an input with several axes."""
_MOST_PLACES = 3

BUILT_IN = (
    *("identity", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "tanh", "sigmoid", "mish"),
    "sin",
)
LOSSES: tuple[Any, ...] = (
    *("squared_error", "mse", "cross_entropy", "binary_cross_entropy", "huber", "bounded"),
    {"function": "cross_entropy", "targets": "vectors"},
    {"function": "huber", "parameters": {"delta": 0.4}},
    {"function": "bounded", "parameters": {"delta": 3.0, "epsilon": 0.4}},
)
PRESETS = ("hessian", "pch1", "pch2", "ggn", "fisher", "sampled_fisher", "empirical_fisher", "kfra")
PARTITIONS = ("canonical", "canonical", "trivial", "weights-biases", "blocks-1", "chunks-1", "discrete")
METHODS: tuple[Any, ...] = (
    *("esn", "mk", "ea_cg", "grouped_newton"),
    {"name": "esn", "variant": "exact"},
    {"name": "esn", "variant": "saddle_free", "white_layer": False},
    {"name": "esn", "precision": "direct", "form": "sylvester", "period": 3},
    {"name": "esn", "precision": "recursive", "scaling": "sum", "decay": 1},
    {"name": "mk", "damping": 0},
    {"name": "ea_cg", "solver": "cg", "kind": "pch2"},
    {"name": "ea_cg", "solver": "kfi", "kind": "ggn", "momentum": 0},
    {"name": "ea_cg", "solver": "exact", "kind": "fisher", "decay": 0.5},
    {"name": "grouped_newton", "direction": "adam", "clip": 0.5},
    {
        "name": "grouped_newton",
        "regularization": "ridge",
        "interactions": "diagonal",
        "unbounded": "absolute",
    },
)
NAMES = (
    *("a", "x", "y", "t", "b", "W", "N", "eta", "l", "O", "I1", "softmax", "relu", "mean", "batch", "g"),
)


def function_of(rng: Random, degenerate: float) -> dict[str, Any]:
    """Keys of an activation: built in, or a random expression with parameters."""
    if rng.random() < 1 - degenerate:
        name = rng.choice(BUILT_IN)
        if name == "leaky_relu" and rng.random() < 0.5:
            return {"function": name, "parameters": {"slope": rng.choice((0.3, 1, 0, -0.5))}}
        if name == "elu" and rng.random() < 0.5:
            return {"function": name, "parameters": {"alpha": rng.choice((0.7, 1.0, 0.0, 2))}}
        return {"function": name}
    text = expressions.activation(rng)
    if "x" not in text.replace("exp", "").replace("max", ""):
        text = f"{text} + x*0"  # constants are wanted; without x the spec would be refused
    text, values = expressions.parameters(rng, text)
    return {"expression": text, **({"parameters": values} if values else {})}


def random_spec(rng: Random, *, degenerate: float = 0.6, largest: int = 4) -> dict[str, Any]:
    """A spec; mostly right, always of the right shape.

    Args:
        rng: where all choices come from.
        degenerate: how often a function is a random expression.
        largest: number of entries of a layer, at most.
    """
    graph = _Graph(rng, degenerate, largest)
    spec: dict[str, Any] = {
        "sifrc": 1,
        "name": "random",
        "network": graph.network(),
        "loss": _loss(rng, degenerate),
        "dtype": "float64",
    }
    regularized = rng.random()
    if regularized < 0.5:
        spec["regularization"] = {"state": rng.choice((0.1, 1.5, 0, 1e-8))}
    elif regularized < 0.6:
        spec["regularization"] = {"state": {graph.states[-1]: 0.3, graph.states[0]: 0.2}}
    elif regularized < 0.65 and graph.chain:
        spec["regularization"] = {"state": "spectral", "output": rng.choice(("none", "spectral"))}
    if rng.random() < 0.3:
        spec["partition"] = rng.choice(PARTITIONS)
    if rng.random() < 0.25:
        spec["method"] = rng.choice(METHODS)
    if rng.random() < 0.2:
        kinds: list[Any] = rng.sample(PRESETS, rng.randint(1, 2))
        if rng.random() < 0.3:
            kinds.append({"name": "mine", "kind": rng.choice(PRESETS[:4]), "output": "positive"})
        spec["curvature"] = kinds
    if rng.random() < 0.2:
        spec["target"] = {"backend": rng.choice(("torch", "numba")), "operators": ["gradient"]}
    return spec


def _loss(rng: Random, degenerate: float) -> Any:
    if rng.random() < 1 - degenerate:
        chosen = rng.choice(LOSSES)
        if isinstance(chosen, str) and rng.random() < 0.2:
            return {"function": chosen, "reduction": "sum"}
        return chosen
    text, values = expressions.parameters(rng, expressions.loss(rng))
    chosen = {"expression": text, **({"parameters": values} if values else {})}
    if rng.random() < 0.25:
        chosen["targets"] = "classes"
    if rng.random() < 0.15:
        chosen["reduction"] = "sum"
    return chosen


class _Graph:
    """Layers put one after another; every one is used."""

    def __init__(self, rng: Random, degenerate: float, largest: int) -> None:
        self.rng, self.degenerate, self.largest = rng, degenerate, largest
        other = aside(rng)
        self.several = other.random() < SEVERAL_AXES
        self.windowed = other.random() < WINDOWED
        self.layers: list[dict[str, Any]] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.owners: dict[str, int] = {}
        self.kernels: dict[str, tuple[tuple[int, ...], int, int, int]] = {}
        self.states: list[str] = []
        self.chain = True

    def network(self) -> dict[str, Any]:
        rng = self.rng
        shape = (rng.randint(1, self.largest),)
        source = rng.choice(("image", "input", "x"))
        if self.windowed:
            shape = (rng.choice((1, 2, min(4, self.largest), shape[0])), *places_of(rng))
        elif self.several:
            places = (rng.randint(1, _MOST_PLACES) for _ in range(rng.choice((0, 1, 1, 2))))
            shape = (*places, min(shape[0], rng.choice((_MOST_PLACES, self.largest))))
        self.shapes[source] = shape
        current = source
        for _ in range(rng.choice((1, 2, 2, 3, 3, 4) if self.windowed else (1, 1, 2, 2, 2, 3, 4))):
            current = self._next(current)
        if not (self.owners or self.kernels) or rng.random() < 0.4:
            if len(self.shapes[current]) > 1 and rng.random() < 0.7:
                current = self._flatten(current)
            current = self._dense(current, rng.randint(1, self.largest))
        if len(self.shapes[current]) > 1:
            self._flatten(current)
        size = list(shape) if self.several or self.windowed else shape[0]
        return {"input": {"name": source, "size": size}, "layers": self.layers}

    def _next(self, current: str) -> str:
        rng = self.rng
        kinds = ("dense", "dense", "dense", "activation", "skip", "branch")
        if self.windowed and 2 <= len(self.shapes[current]) <= 4:
            kinds = ("conv", "conv", "conv", "conv", "pool", "pool", "activation", "skip", "dense")
        kind = rng.choice((*kinds, "flatten") if self.several or self.windowed else kinds)
        *places, size = self.shapes[current]
        if kind == "dense":
            return self._dense(current, rng.choice((rng.randint(1, self.largest), size)))
        if kind == "conv":
            return self._conv(current)
        if kind == "pool":
            return self._pool(current)
        if kind == "activation":
            keys = function_of(rng, self.degenerate)
            return self._put("activation", self.shapes[current], inputs=[current], **keys)
        if kind == "flatten":
            return self._flatten(current)
        others = [
            name
            for name, (*before, last) in self.shapes.items()
            if name != current and before == places and (kind == "branch" or last == size)
        ]
        if not others:
            return self._dense(current, size)
        self.chain = False
        other = rng.choice(others)
        if kind == "branch":
            other = self._dense(other, size)
        more = {"activation": function_of(rng, self.degenerate)} if rng.random() < 0.4 else {}
        return self._put("add", self.shapes[current], inputs=[current, other], **more)

    def _flatten(self, source: str) -> str:
        return self._put("flatten", (prod(self.shapes[source]),), inputs=[source])

    def _dense(self, source: str, units: int) -> str:
        rng = self.rng
        keys: dict[str, Any] = {"inputs": [source]}
        if rng.random() < 0.6:
            keys["activation"] = function_of(rng, self.degenerate)
        *places, inputs = self.shapes[source]
        shape = (*places, units)
        same = [n for n, size in self.owners.items() if size == inputs and self.shapes[n][-1] == units]
        if same and rng.random() < 0.4:
            self.chain = False
            return self._put("dense", shape, share=rng.choice(same), **keys)
        if rng.random() < 0.2:
            keys["bias"] = False
        name = self._put("dense", shape, units=units, **keys)
        self.owners[name] = inputs
        return name

    def _conv(self, source: str) -> str:
        rng = self.rng
        inputs, *places = self.shapes[source]
        keys: dict[str, Any] = {"inputs": [source]}
        if rng.random() < 0.6:
            keys["activation"] = function_of(rng, self.degenerate)
        same = [
            name
            for name, (kernel, _, read, _) in self.kernels.items()
            if read == inputs and len(kernel) == len(places)
        ]
        if same and rng.random() < 0.6:
            self.chain = False
            owner = rng.choice(same)
            kernel, groups, _, channels = self.kernels[owner]
            more, made = window_of(rng, places, kernel=kernel)
            if groups > 1:
                keys["groups"] = groups
            return self._put("conv", (channels, *made), share=owner, **keys, **more)
        groups = divisor(rng, inputs) if rng.random() < 0.3 else 1
        channels = groups * rng.choice((1, 1, 2, 2, 3))
        more, made = window_of(rng, places)
        if groups > 1 or rng.random() < 0.05:
            keys["groups"] = groups
        if rng.random() < 0.2:
            keys["bias"] = False
        name = self._put("conv", (channels, *made), channels=channels, **keys, **more)
        size = more["kernel"]
        kernel = (size,) * len(places) if isinstance(size, int) else tuple(size)
        self.kernels[name] = (kernel, groups, inputs, channels)
        return name

    def _pool(self, source: str) -> str:
        channels, *places = self.shapes[source]
        pooling = self.rng.choice(("average", "max"))
        keys, made = window_of(self.rng, places, pooling)
        return self._put("pool", (channels, *made), inputs=[source], function=pooling, **keys)

    def _put(self, kind: str, shape: tuple[int, ...], **keys: Any) -> str:
        name = f"l{len(self.layers) + 1}"
        if self.rng.random() < 0.1:
            name = next(n for n in (*self.rng.sample(NAMES, 3), name) if n not in self.shapes)
        self.layers.append({"name": name, "type": kind, **keys})
        self.shapes[name] = shape
        self.states.append(name)
        return name
