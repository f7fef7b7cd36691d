"""Recurrent modules whose last states and cells go on: to a head, to a decoder, to the same module again.

Derivatives are compared with those of the recurrence written out, step by step, in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sampled import one_in
from test_modules import OPERATORS, expected_of
from torch import Tensor, nn
from torch.nn import functional as F

import sifrc
from sifrc.api.importing import imported
from sifrc.importing.text import spec_text
from sifrc.spec.canonical import spec_hash
from sifrc.verify.ladder import verify


class WrittenOut(nn.Module):
    """What an ``nn.LSTM`` or ``nn.GRU`` gives, with its tensors, in elementary operations."""

    def __init__(self, own: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.sizes, self.batch_first = (own.num_layers, own.hidden_size, own.bidirectional), own.batch_first
        self.gated = isinstance(own, nn.GRU)
        for name, value in own.named_parameters():
            self.register_parameter(name, value)

    def step(self, mark: str, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step of one direction of one layer."""
        read, moved = (
            F.linear(value, getattr(self, f"weight_{n}_{mark}"), getattr(self, f"bias_{n}_{mark}"))
            for n, value in (("ih", x), ("hh", h))
        )
        if self.gated:
            (r, z, n), (r2, z2, n2) = read.chunk(3, 1), moved.chunk(3, 1)
            z = torch.sigmoid(z + z2)
            return (1 - z) * torch.tanh(n + torch.sigmoid(r + r2) * n2) + z * h, c
        i, f, g, o = (read + moved).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def forward(self, x: Tensor, begun: Any = None) -> Any:
        layers, units, both = self.sizes
        x = x if self.batch_first else x.transpose(0, 1)
        zero = torch.zeros(layers * (1 + both), len(x), units, dtype=x.dtype)
        begun = zero if begun is None else begun
        first, held = (begun, zero) if isinstance(begun, Tensor) else begun
        ends: list[tuple[Tensor, Tensor]] = []
        for layer in range(layers):
            sides = []
            for side in range(1 + both):
                h, c = first[len(ends)], held[len(ends)]
                states = [h] * x.shape[1]
                for n in range(x.shape[1])[:: -1 if side else 1]:
                    h, c = self.step(f"l{layer}{'_reverse' * side}", x[:, n], h, c)
                    states[n] = h
                sides.append(torch.stack(states, 1))
                ends.append((h, c))
            x = torch.cat(sides, 2)
        last, cells = (torch.stack(each) for each in zip(*ends, strict=True))
        return x if self.batch_first else x.transpose(0, 1), last if self.gated else (last, cells)


class Head(nn.Module):
    """A head of the cells after the last step, of all layers and directions."""

    def __init__(self, layers: int, both: bool, batch_first: bool = True) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 3, layers, bidirectional=both, batch_first=batch_first)
        self.out = nn.Linear(3 * layers * (1 + both), 2)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.lstm(x if self.lstm.batch_first else x.transpose(0, 1))[1][1]
        return self.out(cells.transpose(0, 1).flatten(1))


class Pair(nn.Module):
    """A decoder that begins with the states and cells that an encoder ends with."""

    def __init__(self, layers: int, both: bool, batch_first: bool = True, kind: Any = nn.LSTM) -> None:
        super().__init__()
        keys = {"bidirectional": both, "batch_first": batch_first}
        self.first = batch_first
        self.encoder, self.decoder = kind(2, 2, layers, **keys), kind(3, 2, layers, **keys)
        self.out = nn.Linear(2 * (1 + both), 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = (x, y) if self.first else (x.transpose(0, 1), y.transpose(0, 1))
        found = self.out(self.decoder(y, self.encoder(x)[1])[0])
        return found if self.first else found.transpose(0, 1)


class Echo(Pair):
    """A decoder that reads what the encoder read: one input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, torch.cat([x, x[..., :1]], -1))


class Begun(Pair):
    """An encoder whose states are learned to begin with, a decoder with the states and no cells."""

    def __init__(self) -> None:
        super().__init__(2, False)
        self.begin = nn.Parameter(torch.randn(2, 1, 2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        begin = self.begin.expand(-1, len(x), -1)
        h, _ = self.encoder(x, (begin, torch.sin(begin)))[1]
        return self.out(self.decoder(y, (h, torch.zeros_like(h)))[0])


class Both(nn.Module):
    """States, cells and outputs, all read."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(2, 2, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        found, (h, c) = self.lstm(x)
        return self.out(torch.cat([found.mean(1), torch.tanh(h[-1]), c[-1]], 1))


class Twice(nn.Module):
    """One recurrent module on two inputs, the second time from where the first ended or from zeros."""

    def __init__(self, kind: Any, layers: int, both: bool, goes_on: bool) -> None:
        super().__init__()
        self.rnn = kind(2, 2, layers, bidirectional=both, batch_first=True)
        self.out, self.goes_on = nn.Linear(4 * (1 + both), 2), goes_on

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        first, ends = self.rnn(x)
        second = self.rnn(y, ends if self.goes_on else None)[0]
        return self.out(torch.cat([first[:, -1], second[:, -1]], 1))


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def of(kind: Callable[..., nn.Module], *given: Any) -> Callable[[], nn.Module]:
    return lambda: kind(*given)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "cells to a head": (of(Head, 1, False), ((3, 3, 2),)),
    "cells of layers and directions to a head": (of(Head, 2, True), ((3, 3, 2),)),
    "cells to a head, steps first": (of(Head, 2, False, False), ((3, 3, 2),)),
    "states and cells and outputs": (Both, ((3, 3, 2),)),
    "encoder and decoder": (of(Pair, 1, False), ((3, 3, 2), (3, 2, 3))),
    "encoder and decoder of layers and directions": (of(Pair, 2, True), ((3, 3, 2), (3, 2, 3))),
    "encoder and decoder, steps first": (of(Pair, 2, False, False), ((3, 3, 2), (3, 2, 3))),
    "encoder and decoder of one input": (of(Echo, 2, True), ((3, 3, 2),)),
    "states that are learned, cells that are zero": (Begun, ((3, 3, 2), (3, 2, 3))),
    "encoder and decoder, gated units": (of(Pair, 2, False, True, nn.GRU), ((3, 3, 2), (3, 2, 3))),
    "one module twice": (of(Twice, nn.LSTM, 1, False, False), ((3, 3, 2), (3, 2, 2))),
    "one module twice, going on": (of(Twice, nn.LSTM, 2, True, True), ((3, 3, 2), (3, 2, 2))),
    "gated units twice": (of(Twice, nn.GRU, 1, True, True), ((3, 3, 2), (3, 2, 2))),
}


def made(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    make, shapes = CASES[name]
    return make().double(), tuple(drawn(*shape) for shape in shapes)


def written_out(module: nn.Module) -> nn.Module:
    """The same with its recurrent parts written out, on the same tensors."""
    found = copy.deepcopy(module)
    for name, part in list(found.named_children()):
        if isinstance(part, nn.LSTM | nn.GRU):
            setattr(found, name, WrittenOut(part))
    return found


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives(name: str, backend: str) -> None:
    """Outputs are those of the module, derivatives those of the recurrence, by the module's own names."""
    module, inputs = made(name)
    oracle, outputs = written_out(module), module(*inputs).detach()
    torch.testing.assert_close(oracle(*inputs).detach(), outputs, rtol=1e-12, atol=1e-12)
    targets = drawn(*outputs.shape)
    vector = {given: drawn(*value.shape) for given, value in module.named_parameters()}
    _, *expected = expected_of(oracle, inputs, F.mse_loss, targets, vector)

    target = {"backend": backend, "operators": list(OPERATORS)}
    spec = sifrc.from_torch(module, inputs, nn.MSELoss(), target=target)
    generated: Any = sifrc.compile(spec)
    names = {own_name: spec.names.get(own_name, own_name) for own_name in generated.SHAPES}
    assert sorted(names.values()) == sorted(vector), "every tensor of the module is one of the spec"

    def own(value: Tensor) -> Any:
        return value if backend == "torch" else value.numpy()

    params = {own_name: own(module.get_parameter(given).detach()) for own_name, given in names.items()}
    moved = {own_name: own(vector[given]) for own_name, given in names.items()}
    given = tuple(own(value) for value in inputs)
    at = (params, given[0] if len(given) == 1 else given)
    torch.testing.assert_close(torch.as_tensor(generated.predict(*at)), outputs, rtol=1e-12, atol=1e-12)
    at = (*at, own(targets))
    found = [generated.gradient(*at), *(getattr(generated, each)(*at, moved) for each in OPERATORS[1:])]
    for result, wanted in zip(found, expected, strict=True):
        scale = max(float(value.abs().max()) for value in wanted.values())
        for own_name, value in result.items():
            expect = wanted[names[own_name]]
            torch.testing.assert_close(torch.as_tensor(value), expect, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("name", CASES)
def test_yaml_says_the_same(name: str) -> None:
    """What ``sifrc import`` writes is read back as the same spec."""
    module, inputs = made(name)
    data, _ = imported(module, inputs, nn.MSELoss())
    assert spec_hash(sifrc.parse_spec(spec_text(data))) == spec_hash(sifrc.build_spec(data))


VERIFIED = ("encoder and decoder", "one module twice", "cells of layers and directions to a head")


@pytest.mark.parametrize("name", one_in(3, VERIFIED))
def test_what_is_derived_is_verified(name: str) -> None:
    """By the verification's own oracles."""
    module, inputs = made(name)
    spec = sifrc.from_torch(module, inputs, nn.MSELoss())
    report = verify(spec, levels=(1, 2), quantities=("gradient",))
    assert report.passed and report.rows, [row for row in report.rows if row.passed is False]


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "torch") for name in (*VERIFIED, "encoder and decoder of one input")),
        # The third level runs Numba modules of one input.
        ("cells of layers and directions to a head", "numba"),
        ("encoder and decoder of one input", "numba"),
    ],
)
def test_modules_are_verified(name: str, backend: str) -> None:
    """Generated code of both backends by the third level, which finds a module of another loss."""
    module, inputs = made(name)
    target = {"backend": backend, "operators": list(OPERATORS)}
    spec = sifrc.from_torch(module, inputs, nn.MSELoss(), target=target)
    report = verify(spec, levels=(3,), module=sifrc.compile(spec))
    assert report.passed and len(report.rows) >= len(OPERATORS)
    wrong = sifrc.from_torch(module, inputs, nn.HuberLoss(), target=target)
    assert not verify(spec, levels=(3,), module=sifrc.compile(wrong)).passed


def test_cells_are_given_only_where_they_are_read() -> None:
    """States alone leave layers as they are; the output has cells after the states."""
    module, inputs = made("encoder and decoder")
    layers = {layer.name: layer for layer in sifrc.from_torch(module, inputs).layers}
    assert layers["encoder"].shape == (3, 4) and layers["decoder"].shape == (2, 2)
    module, inputs = made("one module twice")
    first, second = (layer for layer in sifrc.from_torch(module, inputs).layers if layer.kind == "lstm")
    assert second.share == first.name == "rnn" and first.shape == (3, 2)


def test_projections_are_refused_where_they_stand() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(2, 4, proj_size=3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[1][1][-1]

    with pytest.raises(sifrc.ModuleImportError, match=r"an LSTM with projections \(operator aten.lstm"):
        sifrc.from_torch(Projected(), torch.randn(2, 3, 2))
