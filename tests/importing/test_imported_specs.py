"""Imported specs: names, YAML, losses as torch has them, optimizers that bind to the module."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from importing_cases import CASES, LeNet, images
from sampled import one_in
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

import sifrc
from sifrc.api.importing import imported
from sifrc.cli.main import app
from sifrc.importing.rules.indices import runs_of
from sifrc.importing.text import spec_text
from sifrc.spec.canonical import spec_hash

T = torch.arange(6) % 3


@pytest.mark.parametrize("name", one_in(2, CASES))
def test_yaml_says_the_same(name: str) -> None:
    """What is written is read back as the same spec, twice the same bytes."""
    make, example, loss = CASES[name]
    data, module = imported(make(), example, loss)
    text = spec_text(data)
    assert spec_hash(sifrc.parse_spec(text)) == spec_hash(sifrc.build_spec(data))
    if len(text) < 1500:  # it takes as long as the first time
        assert spec_text(imported(module, example, loss)[0]) == text
    assert all(len(line) < 250 or "values" in line for line in text.splitlines()), text


LOSSES: dict[str, tuple[Any, torch.Tensor]] = {
    "cross entropy": (nn.CrossEntropyLoss(), T),
    "summed": (nn.CrossEntropyLoss(reduction="sum"), T),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), T),
    "weights and an ignored class": (
        nn.CrossEntropyLoss(weight=torch.tensor([0.5, 1.0, 2.0]), ignore_index=1),
        T,
    ),
    "function with arguments": (functools.partial(F.cross_entropy, label_smoothing=0.1), T),
    "likelihood": (nn.NLLLoss(), T),
    "binary": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0])), torch.eye(3).repeat(2, 1)),
    "squares": (F.mse_loss, torch.ones(6, 3)),
    "huber": (nn.HuberLoss(delta=0.3), torch.ones(6, 3)),
    "smooth": (nn.SmoothL1Loss(beta=0.7), torch.ones(6, 3)),
    "absolute": (nn.L1Loss(reduction="sum"), torch.ones(6, 3)),
    "margin": (nn.SoftMarginLoss(), torch.ones(6, 3)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_torch(name: str) -> None:
    loss, targets = LOSSES[name]
    torch.manual_seed(0)
    last = [nn.LogSoftmax(-1)] if isinstance(loss, nn.NLLLoss) else []
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), *last).double()
    x = torch.randn(6, 4, dtype=torch.float64)
    targets = targets.double() if targets.is_floating_point() else targets
    if isinstance(loss, nn.Module):
        loss = loss.double()
    spec = sifrc.from_torch(module, x, loss, target={"operators": ["gradient"]})
    generated: Any = sifrc.compile(spec)
    params = {own: module.get_parameter(given).detach() for own, given in spec.names.items()}
    expected = loss(module(x), targets)
    torch.testing.assert_close(generated.loss(params, x, targets), expected.detach(), rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad(expected, list(module.parameters()))
    for found, value in zip(generated.gradient(params, x, targets).values(), wanted, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-11, atol=1e-12)


def test_an_optimizer_binds_to_the_module_also_inside_of_wrappers() -> None:
    """By the names of the module; steps change its parameters, wrapped or not, in the same way."""
    torch.manual_seed(0)
    first, x, t = LeNet(), images(1, batch=6), T
    spec = sifrc.from_torch(first, x, nn.CrossEntropyLoss(), method={"name": "grouped_newton"})
    generated: Any = sifrc.compile(spec)
    second = LeNet()
    second.load_state_dict(first.state_dict())
    wrapped = nn.DataParallel(second)
    for _ in range(2):
        one = generated.Optimizer(first).step(x, t)
        two = generated.Optimizer(wrapped).step(x, t)
        torch.testing.assert_close(one, two)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert sifrc.from_torch(wrapped, x).names == spec.names


def test_parameters_that_the_output_does_not_read_are_left_alone() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.unused = nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.unused(x)
            return self.fc(x)

    module = Aside()
    before = module.unused.weight.clone()
    spec = sifrc.from_torch(module, torch.randn(6, 4), method={"name": "grouped_newton"})
    assert [layer.name for layer in spec.layers] == ["fc"]
    sifrc.compile(spec).Optimizer(module).step(torch.randn(6, 4), T)
    assert torch.equal(module.unused.weight, before)


def test_names_that_are_none_of_python() -> None:
    """Keys of a ModuleDict are any text; regnets of torchvision have ``block1-0``."""

    class Keyed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({"block1-0": nn.Linear(4, 4), "3x3+1/2": nn.Linear(4, 3)})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for part in self.parts.values():
                x = part(x)
            return x

    module, x = Keyed(), torch.randn(6, 4)
    spec = sifrc.from_torch(module, x, method={"name": "grouped_newton"})
    assert spec.names["parts_block1_0.weight"] == "parts.block1-0.weight"
    assert sifrc.parse_spec(spec_text(imported(module, x, "cross_entropy")[0])).names == spec.names
    before = module.parts["3x3+1/2"].weight.clone()
    sifrc.compile(spec).Optimizer(module).step(x, T)
    assert not torch.equal(before, module.parts["3x3+1/2"].weight)


def test_names_in_a_spec_are_checked() -> None:
    data = {"sifrc": 1, "name": "n", "loss": "mse", "network": {
        "input": {"size": 2}, "layers": [{"name": "fc", "type": "dense", "units": 2}]}}  # fmt: skip
    for names, words in (
        ({"fc.wait": "a"}, "no layer has a tensor 'fc.wait'"),
        ({"fc.weight": "a b"}, "is not a name in a module"),
        ({"fc.weight": 'a"; import os'}, "is not a name in a module"),
        ({"fc.weight": "a", "fc.bias": "a"}, "is the name of two tensors"),
    ):
        with pytest.raises(sifrc.SpecError, match=r"network\.names") as caught:
            sifrc.build_spec(data | {"network": data["network"] | {"names": names}})
        assert words in caught.value.message


def test_runs() -> None:
    assert runs_of([5]) == (5, [(1, 1)])
    assert runs_of([0, 2, 4]) == (0, [(3, 2)])
    assert runs_of([4, 3, 5, 4]) == (4, [(2, 1), (2, -1)])
    assert runs_of([0, 1, 3])[1] == [(3, 0)]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A factory here, a file that compiles; what is there is not replaced."""
    (tmp_path / "nets_of_a_user.py").write_text(
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(),\n"
        "                               torch.nn.Linear(16, 2))\n"
        "class Two(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x), x\n"
        "def two():\n"
        "    return Two(4, 2), torch.randn(3, 4)\n"
    )
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    arguments = ["import", "nets_of_a_user:make", "-o", "net.yaml", "--input", "3,4,4"]
    result = run(app, arguments)
    assert result.exit_code == 0, result.output
    written = (tmp_path / "net.yaml").read_text()
    assert yaml.safe_load(written)["network"]["names"]["layer_0.weight"] == "0.weight"
    assert sifrc.compile(tmp_path / "net.yaml", operators=["gradient"]).SHAPES["layer_3.weight"] == (2, 16)
    assert run(app, arguments).exit_code == 1
    result = run(app, ["import", "nets_of_a_user:two", "-o", "two.yaml", "--result", "0"])
    assert result.exit_code == 0 and sifrc.load_spec("two.yaml").layers[0].kind == "dense", result.output
    for wrong, words in (
        (["import", "nets_of_a_user"], "MODULE:FACTORY"),
        (["import", "nets_of_a_user:none"], "cannot load"),
        (["import", "nets_of_a_user:make"], "--input 3,32,32"),
        (["import", "nets_of_a_user:make", "--input", "a"], "no list of sizes"),
        (["import", "nets_of_a_user:two"], "output=0"),
        (["import", "nets_of_a_user:two", "--result", "b"], "without an output 'b'"),
    ):
        result = run(app, wrong)
        assert result.exit_code == 1 and words in result.output


def reparametrised(kind: str) -> nn.Module:
    from torch.nn.utils import parametrizations, prune

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    if kind == "weight norm":
        parametrizations.weight_norm(module[0])
    elif kind == "spectral norm":
        parametrizations.spectral_norm(module[0])
        module.eval()
    else:
        prune.l1_unstructured(module[0], "weight", amount=0.3)
    return module


@pytest.mark.parametrize("kind", ["weight norm", "spectral norm", "pruned"])
def test_weights_that_are_computed(kind: str) -> None:
    """Derivatives are by what the module trains, its ``original`` tensors; an optimizer binds to these."""
    module, x = reparametrised(kind), torch.randn(20, 4, dtype=torch.float64)
    t = torch.arange(20) % 3
    spec = sifrc.from_torch(module, x, method={"name": "grouped_newton"}, target={"operators": ["gradient"]})
    generated: Any = sifrc.compile(spec)
    held = dict(module.named_parameters()) | dict(module.named_buffers())
    names = {own: spec.names.get(own, own) for own in (*generated.SHAPES, *getattr(generated, "BUFFERS", {}))}
    found = generated.gradient({own: held[given].detach() for own, given in names.items()}, x, t)
    wanted = torch.autograd.grad(F.cross_entropy(module(x), t), [held[names[own]] for own in found])
    for value, expected in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = generated.Optimizer(module)
    optimizer.step(x, t)
    assert any(not torch.equal(before[name], value) for name, value in module.named_parameters())


def test_frozen_parameters_are_constants() -> None:
    """A frozen part is derived so: no gradient, no product, the same numbers; a step leaves it as it is."""
    torch.manual_seed(0)
    module, x = LeNet().double(), images(1, batch=6).double()
    for part in (module.conv1, module.fc1):
        part.requires_grad_(False)
    spec = sifrc.from_torch(
        module,
        x,
        method={"name": "grouped_newton"},
        target={"operators": ["gradient", "hessian_vector_product"]},
    )
    assert [layer.name for layer in spec.layers if layer.frozen] == ["conv1", "fc1"]
    generated: Any = sifrc.compile(spec)
    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    assert set(generated.SHAPES) == set(trained) and "conv1.weight" in generated.BUFFERS
    params = {name: value.detach() for name, value in module.named_parameters()}
    vector = {name: torch.randn_like(value) for name, value in trained.items()}
    slopes = torch.autograd.grad(F.cross_entropy(module(x), T), list(trained.values()), create_graph=True)
    along = sum((g * v).sum() for g, v in zip(slopes, vector.values(), strict=True))
    products = torch.autograd.grad(along, list(trained.values()))
    found = generated.gradient(params, x, T), generated.hessian_vector_product(params, x, T, vector)
    for result, wanted in zip(found, (slopes, products), strict=True):
        for name, expected in zip(trained, wanted, strict=True):
            torch.testing.assert_close(result[name], expected.detach(), rtol=1e-9, atol=1e-11)
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = generated.Optimizer(module)
    optimizer.step(x, T)
    moved = {name for name, value in module.named_parameters() if not torch.equal(before[name], value)}
    assert moved and moved <= set(trained)
    module.fc2.bias.requires_grad_(False)
    with pytest.raises(sifrc.ModuleImportError, match="some tensors of fc2 are trained and some are frozen"):
        sifrc.from_torch(module, x)


@pytest.mark.parametrize(
    "name", one_in(4, ["lenet", "residual block in training", "gpt", "gru of layers and directions"])
)
def test_imported_networks_are_verified_at_all_levels(name: str) -> None:
    """Equations, many digits, and the generated module."""
    make, example, loss = CASES[name]
    report = sifrc.verify(model=make(), example=example, loss=loss)
    assert report.passed, [row for row in report.rows if row.passed is False]
    assert {row.level for row in report.rows if row.passed} == {1, 2, 3}


def test_what_is_verified_is_one_thing() -> None:
    with pytest.raises(sifrc.SpecError, match="a spec, or a torch module"):
        sifrc.verify()
