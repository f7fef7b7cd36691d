"""Modules are traced once: what counts as the same module, and what a cache that is wrong or broken does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from importing_cases import CASES
from torch import Tensor, nn
from torch.nn import functional as F

import sifrc
from sifrc.api.tracing import Wanted, traced
from sifrc.cache import CacheWarning, write_entry
from sifrc.importing import network
from sifrc.importing.fingerprint import Unkeyed, fingerprint
from sifrc.spec.canonical import spec_hash

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
SETTINGS = {"power": 2, "words": ["a"]}


def helper(x: Tensor) -> Tensor:
    return torch.tanh(x)


def net(forward: Callable[..., Any], **attributes: Any) -> nn.Module:
    """A module of one class name, whatever its ``forward`` is."""
    made = type("Net", (nn.Module,), {"forward": forward, "__qualname__": "Net"})()
    made.fc, made.other = nn.Linear(4, 4), nn.Linear(4, 4)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def plain(self: Any, x: Tensor) -> Tensor:
    return self.other(torch.relu(self.fc(x)))


def scaled(self: Any, x: Tensor) -> Tensor:
    return self.other(helper(self.fc(x)) * self.scale)


def of_settings(self: Any, x: Tensor) -> Tensor:
    return self.other(self.fc(x) ** SETTINGS["power"])


def closing_over(number: Any) -> Callable[..., Any]:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.other(self.fc(x) * number)

    return forward


def frozen(module: nn.Module) -> nn.Module:
    module.fc.requires_grad_(False)
    return module


def tied(module: nn.Module) -> nn.Module:
    module.other.weight = module.fc.weight
    return module


def hooked(module: nn.Module) -> nn.Module:
    module.fc.register_forward_hook(lambda own, given, found: found * 2)
    return module


def renamed(module: nn.Module) -> nn.Module:
    module.more = module.fc
    return module


def replaced(module: nn.Module) -> nn.Module:
    module.forward = helper
    return module


def with_buffer(count: int) -> nn.Module:
    module = net(plain)
    module.register_buffer("mask", torch.zeros(count))
    return module


OTHERS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "code of forward": (lambda: net(plain), lambda: net(lambda self, x: self.other(torch.tanh(self.fc(x))))),
    "a number in the code": (
        lambda: net(lambda self, x: self.other(self.fc(x) * 2.0)),
        lambda: net(lambda self, x: self.other(self.fc(x) * 3.0)),
    ),
    "a number that is closed over": (lambda: net(closing_over(2.0)), lambda: net(closing_over(3.0))),
    "a tensor that is closed over": (
        lambda: net(closing_over(torch.ones(4))),
        lambda: net(closing_over(torch.zeros(4))),
    ),
    "an attribute": (lambda: net(scaled, scale=1.0), lambda: net(scaled, scale=2.0)),
    "an attribute's type": (lambda: net(scaled, scale=1.0), lambda: net(scaled, scale=1)),
    "an attribute's tensor": (
        lambda: net(scaled, scale=torch.ones(4)),
        lambda: net(scaled, scale=torch.full((4,), 2.0)),
    ),
    "an object's attribute": (
        lambda: net(scaled, scale=SimpleNamespace(a=1)),
        lambda: net(scaled, scale=SimpleNamespace(a=2)),
    ),
    "a layer's hyperparameter": (
        lambda: net(plain, fc=nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.1))),
        lambda: net(plain, fc=nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.2))),
    ),
    "a layer": (lambda: net(plain, fc=nn.ReLU()), lambda: net(plain, fc=nn.ReLU6())),
    "a bias": (lambda: net(plain), lambda: net(plain, fc=nn.Linear(4, 4, bias=False))),
    "a shape": (lambda: net(plain), lambda: net(plain, fc=nn.Linear(5, 4))),
    "a buffer's shape": (lambda: with_buffer(3), lambda: with_buffer(4)),
    "frozen parameters": (lambda: net(plain), lambda: frozen(net(plain))),
    "tied parameters": (lambda: net(plain), lambda: tied(net(plain))),
    "an operator": (
        lambda: net(scaled, scale=torch.ops.aten.add.Tensor),
        lambda: net(scaled, scale=torch.ops.aten.add.Scalar),
    ),
    "a name": (lambda: net(plain), lambda: renamed(net(plain))),
    "the dtype": (lambda: net(plain), lambda: net(plain).double()),
    "the mode": (lambda: net(plain), lambda: net(plain).eval()),
    "the mode of a part": (lambda: net(plain), lambda: net(plain, fc=nn.Linear(4, 4).eval())),
    "a hook": (lambda: net(plain), lambda: hooked(net(plain))),
    "a method of the object": (lambda: net(plain), lambda: replaced(net(plain))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_modules_that_differ_have_other_keys(name: str) -> None:
    """In whatever the trace depends on; and the same twice for the same."""
    one, other = OTHERS[name]
    assert fingerprint(one()) == fingerprint(one())
    assert fingerprint(other()) == fingerprint(other())
    assert fingerprint(one()) != fingerprint(other())


def test_what_code_reaches_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Globals, functions that are called, and what stands in the place of a library's function."""
    settings, scales, plains = (fingerprint(net(f, scale=1.0)) for f in (of_settings, scaled, plain))
    monkeypatch.setitem(SETTINGS, "power", 3)
    assert fingerprint(net(of_settings, scale=1.0)) != settings
    monkeypatch.setattr(sys.modules[__name__], "helper", lambda x: torch.sin(x))
    assert fingerprint(net(scaled, scale=1.0)) != scales
    assert fingerprint(net(plain, scale=1.0)) == plains
    monkeypatch.setattr(torch, "relu", lambda x: torch.tanh(x))
    assert fingerprint(net(plain, scale=1.0)) != plains
    monkeypatch.undo()
    before = fingerprint(nn.Linear(4, 3))
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: F.linear(x, self.weight))
    assert fingerprint(nn.Linear(4, 3)) != before


def test_numbers_of_parameters_do_not_count() -> None:
    """A module after training is the same one; so is one of any case of the importer, built again."""
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = fingerprint(module)
    with torch.no_grad():
        module(X)
        module[0].weight.zero_()
    assert fingerprint(module) == before
    for make, _, _ in CASES.values():
        assert fingerprint(make()) == fingerprint(make())


def reads_a_file(self: Any, x: Tensor) -> Tensor:
    return self.fc(x) * float(open("scale.txt").read())


def reads_the_environment(self: Any, x: Tensor) -> Tensor:
    return self.fc(x) * float(os.environ["SCALE"])


def evaluates(self: Any, x: Tensor) -> Tensor:
    found: Tensor = eval("self.fc(x)")
    return found


def imports(self: Any, x: Tensor) -> Tensor:
    import importing_cases

    return self.fc(x) * len(importing_cases.CASES)


@pytest.mark.parametrize("forward", [reads_a_file, reads_the_environment, evaluates, imports])
def test_code_that_depends_on_more_has_no_key(forward: Any) -> None:
    with pytest.raises(Unkeyed):
        fingerprint(net(forward))
    with pytest.raises(Unkeyed):
        fingerprint(net(plain, lock=threading.Lock()))


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The modules that were traced."""
    found: list[nn.Module] = []
    usual = network.network_of

    def counted(module: nn.Module, *given: Any) -> Any:
        found.append(module)
        return usual(module, *given)

    monkeypatch.setattr(network, "network_of", counted)
    return found


def test_a_module_is_traced_once(traces: list[nn.Module], tmp_path: Path) -> None:
    """The spec is the same, also of another object, another batch size, and with another loss."""
    first = sifrc.from_torch(net(plain), X, cache=tmp_path)
    assert spec_hash(sifrc.from_torch(net(plain), X[:3], cache=tmp_path)) == spec_hash(first)
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1)
    other = sifrc.from_torch(net(plain), X, smooth, cache=tmp_path, method={"name": "grouped_newton"})
    assert other.loss.smoothing == 0.1 and first.loss.smoothing == 0.0
    assert other.method is not None and other.layers == first.layers
    sifrc.optimizer(net(plain), example=X, cache=tmp_path)
    sifrc.operators(net(plain), "cross_entropy", (X, torch.arange(5) % 4), cache=tmp_path)
    assert len(traces) == 1
    sifrc.from_torch(net(plain), X, cache=tmp_path, check=False)
    sifrc.from_torch(net(plain), X, cache=False)
    assert len(traces) == 3


def test_other_examples_are_traced_anew(traces: list[nn.Module], tmp_path: Path) -> None:
    module = nn.Sequential(nn.Tanh(), nn.Linear(4, 4))
    examples = X, X[:, None], X[:, None].expand(5, 2, 4), X.clone().requires_grad_()
    for example in examples:
        traced(module, (example,), {}, folder=tmp_path)
        traced(module, (example[:2],), {}, folder=tmp_path)
    assert len(traces) == len(examples)
    traced(module, (), {"input": X}, folder=tmp_path)
    traced(module, (), {"input": X}, Wanted(["1.weight", "1.bias"]), tmp_path)
    assert len(traces) == len(examples) + 2


def test_buffers_that_are_fixed_numbers_count(traces: list[nn.Module], tmp_path: Path) -> None:
    """Masks made of a buffer are numbers in the spec; statistics are none."""

    def masked(self: Any, x: Tensor) -> Tensor:
        return self.norm(self.fc(x)).masked_fill(self.mask == 0, -1.0)

    def made(*mask: float) -> nn.Module:
        module = net(masked, norm=nn.BatchNorm1d(4)).eval()
        module.register_buffer("mask", torch.tensor(mask))
        return module

    def values(module: nn.Module) -> str:
        return json.dumps(traced(module, (X,), {}, folder=tmp_path).network)

    first = values(made(0.0, 1.0, 0.0, 1.0))
    again = made(0.0, 1.0, 0.0, 1.0)
    again.norm.running_mean += 1.0
    assert values(again) == first and len(traces) == 1
    assert values(made(1.0, 1.0, 0.0, 1.0)) != first and len(traces) == 2


def test_a_damaged_entry_is_traced_again(traces: list[nn.Module], tmp_path: Path) -> None:
    whole = sifrc.from_torch(net(plain), X, cache=tmp_path)
    (entry,) = tmp_path.glob("traced_*.json")
    entry.write_text(entry.read_text().replace('"units": 4', '"units": 5'))
    with pytest.warns(CacheWarning, match="is damaged"):
        assert spec_hash(sifrc.from_torch(net(plain), X, cache=tmp_path)) == spec_hash(whole)
    assert len(traces) == 2
    sifrc.from_torch(net(plain), X, cache=tmp_path)
    assert len(traces) == 2


@pytest.mark.parametrize(
    "change", [('"relu"', '"tanh"'), ('"units": 4', '"units": 5'), ('"fc.weight"', '"fc.wait"')]
)
def test_an_entry_that_is_wrong_is_forgotten(
    change: tuple[str, str], traces: list[nn.Module], tmp_path: Path
) -> None:
    """The comparison with the module finds it, the module is traced, and the next time it is right."""
    whole = sifrc.from_torch(net(plain), X, cache=tmp_path)
    (entry,) = tmp_path.glob("traced_*.json")
    text = entry.read_text().rpartition("# cached by")[0]
    assert change[0] in text
    write_entry(entry, text.replace(*change))
    for _ in range(2):
        assert spec_hash(sifrc.from_torch(net(plain), X, cache=tmp_path)) == spec_hash(whole)
    assert len(traces) == 2


def test_a_folder_that_cannot_be_written(traces: list[nn.Module], tmp_path: Path) -> None:
    """A warning; the module is imported all the same."""
    (tmp_path / "file").write_text("")
    with pytest.warns(CacheWarning, match="cannot be used"):
        assert sifrc.from_torch(net(plain), X, cache=tmp_path / "file").layers
    assert len(traces) == 1


def test_modules_without_a_key_are_traced_each_time(traces: list[nn.Module], tmp_path: Path) -> None:
    for _ in range(2):
        sifrc.from_torch(net(imports), X, cache=tmp_path)
    assert len(traces) == 2 and not [*tmp_path.glob("traced_*")]


@pytest.mark.slow
def test_keys_are_those_of_other_processes() -> None:
    """Whatever the seed of hashes is."""
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from importing_cases import CASES\n"
        "from sifrc.importing.fingerprint import fingerprint\n"
        "for make, example, _ in CASES.values(): print(fingerprint(make(), 1))"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1] and len(set(found[0].split())) == len(CASES) - 1
