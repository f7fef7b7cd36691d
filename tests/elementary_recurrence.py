"""Recurrent layers of a batch, step by step in elementary operations, and by PyTorch's own modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["fused", "written_out"]

Parameter = Callable[[str, str], Tensor | None]
"""A tensor by slot and part, e.g. ("weight", "ih_l0"); None where there is none."""
FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "sin": torch.sin,
}


def sigmoid(x: Tensor) -> Tensor:
    """Written out."""
    return 1 / (1 + torch.exp(-x))


def written_out(layer: Mapping[str, Any], parameter: Parameter, x: Tensor) -> Tensor:
    """The output of a layer at all steps: states, and after them cells where the layer says so.

    Args:
        layer: as in a spec.
        parameter: its tensors.
        x: over (samples, steps, features).
    """
    ends = ("", "_reverse")[: 1 + layer.get("bidirectional", False)]
    for number in range(layer.get("layers", 1)):
        sides = [one_pass(layer, parameter, f"l{number}{end}", x) for end in ends]
        x = torch.cat([states for states, _ in sides], 2)
    return torch.cat([x, *(cells for _, cells in sides)], 2) if layer.get("cells") else x


def one_pass(layer: Mapping[str, Any], parameter: Parameter, mark: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """One direction of one layer: states and cells of all steps; zeros for cells where there are none."""
    kind, n = layer["type"], layer["units"]

    def linear(name: str, value: Tensor) -> Tensor:
        weight, bias = (parameter(slot, f"{name}_{mark}") for slot in ("weight", "bias"))
        assert weight is not None
        found = (value[..., None, :] * weight).sum(-1)
        return found if bias is None else found + bias

    h = c = torch.zeros(len(x), n, dtype=x.dtype)
    rows, states, cells = list(x.unbind(1)), [], []
    for row in reversed(rows) if mark.endswith("_reverse") else rows:
        a, b = linear("ih", row), linear("hh", h)
        if kind == "rnn":
            h = FUNCTIONS[layer.get("function", "tanh")](a + b)
        elif kind == "lstm":
            i, f, g, o = (a + b).split(n, 1)
            c = sigmoid(f) * c + sigmoid(i) * torch.tanh(g)
            h = sigmoid(o) * torch.tanh(c)
        else:
            (ar, az, an), (br, bz, bn) = a.split(n, 1), b.split(n, 1)
            z = sigmoid(az + bz)
            h = (1 - z) * torch.tanh(an + sigmoid(ar + br) * bn) + z * h
        states.append(h)
        cells.append(c)
    order = slice(None, None, -1 if mark.endswith("_reverse") else 1)
    return torch.stack(states[order], 1), torch.stack(cells[order], 1)


def fused(layer: Mapping[str, Any], parameter: Parameter, x: Tensor) -> Tensor:
    """The same by ``torch.nn``, whose tensors have the same shapes."""
    if layer.get("cells"):
        return _with_cells(layer, parameter, x)
    return _module(layer, parameter, x)(x)[0].detach()


def _module(layer: Mapping[str, Any], parameter: Parameter, x: Tensor) -> nn.Module:
    """A layer of PyTorch with these tensors."""
    options = {"nonlinearity": layer["function"]} if "function" in layer else {}
    found = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[layer["type"]](
        x.shape[2],
        layer["units"],
        layer.get("layers", 1),
        bias=layer.get("bias", True),
        batch_first=True,
        bidirectional=layer.get("bidirectional", False),
        dtype=x.dtype,
        **options,
    )
    names = {name: name.split("_", 1) for name in found.state_dict()}
    found.load_state_dict({name: parameter(slot, part) for name, (slot, part) in names.items()})
    return found


def _with_cells(layer: Mapping[str, Any], parameter: Parameter, x: Tensor) -> Tensor:
    """Cells of a step are what the last layer ends with when it reads as far as it, from either end."""
    layers, own = layer.get("layers", 1), {key: value for key, value in layer.items() if key != "cells"}

    def last(slot: str, part: str) -> Tensor | None:
        return parameter(slot, part.replace("l0", f"l{layers - 1}"))

    read = fused({**own, "layers": layers - 1}, parameter, x) if layers > 1 else x
    module = _module({**own, "layers": 1}, last, read)
    found = [module(read)[0]]
    for side in range(1 + own.get("bidirectional", False)):
        ends = [read[:, n:] if side else read[:, : n + 1] for n in range(x.shape[1])]
        found.append(torch.stack([module(each)[1][1][side] for each in ends], 1))
    return torch.cat(found, 2).detach()
