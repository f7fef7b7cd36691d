"""Parameter groups, decoupled decay, subsets of a network: against steps that are written out."""

from __future__ import annotations

import copy
import io
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler, swa_utils

import sifrc
from sifrc.lower.interpret import Machine, run_functions
from sifrc.lower.lowering import lower
from sifrc.methods.planning import make_plan
from sifrc.model import build_model

T = torch.arange(24) % 3
METHODS: dict[str, dict[str, Any]] = {
    "mk": {},
    "esn": {"variant": "randomised", "precision": "rank_one"},
    "ea_cg": {"momentum": 0.0},
    "grouped_newton": {"period": 1, "positive": False},
}


def model_of() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batch() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(24, 4, dtype=torch.float64)


@cache
def module_of(method: str) -> Any:
    """A generated module; methods of states regularise them."""
    spec = sifrc.from_torch(
        model_of(),
        batch(),
        nn.CrossEntropyLoss(),
        regularization={"state": 1e-2} if method in ("mk", "esn") else {},
        method={"name": method, **METHODS[method], "weight_decay": 0.0},
    )
    return sifrc.compile(spec, "torch", method)


def made(model: nn.Module, method: str, **options: Any) -> Any:
    """An optimizer of a method."""
    return module_of(method).Optimizer(model, **options)


def moved(method: str, **options: Any) -> dict[str, torch.Tensor]:
    """How far one step moves each parameter."""
    model = model_of()
    before = copy.deepcopy(dict(model.named_parameters()))
    made(model, method, **options).step(batch(), T)
    return {name: (value - before[name]).detach() for name, value in model.named_parameters()}


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_each_group_has_its_own_rate_and_decay(method: str) -> None:
    """Two groups are two runs with one group each; decay is lr · weight_decay · θ, as in AdamW."""
    groups = [
        {"params": ["0.*"], "lr": 0.02, "weight_decay": 0.5},
        {"params": ["2.bias", "2.weight"], "lr": 0.3},
    ]
    found = moved(method, groups=groups, lr=7.0)
    start = dict(model_of().named_parameters())
    first, second = moved(method, lr=0.02), moved(method, lr=0.3)
    for name, value in found.items():
        if name.startswith("0."):
            close(value, first[name] - 0.02 * 0.5 * start[name])
        else:
            close(value, second[name])
    assert all(float(value.abs().max()) > 0 for value in found.values())


@pytest.mark.slow
def test_numba_has_the_same_decay() -> None:
    """The update of a module for another backend has the term too."""
    spec = sifrc.from_torch(
        model_of(), batch(), nn.CrossEntropyLoss(), method={"name": "ea_cg", "weight_decay": 0.5}
    )
    module: Any = sifrc.compile(spec, "numba")
    model = model_of()
    found = []
    for decay in (0.0, 0.5):
        params = {
            own: model.get_parameter(spec.names.get(own, own)).detach().numpy().copy()
            for own in module.SHAPES
        }
        start = {name: value.copy() for name, value in params.items()}
        module.step(params, module.State(params, lr=0.1, weight_decay=decay), batch().numpy(), T.numpy())
        found.append(params)
    for name, value in found[1].items():
        np.testing.assert_allclose(value, found[0][name] - 0.1 * 0.5 * start[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_programs_without_groups_have_decay_too(method: str) -> None:
    """What backends with one rate for all print, interpreted; parameters that do not move shrink as well."""
    fixed = {"white_layer": False} if method == "mk" else {}
    spec = sifrc.from_torch(
        model_of(),
        batch(),
        nn.CrossEntropyLoss(),
        regularization={"state": 1e-2} if method in ("mk", "esn") else {},
        method={"name": method, **METHODS[method], **fixed, "weight_decay": 0.0},
    )
    plan = make_plan(build_model(spec)).plan
    program, generator = lower(plan), np.random.default_rng(0)
    update = program.function("update", True)
    given: dict[Any, Any] = {("mean", None): 1 / 24}
    for name in update.reads:
        for index, shape in program.family(name).shapes:
            given.setdefault((name, index), generator.normal(size=[24 if n is None else n for n in shape]))
    after = []
    for decay in (0.0, 0.5):
        rates = {("lr", None): 0.1, ("weight_decay", None): decay}
        machine = Machine(program, {key: np.array(value) for key, value in (given | rates).items()})
        run_functions(machine, [update])
        after.append(machine.arrays)
    for parameter in plan.model.tensors:
        key = parameter.symbol.family, parameter.symbol.index
        np.testing.assert_allclose(after[1][key], after[0][key] - 0.1 * 0.5 * given[key], rtol=1e-12)


SCHEDULERS: dict[str, Any] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, [lambda n: 0.9**n, lambda n: 0.5**n]),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda n: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 2),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.5, total_iters=3),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 4),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 4),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.2], total_steps=6),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "SWALR": lambda o: swa_utils.SWALR(o, [0.05, 0.02], anneal_epochs=2),
}


def grouped(model: nn.Module, kind: str) -> torch.optim.Optimizer:
    """An optimizer of torch, or ours, with the same two groups."""
    groups = [
        {"params": list(model[0].parameters()), "lr": 0.1},
        {"params": list(model[2].parameters()), "lr": 0.4},
    ]
    if kind == "torch":
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    return made(model, "ea_cg", groups=groups)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("tensor", [False, True], ids=["number", "tensor"])
def test_schedulers_do_what_they_do_with_torch(name: str, tensor: bool) -> None:
    """Every scheduler of torch writes the same rates into our groups as into those of SGD."""
    rates = []
    for kind in ("torch", "ours"):
        model = model_of()
        optimizer = grouped(model, kind)
        if tensor:
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"])
        scheduler, found = SCHEDULERS[name](optimizer), []
        for _ in range(5):
            if kind == "torch":
                optimizer.step()
            else:
                optimizer.step(batch(), T)
            scheduler.step(1.0) if name == "ReduceLROnPlateau" else scheduler.step()
            found.append([float(group["lr"]) for group in optimizer.param_groups])
        rates.append(found)
    assert rates[0] == rates[1]
    assert len({tuple(pair) for pair in rates[1]}) > 1


def test_rates_that_change_between_steps_are_those_of_the_step() -> None:
    """What a scheduler writes is what the next step uses."""
    model = model_of()
    optimizer = made(model, "grouped_newton", lr=0.1)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(0.03, dtype=torch.float64)
    before = copy.deepcopy(dict(model.named_parameters()))
    optimizer.step(batch(), T)
    expected = moved("grouped_newton", lr=0.03)
    for name, value in model.named_parameters():
        close((value - before[name]).detach(), expected[name])


def test_averaged_models() -> None:
    """SWA and EMA of a model that a generated optimizer trains."""
    model = model_of()
    optimizer = made(model, "ea_cg")
    averaged = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.5))
    seen = []
    for _ in range(3):
        optimizer.step(batch(), T)
        averaged.update_parameters(model)
        seen.append(copy.deepcopy(list(model.parameters())))
    for first, second, third, found in zip(*seen, averaged.module.parameters(), strict=True):
        close(found.data, (0.25 * first + 0.25 * second + 0.5 * third).data)


def test_a_subset_is_a_network_with_constants() -> None:
    """Parameters of no group are constants: the Hessian of grouped Newton is that of the others."""
    model, frozen = model_of(), model_of()
    frozen[0].requires_grad_(False)
    found: Any = sifrc.optimizer(
        model, "cross_entropy", example=(batch(), T), groups=model[2].parameters(), lr=0.2
    )
    wanted: Any = sifrc.optimizer(frozen, "cross_entropy", example=(batch(), T), lr=0.2)
    before = copy.deepcopy(list(model[0].parameters()))
    for _ in range(3):
        assert torch.equal(found.step(batch(), T), wanted.step(batch(), T))
    assert all(torch.equal(a, b) for a, b in zip(model[0].parameters(), before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), frozen.parameters(), strict=True))
    assert [len(group["params"]) for group in found.param_groups] == [2]
    assert all(value.requires_grad for value in model.parameters())


def test_groups_of_one_line() -> None:
    """Names, patterns and tensors; decay where a group has some; state by ``weights_only``; copies."""
    model = nn.DataParallel(model_of())
    groups = [
        {"params": "0.*", "lr": 0.01, "weight_decay": 0.1},
        {"params": model.module[2].named_parameters()},
    ]
    options: Any = {"example": (batch(), T), "method": "ea_cg", "lr": torch.tensor(0.2)}
    optimizer: Any = sifrc.optimizer(model, nn.CrossEntropyLoss(), groups=groups, **options)
    assert [(float(g["lr"]), g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.01, 0.1),
        (pytest.approx(0.2), 0.0),
    ]
    optimizer.step(batch(), T)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other, copied = copy.deepcopy((model, optimizer))
    optimizer.step(batch(), T)
    copied.load_state_dict(state)
    copied.step(batch(), T)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    with pytest.raises(ValueError, match="other groups"):
        made(model_of(), "ea_cg").load_state_dict(state)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "in none": ({"groups": [{"params": ["0.*"]}]}, r"2\.weight, 2\.bias in no group"),
    "in two": ({"groups": [{"params": ["*"]}, {"params": ["0.bias"]}]}, r"0\.bias in more than one"),
    "unknown": ({"groups": [{"params": ["head.*"]}]}, r"called head\.\*"),
    "foreign": ({"groups": [{"params": [torch.zeros(2)]}]}, "none of the parameters"),
    "no dict": ({"groups": [["0.*"]]}, "expected dicts"),
    "number": ({"groups": [{"params": ["*"], "lr": -1.0}]}, "lr: expected"),
    "no effect": ({"groups": [{"params": ["*"], "nesterov_factor": 0.1}]}, "has no nesterov_factor"),
    "one for all": (
        {"groups": [{"params": ["0.*"], "momentum": 0.5}, {"params": ["2.*"]}]},
        "momentum: expected one number for all",
    ),
    "maximize": ({"maximize": True}, "a step descends"),
    "foreach": ({"foreach": True}, "whole tensors"),
    "differentiable": ({"differentiable": True}, r"torch\.func"),
    "betas": ({"betas": (0.9, 0.99)}, "betas: no argument"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_says_why(case: str) -> None:
    options, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        made(model_of(), "ea_cg", **options)
    made(model_of(), "ea_cg", maximize=False, foreach=None)


def test_groups_that_are_no_groups_of_the_model() -> None:
    """The one-line form says it before anything is compiled."""
    model = model_of()
    model[0].requires_grad_(False)
    cases: list[tuple[Any, str]] = [
        ([{"params": ["head.*"]}], r"'head\.\*' is no parameter"),
        ([{"params": ["0.bias"]}], r"'0\.bias' is in a group and frozen"),
        ([{"params": ["2.*"]}, {"params": [model[2].bias]}], r"'2\.bias' is in more than one"),
        ([{"lr": 0.1}, {"params": ["2.*"]}], "a group is a dict with params"),
        ([], "no group has a parameter"),
    ]
    for groups, message in cases:
        with pytest.raises(sifrc.MethodError, match=message):
            sifrc.optimizer(model, "cross_entropy", example=(batch(), T), groups=groups)


def test_a_group_cannot_be_added_later() -> None:
    """What is no parameter of the derivation is a constant of it."""
    optimizer = made(model_of(), "ea_cg")
    with pytest.raises(ValueError, match="constants of it"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    optimizer.param_groups.append({**optimizer.param_groups[0]})
    with pytest.raises(ValueError, match="each in one group"):
        optimizer.step(batch(), T)
