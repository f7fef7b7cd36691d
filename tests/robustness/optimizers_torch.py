"""Rows for the generated Torch optimizer: its state and the model."""

from __future__ import annotations

import copy
import io
import math
import pickle
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from optimizers_around import frozen_rows, surrounding_rows
from optimizers_modules import Row, Run, TorchRun
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

__all__ = ["torch_rows"]


def torch_rows(run: Run, other: TorchRun) -> Iterator[Row]:
    """Rows of a method; ``other`` is a run of another one."""
    assert isinstance(run, TorchRun)
    yield from _state_rows(run, other)
    yield from _model_rows(run)
    yield from frozen_rows(run)
    yield from surrounding_rows(run)


# -- state


def _through_file(run: TorchRun) -> None:
    file = io.BytesIO()
    torch.save(run.optimizer.state_dict(), file)
    file.seek(0)
    run.optimizer = run.module.Optimizer(run.model)
    run.optimizer.load_state_dict(torch.load(file, weights_only=True))


def _pickled(run: TorchRun) -> None:
    run.model, run.optimizer = pickle.loads(pickle.dumps((run.model, run.optimizer)))


def _copied(run: TorchRun) -> None:
    run.model, run.optimizer = copy.deepcopy((run.model, run.optimizer))


def _copied_alone(run: TorchRun) -> None:
    run.optimizer = copy.deepcopy(run.optimizer)
    run.model = run.optimizer._model


def _checkpoint(run: TorchRun) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dcp.save({"optimizer": run.optimizer.state_dict()}, checkpoint_id=folder, no_dist=True)
        run.optimizer = run.module.Optimizer(run.model)
        found = {"optimizer": run.optimizer.state_dict()}
        dcp.load(found, checkpoint_id=folder, no_dist=True)
    run.optimizer.load_state_dict(found["optimizer"])


def _named_state(run: TorchRun) -> None:
    state = copy.deepcopy(get_optimizer_state_dict(run.model, run.optimizer))
    values = copy.deepcopy(get_model_state_dict(run.model))
    run.model = run.module.Network(seed=7)
    run.optimizer = run.module.Optimizer(run.model)
    set_model_state_dict(run.model, values)
    set_optimizer_state_dict(run.model, run.optimizer, state)


def _saved_later_changed(run: TorchRun) -> None:
    saved = run.optimizer.state_dict()
    run.optimizer = run.module.Optimizer(run.model)
    run.optimizer.load_state_dict(saved)
    for entries in saved["state"].values():
        for value in entries.values():
            value.fill_(math.nan if value.is_floating_point() else 17)


def _load(change: Any) -> Any:
    def do(run: TorchRun) -> None:
        saved = copy.deepcopy(run.optimizer.state_dict())
        found = change(saved)
        run.optimizer.load_state_dict(saved if found is None else found)

    return do


def _rename(saved: Any) -> None:
    saved["state"][0]["nobody"] = torch.zeros(2)


def _first_tensor(saved: Any) -> tuple[dict[str, Any], str] | None:
    return next(
        ((e, k) for e in saved["state"].values() for k, v in e.items() if isinstance(v, torch.Tensor)), None
    )


def _other_shape(saved: Any) -> None:
    found = _first_tensor(saved)
    if found is None:
        saved["state"][0]["steps"] = torch.zeros(2)
    else:
        found[0][found[1]] = torch.zeros(9, 9, 9)


def _other_dtype(saved: Any) -> None:
    found = _first_tensor(saved)
    if found is None:
        saved["state"][0]["steps"] = 0.5
    else:
        found[0][found[1]] = found[0][found[1]].to(torch.float16)


BAD_STATES: dict[str, Any] = {
    "an empty dict": lambda saved: {},
    "no dict": lambda saved: [saved],
    "None": lambda saved: "nothing",
    "without state": lambda saved: {"param_groups": saved["param_groups"]},
    "without groups": lambda saved: {"state": saved["state"]},
    "of SGD": lambda saved: torch.optim.SGD(
        [nn.Parameter(torch.zeros(2)) for _ in range(6)], lr=0.1
    ).state_dict(),
    "of Adam": lambda saved: torch.optim.Adam([nn.Parameter(torch.zeros(2))], lr=0.1).state_dict(),
    "with an entry more": _rename,
    "with an entry less": lambda saved: saved["state"][0].clear(),
    "with another shape": _other_shape,
    "with another dtype": _other_dtype,
    "with nan for lr": lambda saved: saved["param_groups"][0].update(lr=math.nan),
    "with a negative lr": lambda saved: saved["param_groups"][0].update(lr=-1.0),
    "without lr": lambda saved: saved["param_groups"][0].pop("lr") and None,
    "with half a step": lambda saved: saved["state"][0].update(steps=torch.tensor(2.5)),
    "with steps below zero": lambda saved: saved["state"][0].update(steps=torch.tensor(-1)),
    "with a number of Python": lambda saved: saved["state"][0].update(steps=1),
    "with a count on meta": lambda saved: saved["state"][0].update(steps=torch.tensor(1, device="meta")),
    "with a state of nobody's": lambda saved: saved["state"].update({17: {}}),
    "with fewer parameters": lambda saved: saved["param_groups"][0]["params"].pop() and None,
}


def _state_rows(run: TorchRun, other: TorchRun) -> Iterator[Row]:
    same = "the same steps to the bit"
    yield Row("state dict into a new optimizer", TorchRun.renewed, same)
    yield Row("torch.save, torch.load(weights_only=True)", _through_file, same)
    yield Row("pickle of model and optimizer", _pickled, same)
    yield Row("deepcopy of model and optimizer", _copied, same)
    yield Row("deepcopy of the optimizer, which has its model", _copied_alone, same)
    yield Row("torch.distributed.checkpoint", _checkpoint, same)
    yield Row("get_optimizer_state_dict, set_optimizer_state_dict", _named_state, same)
    yield Row("own state dict loaded", lambda r: r.optimizer.load_state_dict(r.optimizer.state_dict()), same)
    yield Row("a loaded state dict is changed afterwards", _saved_later_changed, "what was loaded is a copy")
    for name, change in BAD_STATES.items():
        yield Row(f"state dict {name}", _load(change), "refused when it is loaded", expect="refused")
    saved = other.optimizer.state_dict()
    yield Row(
        f"state dict of {other.method}",
        lambda run: run.optimizer.load_state_dict(copy.deepcopy(saved)),
        "that of another method is refused when it is loaded",
        expect="refused",
    )
    yield Row(
        "optimizer.state emptied",
        lambda run: setattr(run.optimizer, "state", defaultdict(dict)),
        "as a new optimizer",
        like=lambda run: setattr(run, "optimizer", run.module.Optimizer(run.model, lr=1e-2)),
    )


# -- models


def _converted(dtype: torch.dtype) -> tuple[Any, Any]:
    """The model in another dtype; and a new optimizer on it that is given the state in that dtype."""
    kept = torch.float32 if dtype == torch.bfloat16 else dtype

    def do(run: TorchRun) -> None:
        run.model.to(dtype)
        _data_as(run, dtype)

    def like(run: TorchRun) -> None:
        saved = copy.deepcopy(run.optimizer.state_dict())
        run.model.to(dtype)
        run.optimizer = run.module.Optimizer(run.model, lr=1e-2)
        for entries in saved["state"].values():
            for key, value in entries.items():
                entries[key] = value.to(kept) if value.is_floating_point() else value
        run.optimizer.load_state_dict(saved)
        _data_as(run, dtype)

    return do, like


def _data_as(run: TorchRun, dtype: torch.dtype) -> None:
    def given(array: Any) -> Any:
        found = torch.from_numpy(np.ascontiguousarray(array))
        return found.to(dtype) if found.is_floating_point() else found

    run.given = given  # type: ignore[method-assign]


def _values_set(value: Any) -> Any:
    def do(run: TorchRun) -> None:
        with torch.no_grad():
            run.model.fc2.weight[0, 0] = value

    return do


def _replaced(run: TorchRun) -> None:
    run.kept = run.model.fc2.weight  # type: ignore[attr-defined]
    run.model.fc2.weight = nn.Parameter(run.model.fc2.weight.detach().clone())


def _put_back(run: TorchRun) -> None:
    run.model.fc2.weight = run.kept  # type: ignore[attr-defined]


def _data(change: Any) -> Any:
    def do(run: TorchRun) -> None:
        run.kept = run.model.fc2.weight.data  # type: ignore[attr-defined]
        run.model.fc2.weight.data = change(run.model.fc2.weight.data)

    return do


def _data_back(run: TorchRun) -> None:
    run.model.fc2.weight.data = run.kept  # type: ignore[attr-defined]


def _gradients(run: TorchRun) -> None:
    for value in run.model.parameters():
        value.grad = torch.full_like(value, 3.0)
    run.advance()
    if any(value.grad is None or not bool((value.grad == 3.0).all()) for value in run.model.parameters()):
        raise AssertionError("a step has changed gradients")
    run.optimizer.zero_grad()
    if any(value.grad is not None for value in run.model.parameters()):
        raise AssertionError("zero_grad has left gradients")


def _model_rows(run: TorchRun) -> Iterator[Row]:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        do, like = _converted(dtype)
        yield Row(f"the model to {dtype}", do, "the state goes along", "either", like=like, lost=True)
    yield Row(
        "the model to half",
        lambda run: run.model.half(),
        "a dtype that modules do not have",
        "refused",
        lost=True,
    )
    yield Row(
        "the model to meta", lambda run: run.model.to("meta"), "nothing has a value", "refused", lost=True
    )
    yield Row(
        "one layer to another dtype",
        lambda run: run.model.fc2.to(torch.bfloat16),
        "one dtype for all",
        "refused",
        lost=True,
    )
    yield Row("the model in eval mode", lambda run: run.model.eval(), "the same")
    yield Row("a parameter with nan", _values_set(math.nan), "refused", "refused", lost=True)
    yield Row("a parameter with inf", _values_set(math.inf), "refused", "refused", lost=True)
    top = torch.finfo(getattr(torch, run.dtype)).max
    yield Row(
        "a parameter at the end of the dtype", _values_set(top), "refused or finite", "either", lost=True
    )
    yield Row("a parameter replaced in the model", _replaced, "refused", "refused", heal=_put_back)
    yield Row(".data = a copy", _data(lambda value: value.clone()), "the same")
    yield Row(
        ".data = the same, not contiguous",
        _data(lambda value: value.t().contiguous().t()),
        "the same to rounding",
        tolerance=1e-5 if run.dtype == "float32" else 1e-12,
    )
    shapes = {"another shape": lambda v: v[:, :2], "no entries": lambda v: v[:0], "a vector": lambda v: v[0]}
    for name, change in shapes.items():
        yield Row(f".data = {name}", _data(change), "refused", "refused", heal=_data_back)
    yield Row(".data in float16", _data(lambda value: value.half()), "refused", "refused", heal=_data_back)
    yield Row("gradients are there", _gradients, "they are left alone", like=lambda run: run.advance())
    yield Row(
        "param_groups: one parameter less",
        lambda run: run.optimizer.param_groups[0]["params"].pop(),
        "refused",
        "refused",
        lost=True,
    )
    yield Row(
        "param_groups: another order",
        lambda run: run.optimizer.param_groups[0]["params"].reverse(),
        "the same",
        heal=lambda run: run.optimizer.param_groups[0]["params"].reverse(),
    )
    yield Row(
        "param_groups: a parameter twice",
        lambda run: run.optimizer.param_groups[0]["params"].append(
            run.optimizer.param_groups[0]["params"][0]
        ),
        "refused",
        "refused",
        heal=lambda run: run.optimizer.param_groups[0]["params"].pop(),
    )
    yield Row(
        "param_groups: a group more",
        lambda run: run.optimizer.param_groups.append(
            {**run.optimizer.param_groups[0], "params": [run.optimizer.param_groups[0]["params"].pop()]}
        ),
        "the same",
        heal=lambda run: run.optimizer.param_groups[0]["params"].extend(
            run.optimizer.param_groups.pop()["params"]
        ),
    )
    yield Row(
        "param_groups: a key more",
        lambda run: run.optimizer.param_groups[0].update(initial_lr=0.1, max_lr=math.nan),
        "schedulers write there",
    )
    yield Row(
        "add_param_group",
        lambda run: run.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]}),
        "refused",
        "refused",
    )
