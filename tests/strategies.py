"""Hypothesis strategies: random specs as plain dicts."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

__all__ = ["ACTIVATIONS", "LOSSES", "specs"]

BUILT_IN = (
    "identity",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "softplus",
    "tanh",
    "sigmoid",
    "mish",
    "sin",
)

ACTIVATIONS: tuple[Any, ...] = (
    *BUILT_IN,
    {"function": "leaky_relu", "parameters": {"slope": 0.3}},
    {"function": "elu", "parameters": {"alpha": 0.7}},
    {"expression": "x*tanh(log(1 + b*exp(x)))", "parameters": {"b": 0.7}},
    {"expression": "where(x > c, x**2/2, a*x)", "parameters": {"a": 0.4, "c": -0.3}},
    {"expression": "atan(x) + asinh(2*x)/3"},
    {"expression": "x/sqrt(1 + x**2)"},
    {"expression": "log1p(exp(-x**2)) + abs(x)/(1 + abs(x))"},
    {"expression": "max(x, a*x**3) - min(x, cos(x))", "parameters": {"a": 0.2}},
    {"expression": "erf(x)*sigmoid(k*x) + 0.125*sinh(x/2)", "parameters": {"k": -1.5}},
    *(
        {"expression": text}
        for text in (
            "x + 1",
            "x + log(2)",
            "log(exp(x)) - 0.5",
            "-x",
            "sqrt(2)*x",
            "0*x + 1",
            "where(x > 0, x + 1, x)",
            "where(x > 0, 1 + 0*x, 2)",
            "max(2*x, x + x)",
        )
    ),
)

LOSSES: tuple[Any, ...] = (
    "squared_error",
    "mse",
    "cross_entropy",
    {"function": "cross_entropy", "targets": "vectors"},
    "binary_cross_entropy",
    "huber",
    {"function": "huber", "parameters": {"delta": 0.4}},
    "bounded",
    {"function": "bounded", "parameters": {"delta": 3.0, "epsilon": 0.4}},
    {"function": "mse", "reduction": "sum"},
    {"expression": "sum((y - t)**4)/4"},
    {"expression": "log(1 + sum((y - t)**2))"},
    {"expression": "mean(where(y > t, (y - t)**2, a*(y - t)**2))", "parameters": {"a": 0.3}},
    {"expression": "logsumexp(y) - dot(t, y) + c*sum(y*y*t)", "parameters": {"c": 0.2}},
    {"expression": "-log(dot(t, softmax(y)))", "targets": "classes"},
    {"expression": "sum(softplus(y)*t) + mean(sin(y - t))"},
    {"expression": "sqrt(1 + dot(y - t, y - t)) + mean(y)*sum(tanh(y))/5"},
    {"expression": "sum((y - t)**2/(2*s**2) + log(s))", "parameters": {"s": 0.7}},
    *(
        {"expression": text}
        for text in (
            "sum(max(0.9*(t - y), -0.1*(t - y)))",
            "sum(max(abs(y - t) - 0.1, 0))",
            "mean((y - mean(y))**2) + mean((y - t)**2)",
            "sum(y)*sum(y)*log(2)",
            "sum(t*y)",
            "0*sum(y)",
            "log(2) + sum(t) + 0*sum(y)",
            "sum(where(y > t, 1 + 0*y, 2))",
        )
    ),
)

_sizes = st.integers(1, 5)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A connected graph of dense, activation and add layers; every layer is used."""
    sizes = {"image": draw(_sizes)}
    layers: list[dict[str, Any]] = []
    owners: dict[str, int] = {}
    current = "image"

    def put(kind: str, size: int, **keys: Any) -> str:
        name = f"l{len(layers) + 1}"
        layers.append({"name": name, "type": kind, **keys})
        sizes[name] = size
        return name

    def dense(source: str, units: int) -> str:
        sharable = [n for n, inputs in owners.items() if inputs == sizes[source] and sizes[n] == units]
        keys: dict[str, Any] = {"inputs": [source]}
        if draw(st.booleans()):
            keys["activation"] = draw(st.sampled_from(ACTIVATIONS))
        if sharable and draw(st.booleans()):
            return put("dense", units, share=draw(st.sampled_from(sharable)), **keys)
        if not draw(st.integers(0, 3)):
            keys["bias"] = False
        name = put("dense", units, units=units, **keys)
        owners[name] = sizes[source]
        return name

    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["dense", "dense", "activation", "skip", "branch"]))
        if kind == "dense":
            previous = sizes[current]
            current = dense(current, draw(st.one_of(_sizes, st.just(previous))))
        elif kind == "activation":
            activation = draw(st.sampled_from(ACTIVATIONS))
            keys = {"function": activation} if isinstance(activation, str) else activation
            current = put("activation", sizes[current], inputs=[current], **keys)
        else:
            earlier = [
                n
                for n, size in sizes.items()
                if n != current and (kind == "branch" or size == sizes[current])
            ]
            if not earlier:
                continue
            other = draw(st.sampled_from(earlier))
            if kind == "branch":
                other = dense(other, sizes[current])
            more = {"activation": draw(st.sampled_from(ACTIVATIONS))} if draw(st.booleans()) else {}
            current = put("add", sizes[current], inputs=[current, other], **more)
    if not owners or draw(st.booleans()):
        current = dense(current, draw(_sizes))
    return {
        "sifrc": 1,
        "name": "random",
        "network": {"input": {"name": "image", "size": sizes["image"]}, "layers": layers},
        "loss": draw(st.sampled_from(LOSSES)),
        "regularization": {"state": draw(st.sampled_from(["none", 0.1, 1.5]))},
        "dtype": "float64",
    }
