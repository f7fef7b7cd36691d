"""Recurrent layers: forward as PyTorch's, all derivatives as those of a cell that is written out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from layer_cases import layer_spec
from torch import Tensor, nn
from torch.func import grad, hessian, jvp, vjp

import sifrc

OPERATORS = (
    *("loss", "gradient", "hessian_vector_product", "gauss_newton_vector_product"),
    *("summary", "per_sample_gradients"),
)
QUICK: Mapping[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("rnn", {}),
    "lstm": ("lstm", {}),
    "gru": ("gru", {}),
}
CASES: Mapping[str, tuple[str, dict[str, Any]]] = {
    **QUICK,
    "rnn with a relu": ("rnn", {"function": "relu"}),
    "rnn without a bias": ("rnn", {"bias": False}),
    "rnn of one unit": ("rnn", {"units": 1}),
    "rnn of two directions": ("rnn", {"bidirectional": True}),
    "rnn of two layers": ("rnn", {"layers": 2}),
    "lstm without a bias": ("lstm", {"bias": False}),
    "lstm of two directions": ("lstm", {"bidirectional": True}),
    "lstm of layers and directions": ("lstm", {"layers": 2, "bidirectional": True, "units": 3}),
    "gru without a bias": ("gru", {"bias": False}),
    "gru of two layers": ("gru", {"layers": 2}),
    "gru of layers and directions": ("gru", {"layers": 2, "bidirectional": True, "units": 3}),
}


def data_of(kind: str, keys: Mapping[str, Any], steps: int = 4, features: int = 3) -> dict[str, Any]:
    """A spec with the layer between the input and a dense layer of all steps."""
    return layer_spec([steps, features], [{"name": "r", "type": kind, "units": 2, **keys}])


def cells(kind: str, keys: Mapping[str, Any], params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The layer written out in elementary operations, batch first."""
    n, marks = keys.get("units", 2), ("", "_reverse")[: 1 + keys.get("bidirectional", False)]

    def sigmoid(value: Tensor) -> Tensor:
        return 1 / (1 + torch.exp(-value))

    for layer in range(keys.get("layers", 1)):
        sides = []
        for mark in (f"l{layer}{end}" for end in marks):
            read, moved = params[f"r.ih_{mark}.weight"], params[f"r.hh_{mark}.weight"]
            bias = [
                params.get(f"r.{name}_{mark}.bias", torch.zeros(len(read), dtype=x.dtype))
                for name in ("ih", "hh")
            ]
            h = c = torch.zeros(len(x), n, dtype=x.dtype)
            rows = list(x.unbind(1))
            states = []
            for row in rows[::-1] if mark.endswith("e") else rows:
                a, b = row @ read.T + bias[0], h @ moved.T + bias[1]
                if kind == "rnn":
                    h = torch.relu(a + b) if keys.get("function") == "relu" else torch.tanh(a + b)
                elif kind == "lstm":
                    i, f, g, o = (a + b).split(n, 1)
                    c = sigmoid(f) * c + sigmoid(i) * torch.tanh(g)
                    h = sigmoid(o) * torch.tanh(c)
                else:
                    (ar, az, an), (br, bz, bn) = a.split(n, 1), b.split(n, 1)
                    z = sigmoid(az + bz)
                    h = (1 - z) * torch.tanh(an + sigmoid(ar + br) * bn) + z * h
                states.append(h)
            sides.append(torch.stack(states[::-1] if mark.endswith("e") else states, 1))
        x = torch.cat(sides, 2)
    return x


def point(module: Any, seed: int = 1) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
    """Parameters, a direction, inputs and targets."""
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: Any) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    params = {name: 0.7 * draw(shape) for name, shape in module.SHAPES.items()}
    return params, {name: draw(p.shape) for name, p in params.items()}, draw((3, 4, 3)), draw((3, 3))


def close(found: Any, expected: Mapping[str, Tensor], limit: float = 1e-9) -> None:
    """Largest difference of each tensor, relative to its largest entry."""
    for name, value in expected.items():
        other = torch.as_tensor(found[name])
        assert (other - value).abs().max() <= limit * value.abs().max(), name


def check(kind: str, keys: dict[str, Any], backend: str) -> None:
    """All derivatives of a module."""
    module = sifrc.compile(data_of(kind, keys), backend=backend, method="none", operators=OPERATORS)
    params, vector, x, t = point(module)
    arrays = [params, vector, x, t]
    if backend == "numba":
        arrays = [{n: p.numpy() for n, p in each.items()} for each in (params, vector)] + [
            x.numpy(),
            t.numpy(),
        ]
    own, along, inputs, targets = arrays

    def output(p: Mapping[str, Tensor]) -> Tensor:
        return cells(kind, keys, p, x).flatten(1) @ p["out.weight"].T + p["out.bias"]

    def loss(p: Mapping[str, Tensor]) -> Tensor:
        return ((output(p) - t) ** 2).sum(1).mean() / 2

    close(module.gradient(own, inputs, targets), grad(loss)(params))
    close(
        module.hessian_vector_product(own, inputs, targets, along), jvp(grad(loss), (params,), (vector,))[1]
    )
    moved = jvp(output, (params,), (vector,))[1]
    close(
        module.gauss_newton_vector_product(own, inputs, targets, along),
        vjp(output, params)[1](moved / len(x))[0],
    )
    groups = module.GROUPS
    ends = torch.eye(len(groups), dtype=torch.float64)

    def by_groups(step: Tensor) -> Tensor:
        parts = dict(params)
        for size, names in zip(step, groups.values(), strict=True):
            parts |= {name: params[name] + size * vector[name] for name in names}
        return loss(parts)

    zero = torch.zeros(len(groups), dtype=torch.float64)
    expected = [grad(by_groups)(zero), hessian(by_groups)(zero)]
    for end in ends:
        third = grad(grad(grad(lambda s, end=end: by_groups(s * end))))
        expected.append(third(torch.zeros((), dtype=torch.float64)))
    expected[2:] = [torch.stack(expected[2:])]
    for order in (1, 2, 3):
        found = module.summary(own, inputs, targets, along, order=order)
        close(dict(enumerate((found.g, found.H, found.D3))), dict(enumerate(expected[:order])))


@pytest.mark.parametrize("name", CASES)
def test_torch_derivatives(name: str) -> None:
    """Gradient, products and summaries of every layer in the Torch backend."""
    check(*CASES[name], "torch")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rnn of two directions", "lstm", "gru"])
def test_numba_derivatives(name: str) -> None:
    """The same of Numba modules."""
    check(*CASES[name], "numba")


@pytest.mark.parametrize("name", CASES)
def test_forward_is_that_of_torch(name: str) -> None:
    """PyTorch's own module with the same tensors gives the same states."""
    kind, keys = CASES[name]
    module = sifrc.compile(data_of(kind, keys), method="none", operators=("gradient",))
    params, _, x, _ = point(module)
    options = {"nonlinearity": keys["function"]} if "function" in keys else {}
    layer = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind](
        3,
        keys.get("units", 2),
        keys.get("layers", 1),
        bias=keys.get("bias", True),
        batch_first=True,
        bidirectional=keys.get("bidirectional", False),
        dtype=torch.float64,
        **options,
    )
    own = {
        name: params[f"r.{name[name.index('_') + 1 :]}.{name.split('_')[0]}"] for name in layer.state_dict()
    }
    layer.load_state_dict(own)
    expected = layer(x)[0].flatten(1) @ params["out.weight"].T + params["out.bias"]
    assert (module.predict(params, x) - expected).abs().max() <= 1e-12
