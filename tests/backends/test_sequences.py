"""Recurrent layers that begin with given states, and sequences of different lengths as PyTorch packs them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from curvature_modules import load
from curvature_oracle import assert_close
from elementary_recurrence import sigmoid
from torch import Tensor, nn
from torch.func import grad, jvp
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sifrc.errors import SpecError
from sifrc.spec import build_spec, spec_to_dict
from sifrc.spec.types import Spec
from sifrc.verify.ladder import verify

STEPS, FEATURES, UNITS, BATCH = 4, 3, 2, 5
LENGTHS = torch.tensor([4, 1, 3, 2, 4])
MODULES = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
CASES: dict[str, dict[str, Any]] = {
    "rnn": {"type": "rnn"},
    "rnn of relus, both directions": {"type": "rnn", "function": "relu", "bidirectional": True},
    "lstm of layers": {"type": "lstm", "layers": 2},
    "lstm, both directions": {"type": "lstm", "bidirectional": True, "bias": False},
    "gru of layers and directions": {"type": "gru", "layers": 2, "bidirectional": True},
}


def names_of(layer: dict[str, Any]) -> list[str]:
    return ["h", "c"][: 1 + (layer["type"] == "lstm")]


def passes_of(layer: dict[str, Any]) -> int:
    return int(layer.get("layers", 1) * (1 + layer.get("bidirectional", False)))


def spec_of(
    layer: dict[str, Any], states: bool, mask: bool, steps: int = STEPS, units: int = UNITS, **keys: Any
) -> Spec:
    """A layer and a dense one of all that it gives."""
    names, passes = names_of(layer), passes_of(layer)
    inputs = [{"name": "x", "size": [steps, FEATURES]}]
    inputs += [{"name": name, "size": [passes, units]} for name in names] if states else []
    inputs += [{"name": "m", "size": steps}] if mask else []
    own = {"name": "r", "units": units, "inputs": "x", **layer, **keys}
    own |= {"state": names if len(names) > 1 else "h"} if states else {}
    own |= {"mask": "m"} if mask else {}
    layers = [own, {"name": "f", "type": "flatten"}, {"name": "out", "type": "dense", "units": 2}]
    return build_spec(
        {
            "sifrc": 1,
            "name": "sequences",
            "loss": "squared_error",
            "dtype": "float64",
            "network": {"inputs": inputs, "layers": layers},
        }
    )


def written_out(
    layer: dict[str, Any], params: dict[str, Tensor], x: Tensor, begun: list[Tensor], read: Tensor
) -> Tensor:
    """All steps one by one: where one is not read, the state stays; h at every step, and cells after it."""
    kind, sides = layer["type"], 1 + layer.get("bidirectional", False)
    for number in range(layer.get("layers", 1)):
        found, cells = [], []
        for side in range(sides):
            mark = f"l{number}{'_reverse' * side}"

            def linear(name: str, value: Tensor, mark: str = mark) -> Tensor:
                product = value @ params[f"r.{name}_{mark}.weight"].T
                return product + params.get(f"r.{name}_{mark}.bias", 0.0)

            state = [given[:, number * sides + side] for given in begun]
            states: list[list[Tensor]] = [state] * x.shape[1]
            for n in range(x.shape[1])[:: -1 if side else 1]:
                new = cell(kind, layer.get("function"), linear("ih", x[:, n]), linear("hh", state[0]), state)
                here = read[:, n, None]
                state = [torch.where(here, a, b) for a, b in zip(new, state, strict=True)]
                states[n] = state
            found.append(torch.stack([each[0] for each in states], 1))
            cells.append(torch.stack([each[-1] for each in states], 1))
        x = torch.cat(found, 2)
    return torch.cat([x, *cells], 2) if layer.get("cells") else x


def cell(kind: str, function: str | None, a: Tensor, b: Tensor, state: list[Tensor]) -> list[Tensor]:
    """One step."""
    if kind == "rnn":
        return [torch.where(a + b > 0, a + b, 0.0) if function == "relu" else torch.tanh(a + b)]
    if kind == "lstm":
        i, f, g, o = (a + b).chunk(4, 1)
        c = sigmoid(f) * state[1] + sigmoid(i) * torch.tanh(g)
        return [sigmoid(o) * torch.tanh(c), c]
    (ar, az, an), (br, bz, bn) = a.chunk(3, 1), b.chunk(3, 1)
    z = sigmoid(az + bz)
    return [(1 - z) * torch.tanh(an + sigmoid(ar + br) * bn) + z * state[0]]


def packed(
    layer: dict[str, Any], params: dict[str, Tensor], x: Tensor, begun: list[Tensor], lengths: Tensor
) -> tuple[Tensor, Any]:
    """By PyTorch's own module: outputs, and the last states."""
    own = MODULES[layer["type"]](
        FEATURES,
        UNITS,
        layer.get("layers", 1),
        bias=layer.get("bias", True),
        batch_first=True,
        bidirectional=layer.get("bidirectional", False),
        dtype=torch.float64,
        **({"nonlinearity": layer["function"]} if "function" in layer else {}),
    )
    parts = {name: name.split("_", 1) for name in own.state_dict()}
    own.load_state_dict({name: params[f"r.{part}.{slot}"] for name, (slot, part) in parts.items()})
    rows = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    states = [given.transpose(0, 1).contiguous() for given in begun]
    given = tuple(states) if len(states) > 1 else states[0]
    found, ends = own(rows, given)
    return pad_packed_sequence(found, batch_first=True, total_length=STEPS)[0].detach(), ends


def own(module: ModuleType, value: Any) -> Any:
    """In the arrays of the module."""
    if hasattr(module, "torch"):
        return value
    if isinstance(value, tuple):
        return tuple(own(module, v) for v in value)
    return {k: own(module, v) for k, v in value.items()} if isinstance(value, dict) else value.numpy()


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives(case: str, backend: str, tmp_path: Path) -> None:
    """Outputs are those of PyTorch's packed sequences, derivatives those of the steps written out."""
    layer = CASES[case]
    spec = spec_of(layer, states=True, mask=True)
    assert build_spec(spec_to_dict(spec)) == spec
    module = load(spec, backend, tmp_path, ("gradient", "hessian_vector_product"))
    generator = torch.Generator().manual_seed(2)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    params, vector = ({n: normal(*s) for n, s in module.SHAPES.items()} for _ in range(2))
    x, t = normal(BATCH, STEPS, FEATURES), normal(BATCH, 2)
    begun = [normal(BATCH, passes_of(layer), UNITS) for _ in names_of(layer)]
    read = torch.arange(STEPS)[None] < LENGTHS[:, None]

    def outputs(values: dict[str, Tensor]) -> Tensor:
        h = written_out(layer, values, x, begun, read) * read[:, :, None]
        return h.flatten(1) @ values["out.weight"].T + values["out.bias"]

    def objective(values: dict[str, Tensor]) -> Tensor:
        return ((outputs(values) - t) ** 2).sum() / (2 * BATCH)

    expected = packed(layer, params, x, begun, LENGTHS)[0].flatten(1) @ params["out.weight"].T
    inputs = own(module, (x, *begun, read))
    found = torch.as_tensor(module.predict(own(module, params), inputs))
    assert (found - expected - params["out.bias"]).abs().max() <= 1e-12
    given = (own(module, params), inputs, own(module, t))
    assert_close(module.gradient(*given), grad(objective)(params))
    product = jvp(grad(objective), (params,), (vector,))[1]
    assert_close(module.hessian_vector_product(*given, own(module, vector)), product)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_states_are_carried(kind: str, tmp_path: Path) -> None:
    """Over steps that are left out, wherever they are; the last one is then that of the sequence."""
    layer = {"type": kind}
    module = load(spec_of(layer, False, True, masked="carried"), "torch", tmp_path, ("gradient",))
    normal = partial(torch.randn, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    params = {n: normal(*s) for n, s in module.SHAPES.items()}
    x, read = normal(BATCH, STEPS, FEATURES), torch.rand(BATCH, STEPS) < 0.5
    begun = [torch.zeros(BATCH, 1, UNITS, dtype=torch.float64) for _ in names_of(layer)]
    expected = written_out(layer, params, x, begun, read).flatten(1) @ params["out.weight"].T
    assert (module.predict(params, (x, read)) - expected - params["out.bias"]).abs().max() <= 1e-12


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("masked", ["zero", "carried"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_cells_with_masks_and_given_states(backend: str, masked: str, tmp_path: Path) -> None:
    """After the states, zero or carried like these; the last ones are those of PyTorch's packed sequences."""
    layer = {"type": "lstm", "bidirectional": True, "layers": 2, "cells": True}
    spec = spec_of(layer, states=True, mask=True, masked=masked)
    assert build_spec(spec_to_dict(spec)) == spec
    module = load(spec, backend, tmp_path, ("gradient", "hessian_vector_product"))
    normal = partial(torch.randn, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    params, vector = ({n: normal(*s) for n, s in module.SHAPES.items()} for _ in range(2))
    x, t = normal(BATCH, STEPS, FEATURES), normal(BATCH, 2)
    begun = [normal(BATCH, passes_of(layer), UNITS) for _ in "hc"]
    read = torch.arange(STEPS)[None] < LENGTHS[:, None]

    _, (_, ends) = packed(layer, params, x, begun, LENGTHS)
    h = written_out(layer, params, x, begun, read)
    torch.testing.assert_close(h[:, -1, 2 * UNITS : 3 * UNITS], ends[-2].detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(h[:, 0, 3 * UNITS :], ends[-1].detach(), rtol=0, atol=1e-12)

    def outputs(values: dict[str, Tensor]) -> Tensor:
        h = written_out(layer, values, x, begun, read)
        h = h * read[:, :, None] if masked == "zero" else h
        return h.flatten(1) @ values["out.weight"].T + values["out.bias"]

    def objective(values: dict[str, Tensor]) -> Tensor:
        return ((outputs(values) - t) ** 2).sum() / (2 * BATCH)

    inputs = own(module, (x, *begun, read))
    found = torch.as_tensor(module.predict(own(module, params), inputs))
    assert (found - outputs(params)).abs().max() <= 1e-12
    given = (own(module, params), inputs, own(module, t))
    assert_close(module.gradient(*given), grad(objective)(params))
    product = jvp(grad(objective), (params,), (vector,))[1]
    assert_close(module.hessian_vector_product(*given, own(module, vector)), product)


def test_a_layer_says_how_another_begins(tmp_path: Path) -> None:
    """As a decoder begins with what an encoder ends with; both are differentiated."""
    layers = [
        {"name": "e", "type": "gru", "units": 2, "inputs": "x"},
        {"name": "last", "type": "slice", "axis": 1, "start": -1},
        {"name": "state", "type": "flatten"},
        {"name": "r", "type": "gru", "units": 2, "inputs": "y", "state": "state"},
        {"name": "f", "type": "flatten"},
        {"name": "out", "type": "dense", "units": 2},
    ]
    inputs = [{"name": "x", "size": [3, 2]}, {"name": "y", "size": [2, 3]}]
    spec = build_spec(
        {
            "sifrc": 1,
            "name": "pair",
            "loss": "squared_error",
            "dtype": "float64",
            "network": {"inputs": inputs, "layers": layers},
        }
    )
    module = load(spec, "torch", tmp_path, ("gradient",))
    normal = partial(torch.randn, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    params = {n: normal(*s) for n, s in module.SHAPES.items()}
    x, y, t = normal(BATCH, 3, 2), normal(BATCH, 2, 3), normal(BATCH, 2)

    def objective(values: dict[str, Tensor]) -> Tensor:
        encoder = {name.replace("e.", "r.", 1): v for name, v in values.items() if name.startswith("e.")}
        zero, all_read = torch.zeros(BATCH, 1, 2, dtype=torch.float64), torch.ones(BATCH, 3, dtype=torch.bool)
        first = written_out({"type": "gru"}, encoder, x, [zero], all_read)[:, -1:]
        h = written_out({"type": "gru"}, values, y, [first], all_read)
        found = h.flatten(1) @ values["out.weight"].T + values["out.bias"]
        return ((found - t) ** 2).sum() / (2 * BATCH)

    assert_close(module.gradient(params, (x, y), t), grad(objective)(params))


@pytest.mark.parametrize("kind", ["rnn", "gru", pytest.param("lstm", marks=pytest.mark.slow)])
def test_all_that_is_derived_is_verified(kind: str) -> None:
    """Both directions of two steps."""
    layer = {"type": kind, "bidirectional": kind == "rnn"}
    spec = spec_of(layer, True, True, steps=2, units=1)
    report = verify(spec, levels=(1, 2), quantities=("gradient",))
    assert report.passed, [row for row in report.rows if row.passed is False]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"type": "lstm"}, "lstm layer 'r' begins with 2 states, not 1"),
        ({"bidirectional": True}, "'h' of 1 x 2 cannot be what 'r' begins with"),
        ({"state": "q"}, "unknown input 'q'"),
    ],
)
def test_errors_of_specs(keys: dict[str, Any], message: str) -> None:
    """What does not fit is said, and what would."""
    document = spec_to_dict(spec_of({"type": "gru"}, states=True, mask=True))
    document["network"]["layers"][0] |= keys
    with pytest.raises(SpecError, match=message):
        build_spec(document)


def test_a_mask_has_a_number_for_each_step() -> None:
    """Any other size is an error, and a word for what it leaves out without one."""
    with pytest.raises(SpecError, match="'r' has no mask"):
        spec_of({"type": "gru"}, states=False, mask=False, masked="carried")
    document = spec_to_dict(spec_of({"type": "gru"}, states=False, mask=True))
    document["network"]["inputs"][1]["size"] = 3
    with pytest.raises(SpecError, match="the mask 'm' of 'r' has 3"):
        build_spec(document)
