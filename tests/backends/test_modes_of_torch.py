"""Generated functions under autocast, inference mode, vmap and torch.compile; models that nearly fit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import utils
from torch.nn.utils import parametrizations, prune

import sifrc

FUNCTIONS = ("objective", "gradient", "hessian", "gauss_newton", "linearized")
OPERATORS = ["objective", "gradient", "hessian_vector_product", "gauss_newton_vector_product"]


@cache
def module_of(activation: str = "tanh", dtype: str = "float32", norm: bool = False) -> ModuleType:
    """A network 4 → 8 → 3 for classes, with or without batch norm."""
    layers: list[dict[str, Any]] = [{"name": "fa", "type": "dense", "units": 8}]
    layers += [{"name": "norm", "type": "batch_norm"}] if norm else []
    layers += [{"name": "act", "type": "activation", "function": activation}]
    layers += [{"name": "fb", "type": "dense", "units": 3}]
    spec = {
        "sifrc": 1,
        "name": "modes",
        "dtype": dtype,
        "loss": "cross_entropy",
        "network": {"input": {"name": "image", "size": 4}, "layers": layers},
        "method": {"name": "grouped_newton"} if norm else {"name": "ea_cg", "kind": "ggn"},
        "target": {"operators": OPERATORS},
    }
    return sifrc.compile(sifrc.build_spec(spec), "torch")


def batch_of(dtype: torch.dtype = torch.float32, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(16, 4, generator=generator).to(dtype), torch.arange(16) % 3


def model_of(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), *between, nn.Linear(8, 3))


def vector_like(params: dict[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {name: torch.randn(value.shape, generator=generator) for name, value in params.items()}


def functions() -> dict[str, Callable[..., Any]]:
    """Of inputs and targets, at one point."""
    module = module_of()
    params = module.initialize(0)
    vector = vector_like(params)
    return {
        "objective": lambda x, t: module.objective(params, x, t),
        "gradient": lambda x, t: module.gradient(params, x, t),
        "hessian": lambda x, t: module.hessian_vector_product(params, x, t, vector),
        "gauss_newton": lambda x, t: module.gauss_newton_vector_product(params, x, t, vector),
        "linearized": lambda x, t: module.linearize(params, x, t)(vector),
    }


def close(found: Any, expected: Any, **limits: float) -> None:
    torch.testing.assert_close(found, expected, **limits)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_autocast_changes_no_number(name: str) -> None:
    function, batch = functions()[name], batch_of()
    with torch.autocast("cpu", torch.bfloat16):
        found = function(*batch)
    close(found, function(*batch), rtol=0.0, atol=0.0)


def test_steps_in_inference_mode_and_under_autocast_are_steps() -> None:
    """Whichever comes first."""
    module, batch = module_of(), batch_of()
    models = [model_of(nn.Tanh()) for _ in range(3)]
    optimizers = [module.Optimizer(model) for model in models]
    with torch.inference_mode():
        optimizers[1].step(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        optimizers[2].step(*batch)
    optimizers[0].step(*batch)
    for model, optimizer in zip(models, optimizers, strict=True):
        optimizer.step(*batch)
        nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
        for own, other in zip(model.parameters(), models[0].parameters(), strict=True):
            assert torch.equal(own, other) and not own.is_inference()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vmap_over_samples_with_classes(name: str) -> None:
    function = functions()[name]
    inputs, targets = torch.randn(5, 6, 4), torch.randint(3, (5, 6))
    found = torch.vmap(function)(inputs, targets)
    each = [function(x, t) for x, t in zip(inputs, targets, strict=True)]
    if isinstance(found, dict):
        found = [{key: value[k] for key, value in found.items()} for k in range(5)]
    close(list(found), each, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_torch_compile_breaks_no_graph(name: str) -> None:
    function, batch = functions()[name], batch_of()
    if name == "linearized":
        pytest.importorskip("torch._dynamo")
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    close(compiled(*batch), function(*batch), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_looked_at_is_not_refused() -> None:
    """NaN comes out as NaN there, and is refused elsewhere."""
    function = functions()["objective"]
    inputs, targets = batch_of()
    with pytest.raises(FloatingPointError):
        function(inputs * float("nan"), targets)
    found = torch.vmap(function)(torch.stack([inputs, inputs * float("nan")]), targets.expand(2, -1))
    assert found.isnan().tolist() == [False, True]


NEARLY: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "tanh gelu": ("gelu", lambda: nn.GELU(approximate="tanh")),
    "relu6": ("relu", nn.ReLU6),
    "slope": ("relu", lambda: nn.LeakyReLU(1e-4)),
    "softplus": ("softplus", lambda: nn.Softplus(threshold=5)),
    "hardtanh": ("tanh", nn.Hardtanh),
    "norm": ("tanh", lambda: nn.Sequential(nn.BatchNorm1d(8, affine=False), nn.Tanh())),
    "dropout": ("tanh", lambda: nn.Sequential(nn.Tanh(), nn.Dropout(0.1))),
}


@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NEARLY)
def test_a_model_that_is_nearly_that_of_the_spec_is_refused(name: str, dtype: str, scale: float) -> None:
    """By a step, and by operators; whatever the size of the inputs."""
    activation, between = NEARLY[name]
    kind = getattr(torch, dtype)
    module, model, batch = module_of(activation, dtype), model_of(between()).to(kind), batch_of(kind, scale)
    before = copy.deepcopy(model.state_dict())
    names = {"fa": "0", "fb": "2"}
    with pytest.raises(ValueError, match=r"outputs differ .* in training"):
        module.Optimizer(model, names=names).step(*batch)
    with pytest.raises(sifrc.SifrcError, match="differ from those"):
        sifrc.operators(model, None, [batch], spec=module.SPEC, names=names)
    close(dict(model.state_dict()), dict(before), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("activation", ["gelu", "relu", "softplus", "tanh"])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_the_model_of_the_spec_is_taken(activation: str, scale: float) -> None:
    own = {"gelu": nn.GELU, "relu": nn.ReLU, "softplus": nn.Softplus, "tanh": nn.Tanh}[activation]
    for dtype in (torch.float32, torch.float64):
        optimizer = module_of(activation, str(dtype).removeprefix("torch.")).Optimizer(
            model_of(own()).to(dtype)
        )
        assert bool(optimizer.step(*batch_of(dtype, scale)).isfinite())


def test_networks_with_batch_norm_are_compared_in_training_too() -> None:
    module, batch = module_of(norm=True), batch_of()
    names = {"fa": "0", "norm": "1", "fb": "3"}
    fitting = model_of(nn.BatchNorm1d(8), nn.Tanh())
    assert bool(module.Optimizer(fitting, names=names).step(*batch).isfinite())
    assert int(fitting[1].num_batches_tracked) == 1
    hidden = model_of(nn.BatchNorm1d(8), nn.Sequential(nn.Tanh(), nn.Dropout(0.2)))
    with pytest.raises(ValueError, match=r"outputs differ .* in training"):
        module.Optimizer(hidden, names=names).step(*batch)
    assert int(hidden[1].num_batches_tracked) == 0 and hidden.training


def scripted() -> nn.Module:
    return torch.jit.script(model_of(nn.Tanh()))


def changed(change: Callable[..., Any], *arguments: Any) -> nn.Module:
    model = model_of(nn.Tanh())
    change(model[0], *arguments)
    return model


COMPUTED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "weight_norm": (lambda: changed(utils.weight_norm), r"0.weight is computed .* weight_norm"),
    "weight_norm, parametrized": (
        lambda: changed(parametrizations.weight_norm),
        r"0.weight is computed .* a parametrization",
    ),
    "spectral_norm": (lambda: changed(utils.spectral_norm), r"0.weight is computed .* spectral_norm"),
    "spectral_norm, parametrized": (
        lambda: changed(parametrizations.spectral_norm),
        r"0.weight is computed .* a parametrization",
    ),
    "pruning": (lambda: changed(prune.l1_unstructured, "weight", 0.5), r"0.weight is computed .* pruning"),
    "script": (scripted, "scripted module"),
    "float16": (lambda: model_of(nn.Tanh()).half(), r"model\.float\(\) makes it float32"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COMPUTED)
def test_models_that_cannot_be_bound_are_told_what_would_do(name: str) -> None:
    make, message = COMPUTED[name]
    with pytest.raises((ValueError, TypeError), match=message):
        module_of().Optimizer(make())


def test_dtypes_that_do_not_fit_say_what_would_do() -> None:
    module, (inputs, targets) = module_of(), batch_of()
    params = module.initialize(0)
    with pytest.raises(TypeError, match=r"inputs: .*got torch.float16; \.to\(dtype\)"):
        module.gradient(params, inputs.half(), targets)
    with pytest.raises(TypeError, match=r"got torch.float16; try \.float\(\)"):
        module.gradient({name: value.half() for name, value in params.items()}, inputs.half(), targets)


def test_a_closure_that_returns_the_loss_is_told_what_would_do() -> None:
    model, (inputs, targets) = model_of(nn.Tanh()), batch_of()
    optimizer = module_of().Optimizer(model)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        return loss

    with pytest.raises(TypeError, match=r"closure returned a loss.*sifrc\.optimizer"):
        optimizer.step(closure)
