"""PyTorch's own tests of optimizers, on every method: what applies passes, the rest fails for its reason."""

from __future__ import annotations

import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from optimizer_suite import CASES, OUTSIDE, batch_of, model_of
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

import sifrc

pytest.importorskip(
    "expecttest", reason="torch.testing._internal needs it; it is among the packages of [test]"
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_optimizers import (
        ErrorOptimizerInput,
        OptimizerInfo,
        OptimizerInput,
        optim_db,
    )

METHODS: dict[str, dict[str, Any]] = {
    "esn": {"variant": "randomised", "precision": "direct", "learning_rate": 0.1},
    "mk": {"learning_rate": 0.05},
    "ea_cg": {"learning_rate": 0.05},
    "grouped_newton": {"period": 2},
}
REFERENCE = "reference"
"""Gradient descent of torch behind the same face: the cases themselves are right."""
JOINT = {
    "test_step_is_noop_when_params_have_no_grad": (
        "is frozen",
        "directions are joint: a frozen one is an error",
    )
}
"""Further cases outside, of grouped Newton."""
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class GradientDescent(torch.optim.SGD):
    """SGD with steps that take a batch."""

    def __init__(self, model: nn.Module, groups: Any = None, lr: Any = 0.05, **kwargs: Any) -> None:
        super().__init__(list(model.parameters()) if groups is None else groups, lr=lr, **kwargs)
        self._model = model

    def step(self, inputs: Any = None, targets: Any = None) -> Any:
        inputs, targets = inputs() if callable(inputs) else (inputs, targets)
        self.zero_grad()
        with torch.enable_grad():
            loss = nn.functional.cross_entropy(self._model(inputs), targets)
            if loss.requires_grad:
                loss.backward()
        step: Any = torch.optim.SGD.step
        getattr(step, "__wrapped__", step)(self) if getattr(step, "hooked", False) else step(self)
        self.state[self.param_groups[0]["params"][0]]["steps"] = torch.tensor(1)
        return loss.detach()


@cache
def class_of(method: str) -> Any:
    """The class of a generated optimizer, under the name of its method."""
    if method == REFERENCE:
        return GradientDescent
    spec = sifrc.from_torch(
        model_of(),
        batch_of()[0],
        "cross_entropy",
        regularization={"state": 1.0} if method in ("mk", "esn") else {},
        method={"name": method, **METHODS[method], "weight_decay": 0.0},
    )
    return type(method, (sifrc.compile(spec, "torch", method).Optimizer,), {})


def inputs_of(method: str, *, whole: bool) -> list[Any]:
    """Arguments that the optimizers of torch have too."""
    rate = METHODS.get(method, {}).get("learning_rate", 0.05)
    found = [
        OptimizerInput(params=None, kwargs={}, desc="default"),
        OptimizerInput(params=None, kwargs={"lr": rate / 2, "weight_decay": 0.01}, desc="rate and decay"),
        OptimizerInput(params=None, kwargs={"lr": torch.tensor(rate)}, desc="Tensor lr"),
        OptimizerInput(params=None, kwargs={"weight_decay": 0.1}, desc="decay"),
        OptimizerInput(
            params=None, kwargs={"maximize": False, "capturable": False}, desc="flags that are off"
        ),
    ]
    if method == REFERENCE:
        found = found[:2]
    return found if whole else found[:2]


def errors_of(method: str) -> list[Any]:
    """What must be refused, with what the error says."""
    model = model_of()
    if method == REFERENCE:
        return [
            ErrorOptimizerInput(
                OptimizerInput(params=model, kwargs={"lr": -0.5}, desc="lr"),
                error_type=ValueError,
                error_regex="Invalid learning rate",
            )
        ]
    twice = [{"params": ["*"]}, {"params": ["0.*"]}]
    cases: list[tuple[Any, dict[str, Any], Any, str]] = [
        (list(model.parameters()), {}, TypeError, "expected a torch.nn.Module"),
        (model, {"lr": -0.5}, ValueError, "lr: expected"),
        (model, {"lr": torch.tensor([0.001, 0.001])}, TypeError, "lr: expected a number"),
        (model, {"weight_decay": -1.0}, ValueError, "weight_decay: expected"),
        (model, {"groups": twice}, ValueError, "in more than one group"),
        (
            model,
            {"groups": [{"params": [("a", model[0].bias), model[0].weight]}]},
            ValueError,
            "names for all",
        ),
        (
            model,
            {"groups": [{"params": [*model.parameters(), torch.ones(1)]}]},
            ValueError,
            "none of the param",
        ),
    ]
    return [
        ErrorOptimizerInput(
            OptimizerInput(params=first, kwargs=kwargs, desc=text), error_type=kind, error_regex=text
        )
        for first, kwargs, kind, text in cases
    ]


def info_of(method: str, *, whole: bool) -> Any:
    """The description of a method as PyTorch has it of its own optimizers."""
    return OptimizerInfo(
        class_of(method),
        optim_inputs_func=lambda device, dtype=None: inputs_of(method, whole=whole),
        optim_error_inputs_func=lambda device, dtype: errors_of(method),
        scheduler_inputs=(
            [lambda one: StepLR(one, gamma=0.9, step_size=10), ReduceLROnPlateau],
            *([[lambda one: StepLR(one, gamma=0.5, step_size=2)]] if whole else []),
        ),
        supported_impls=(),
        not_og_supported_flags=("foreach", "differentiable", "maximize", "capturable"),
        supports_sparse=False,
        supports_complex=False,
        step_requires_closure=True,
        supports_multiple_devices=False,
    )


def outside(method: str) -> dict[str, tuple[str, str]]:
    """Cases that a method does not pass."""
    if method == REFERENCE:
        return {}
    return {**OUTSIDE, **(JOINT if method == "grouped_newton" else {})}


def check(method: str, name: str, device: str, dtype: torch.dtype, *, whole: bool) -> None:
    """One case: passed, or failed for its reason."""
    info = info_of(method, whole=whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name not in outside(method):
            CASES[name](info, torch.device(device), dtype)
            return
        with pytest.raises((TypeError, ValueError), match=outside(method)[name][0]):
            CASES[name](info, torch.device(device), dtype)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", METHODS)
def test_cases(method: str, name: str) -> None:
    check(method, name, "cpu", torch.float64, whole=False)


@pytest.mark.parametrize("name", [name for name in CASES if name not in OUTSIDE])
def test_cases_are_those_of_torch(name: str) -> None:
    """Gradient descent by torch's own class passes all that is not listed."""
    check(REFERENCE, name, "cpu", torch.float64, whole=True)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", METHODS)
def test_all_inputs(method: str, name: str, device: str, dtype: torch.dtype) -> None:
    """With every input of the description."""
    check(method, name, device, dtype, whole=True)


@pytest.mark.parametrize("method", METHODS)
def test_arguments_that_torch_has_everywhere_are_known(method: str) -> None:
    """What several optimizers of torch take is taken, or refused with a reason."""
    counts: dict[str, int] = {}
    for info in optim_db:
        flags = {*info.supported_impls, *info.not_og_supported_flags}
        given = {key for one in info.optim_inputs_func(device="cpu") for key in one.kwargs}
        for key in flags | given:
            counts[key] = counts.get(key, 0) + 1
    common = {key for key, count in counts.items() if count > len(optim_db) / 2}
    assert {"lr", "weight_decay", "maximize", "foreach", "differentiable", "capturable"} <= common
    for key in common:
        if key in ("lr", "weight_decay"):
            class_of(method)(model_of(), **{key: 0.1})
            continue
        class_of(method)(model_of(), **{key: False})
        with pytest.raises(ValueError, match=f"{key}: not here: "):
            class_of(method)(model_of(), **{key: True})


def test_the_documents_have_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """``docs/optimizers.md`` lists what is outside, with the reasons."""
    rows = [f"| `{name}` | {reason} |" for name, (_, reason) in sorted(OUTSIDE.items())]
    rows += [f"| `{name}` (`grouped_newton`) | {reason} |" for name, (_, reason) in JOINT.items()]
    text = (Path(__file__).resolve().parents[2] / "docs/optimizers.md").read_text(encoding="utf-8")
    with capsys.disabled():
        inside = len(CASES) - len(OUTSIDE)
        print(f"\n{inside} of {len(CASES)} cases of PyTorch's optimizer tests apply; the others:")
        print("\n".join(rows))
    assert "\n".join(rows) in text
    assert re.search(rf"\b{inside} of {len(CASES)} cases\b", text)
