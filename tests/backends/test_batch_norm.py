"""Batch normalisation in modules: running statistics, both modes, what is refused."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sifrc
from sifrc.cache import load_text
from sifrc.compiler import Request, compile_spec
from sifrc.errors import BackendError, DerivationError, SpecError
from sifrc.spec import build_spec

NETWORK: dict[str, Any] = {
    "input": {"name": "x0", "size": [2, 3, 3]},
    "layers": [
        {"name": "c", "type": "conv", "channels": 4, "kernel": 2, "bias": False},
        {"name": "b", "type": "batch_norm", "momentum": 0.25, "activation": "tanh"},
        {"name": "f", "type": "flatten"},
        {"name": "d", "type": "dense", "units": 5},
        {"name": "e", "type": "batch_norm", "affine": False},
        {"name": "out", "type": "dense", "units": 3},
    ],
}
METHOD = {"name": "grouped_newton", "direction": "gradient", "learning_rate": 0.1, "internal_damping": 3.0}


class Net(nn.Module):
    """The same by PyTorch's layers."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(2, 4, 2, bias=False)
        self.b = nn.BatchNorm2d(4, momentum=0.25)
        self.d = nn.Linear(16, 5)
        self.e = nn.BatchNorm1d(5, affine=False)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(self.e(self.d(torch.tanh(self.b(self.c(x))).flatten(1))))
        return found


def spec_of(**more: Any) -> Any:
    return build_spec(
        {
            "sifrc": 1,
            "name": "normed",
            "network": NETWORK,
            "loss": "cross_entropy",
            "dtype": "float64",
            **more,
        }
    )


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """With an optimizer."""
    spec = spec_of(method=METHOD, partition="weights-biases")
    text = compile_spec(spec, Request(backend="torch", operators=("gradient",))).text
    return load_text("normed", tmp_path_factory.mktemp("normed") / "normed.py", text)


def batch(seed: int, count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, 3, 3, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (count,), generator=generator)


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net().double()


def test_a_step_updates_running_statistics_as_torch_does(module: ModuleType) -> None:
    """And counts batches; the objective is that of the batch's own statistics."""
    model, other = net(), net()
    optimizer = module.Optimizer(model)
    for seed in range(3):
        x, t = batch(seed)
        other.load_state_dict(
            {n: v for n, v in model.state_dict().items() if "running" not in n and "tracked" not in n},
            strict=False,
        )
        other.train()
        expected = nn.functional.cross_entropy(other(x).detach(), t)
        assert float(optimizer.step(x, t)) == pytest.approx(float(expected), rel=1e-12)
    for name in ("b", "e"):
        ours, theirs = getattr(model, name), getattr(other, name)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-12, atol=1e-12)
        assert int(ours.num_batches_tracked) == 3


def test_predictions_are_those_after_training(module: ModuleType) -> None:
    """As the model's, evaluated; so is ``evaluation_loss``."""
    model = net()
    optimizer = module.Optimizer(model)
    x, t = batch(1)
    for _ in range(3):
        optimizer.step(x, t)
    model.eval()
    names = [*module.SHAPES, *module.BUFFERS]
    params = {name: model.state_dict()[name] for name in names}
    found = module.predict(params, x)
    torch.testing.assert_close(found, model(x).detach(), rtol=1e-12, atol=1e-12)
    expected = nn.functional.cross_entropy(model(x).detach(), t)
    assert float(module.evaluation_loss(params, x, t)) == pytest.approx(float(expected), rel=1e-12)
    assert set(module.gradient(params, x, t)) == set(module.SHAPES)


def test_the_network_is_a_module_of_torch(module: ModuleType) -> None:
    """In training it normalises by the batch and brings its buffers up to date."""
    network, other = module.Network(seed=3), net()
    other.load_state_dict(network.state_dict(), strict=False)
    x, _ = batch(4)
    for training in (True, False):
        network.train(training)
        other.train(training)
        torch.testing.assert_close(network(x), other(x), rtol=1e-12, atol=1e-12)
        for name in module.BUFFERS:
            torch.testing.assert_close(
                network.get_buffer(name), other.get_buffer(name), rtol=1e-12, atol=1e-12
            )


def test_a_refused_step_leaves_everything(module: ModuleType) -> None:
    """Parameters, buffers and the count of batches."""
    model = net()
    optimizer = module.Optimizer(model)
    x, t = batch(2)
    optimizer.step(x, t)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FloatingPointError, match="nothing was changed"):
        optimizer.step(x * float("inf"), t)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_copies_and_files_go_on_alike(module: ModuleType) -> None:
    """Buffers are the model's, so they go with it."""
    model = net()
    optimizer = module.Optimizer(model)
    x, t = batch(5)
    optimizer.step(x, t)
    twin, other = copy.deepcopy((model, optimizer))
    again, third = pickle.loads(pickle.dumps((model, optimizer)))
    values = [float(each.step(x, t)) for each in (optimizer, other, third)]
    assert values[0] == values[1] == values[2]
    for name, value in model.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]) and torch.equal(value, again.state_dict()[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes(module: ModuleType, dtype: torch.dtype) -> None:
    """Buffers are replaced by ``to``, and found again."""
    model = net()
    optimizer = module.Optimizer(model)
    x, t = batch(6)
    optimizer.step(x, t)
    model.to(dtype)
    before = model.b.running_mean.clone()
    optimizer.step(x.to(dtype), t)
    assert model.b.running_mean.dtype == dtype and not torch.equal(before, model.b.running_mean)


def test_a_model_without_buffers_is_refused(module: ModuleType) -> None:
    """The missing one is named, with its shape."""
    model = net()
    model.b = nn.BatchNorm2d(4, track_running_stats=False).double()
    with pytest.raises(ValueError, match=r"it has no buffer b\.running_mean, of shape \(4,\)"):
        module.Optimizer(model)


def test_parameters_without_buffers_are_refused(module: ModuleType) -> None:
    """Both kinds of names are listed."""
    x, t = batch(7)
    params = {name: value for name, value in module.initialize().items() if name in module.SHAPES}
    with pytest.raises(ValueError, match=r"expected the names .*'b\.running_mean'"):
        module.gradient(params, x, t)


@pytest.mark.parametrize(
    ("operators", "message"),
    [
        (
            ("per_sample_gradients",),
            "per_sample_gradients are gradients",
        ),
        (
            ("diagonal",),
            "curvature blocks are",
        ),
    ],
)
def test_what_is_of_single_samples(operators: tuple[str, ...], message: str) -> None:
    """Refused in training, with what would do."""
    whole = f"{message} of single samples, which act on each other in batch_norm layer 'b'"
    with pytest.raises(DerivationError, match=whole) as error:
        compile_spec(spec_of(), Request(backend="torch", operators=operators))
    assert "mode: evaluation" in (error.value.hint or "")


def test_single_samples_after_training() -> None:
    """Their gradients exist there."""
    made = sifrc.compile(
        spec_of(), "torch", operators=["per_sample_gradients"], mode="evaluation", cache=False
    )
    x, t = batch(8)
    params = made.initialize()
    each = made.per_sample_gradients(params, x, t)
    assert each["c.weight"].shape == (12, 4, 2, 2, 2)


def test_modes_and_numbers() -> None:
    """Unknown words and numbers out of range are one error each."""
    with pytest.raises(SpecError, match="unknown mode 'test'"):
        sifrc.compile(spec_of(), "torch", mode="test", cache=False)
    for key, value in (("momentum", 1.5), ("epsilon", -1.0)):
        network = copy.deepcopy(NETWORK)
        network["layers"][1][key] = value
        with pytest.raises(SpecError, match=key):
            build_spec({"sifrc": 1, "name": "normed", "network": network, "loss": "cross_entropy"})
    with pytest.raises(BackendError, match="the CUDA backend does not have running statistics"):
        compile_spec(spec_of(), Request(backend="cuda", operators=("gradient",)))


def test_training_ends_well(module: ModuleType, tmp_path: Path) -> None:
    """A hundred steps on one batch: nothing but finite numbers, and classes are found."""
    model = net(1)
    optimizer = module.Optimizer(model)
    x, t = batch(9, 24)
    values = [float(optimizer.step(x, t)) for _ in range(100)]
    assert values[-1] < 0.5 * values[0]
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
