"""Rows for the generated Torch optimizer: state, models and data."""

from __future__ import annotations

import copy
import io
import math
import pickle
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
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
    yield from _frozen_rows(run)
    yield from _surroundings(run)


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
            if isinstance(value, torch.Tensor):
                value.fill_(math.nan)


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
        "refused",
        "refused",
        heal=lambda run: run.optimizer.param_groups[0]["params"].reverse(),
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


# -- frozen parameters


def _with_frozen(names: tuple[str, ...]) -> Any:
    def do(run: TorchRun) -> None:
        values = dict(run.model.named_parameters())
        for name in names:
            values[name].requires_grad_(False)
        before = {name: values[name].detach().clone() for name in names}
        own = {name: copy.deepcopy(run.optimizer.state[values[name]]) for name in names}
        whole = all(not value.requires_grad for value in values.values())
        run.advance(1)
        for name in names:
            if not torch.equal(before[name], values[name]):
                raise AssertionError(f"{name} is frozen and has moved")
            users = {"weight", "bias", "layer"} if whole else {name.rpartition(".")[2]}
            for code, (_, owner, _) in run.module.MEMORY.items():
                mine = own[name].get(code)
                if owner in users and mine is not None:
                    if not torch.equal(mine, run.optimizer.state[values[name]][code]):
                        raise AssertionError(f"the state {code} of {name}, which is frozen, has changed")
            values[name].requires_grad_(True)

    return do


def _as_if_frozen(names: tuple[str, ...]) -> Any:
    """The step of all, after which what is frozen and its state are put back."""

    def like(run: TorchRun) -> None:
        values = dict(run.model.named_parameters())
        before = {name: values[name].detach().clone() for name in names}
        own = {name: copy.deepcopy(run.optimizer.state[value]) for name, value in values.items()}
        run.advance(1)
        frozen = set(names)
        tables = {"weight": run.module.WEIGHT_NAMES, "bias": run.module.BIAS_NAMES}
        with torch.no_grad():
            for name in names:
                values[name].copy_(before[name])
            for code, (_, owner, shapes) in run.module.MEMORY.items():
                for k in shapes:
                    kinds = ("weight", "bias") if owner == "layer" else (owner,)
                    users = {tables[kind][k] for kind in kinds if kind in tables}
                    users = set(values) if owner == "network" else users
                    if users and users <= frozen:
                        for name in values:
                            kept = {key: v for key, v in own[name].items() if key in (code, f"{code}{k}")}
                            home = name == tables["bias" if owner == "bias" else "weight"].get(
                                k, "fc1.weight"
                            )
                            if home:
                                run.optimizer.state[values[name]].update(kept)

    return like


def _frozen_at_the_start(run: TorchRun) -> None:
    run.model.fc1.weight.requires_grad_(False)
    run.optimizer = run.module.Optimizer(run.model, lr=1e-2)
    run.advance(1)
    run.model.fc1.weight.requires_grad_(True)


def _start_as_if_frozen(run: TorchRun) -> None:
    run.optimizer = run.module.Optimizer(run.model, lr=1e-2)
    _as_if_frozen(("fc1.weight",))(run)


def _thaw(run: TorchRun) -> None:
    for value in run.model.parameters():
        value.requires_grad_(True)


def _frozen_rows(run: TorchRun) -> Iterator[Row]:
    everything = tuple(run.module.SHAPES)
    cases = {
        "a weight": ("fc2.weight",),
        "a bias": ("fc1.bias",),
        "a layer": ("out.weight", "out.bias"),
        "two layers": ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"),
        "everything": everything,
    }
    text = (
        "it stays and so does its state; the others move as they would; where the direction is joint, refused"
    )
    for name, names in cases.items():
        yield Row(
            f"{name} frozen for a step",
            _with_frozen(names),
            text,
            "refused" if run.joint else "goes on",
            like=_as_if_frozen(names),
            heal=_thaw,
        )
    yield Row(
        "a weight frozen before the optimizer is built",
        _frozen_at_the_start,
        text,
        "refused" if run.joint else "goes on",
        like=_start_as_if_frozen,
        heal=_thaw,
    )


# -- what is around a step


def _within(context: Any, count: int = 2) -> Any:
    def do(run: TorchRun) -> None:
        with context():
            run.advance(count)

    return do


def _in_threads(run: TorchRun) -> None:
    """Twins on threads of their own."""
    twins = [copy.deepcopy((run.model, run.optimizer)) for _ in range(3)]
    batches = [run.batch() for _ in range(2)]
    errors: list[BaseException] = []

    def work(optimizer: Any) -> None:
        try:
            for batch in batches:
                optimizer.step(*batch)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(optimizer,)) for _, optimizer in twins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    run.model, run.optimizer = twins[1]
    run.objectives += [0.0, 0.0]


def _silent_steps(run: TorchRun) -> None:
    for _ in range(2):
        run.update(*run.batch())
    run.objectives += [0.0, 0.0]


def _interrupted(run: TorchRun) -> None:
    """Ctrl-C after the update has begun to write."""
    names = run.module.Optimizer._step.__globals__
    update = names["_update"]

    def broken(*arguments: Any, **options: Any) -> None:
        update(*arguments, **options)
        raise KeyboardInterrupt

    before = run.saved()
    names["_update"] = broken
    try:
        run.step(*run.batch())
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("the interruption was lost")
    finally:
        names["_update"] = update
    if run.saved() != before:
        raise AssertionError("an interrupted step has changed something")


def _skip_batch(run: Run) -> None:
    run.batch()


def _hooks(run: TorchRun) -> None:
    seen: list[str] = []
    first = run.optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    second = run.optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    run.advance()
    first.remove()
    second.remove()
    if seen != ["before", "after"] * 2:
        raise AssertionError(f"hooks ran as {seen}")


class _Own(Exception):
    """An error of the user's."""


def _own_error(run: TorchRun, place: str) -> None:
    def fail(*_: Any) -> Any:
        raise _Own

    before, batch = run.saved(), run.batch()
    hook = run.optimizer.register_step_pre_hook(fail) if place == "hook" else None
    try:
        run.optimizer.step(fail) if hook is None else run.optimizer.step(*batch)
    except _Own:
        pass
    else:
        raise AssertionError("the error was lost")
    finally:
        if hook is not None:
            hook.remove()
    if run.saved() != before:
        raise AssertionError("something has changed")


def _closure(run: TorchRun) -> None:
    for _ in range(2):
        batch = run.batch()
        run.objectives.append(float(run.optimizer.step(lambda batch=batch: batch)))


def _schedulers() -> dict[str, Any]:
    lrs = torch.optim.lr_scheduler
    return {
        "StepLR": lambda o: lrs.StepLR(o, 1, 0.5),
        "MultiStepLR": lambda o: lrs.MultiStepLR(o, [1], 0.1),
        "ExponentialLR": lambda o: lrs.ExponentialLR(o, 0.9),
        "ConstantLR": lambda o: lrs.ConstantLR(o, 0.3, 2),
        "LinearLR": lambda o: lrs.LinearLR(o, 0.3, 1.0, 3),
        "PolynomialLR": lambda o: lrs.PolynomialLR(o, 5),
        "CosineAnnealingLR": lambda o: lrs.CosineAnnealingLR(o, 5),
        "CosineAnnealingWarmRestarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 2),
        "LambdaLR": lambda o: lrs.LambdaLR(o, lambda k: 1.0 / (1 + k)),
        "MultiplicativeLR": lambda o: lrs.MultiplicativeLR(o, lambda k: 0.7),
        "OneCycleLR": lambda o: lrs.OneCycleLR(o, 0.02, total_steps=9, cycle_momentum=False),
        "CyclicLR": lambda o: lrs.CyclicLR(o, 1e-3, 1e-2, 2, cycle_momentum=False),
        "SequentialLR": lambda o: lrs.SequentialLR(
            o, [lrs.ConstantLR(o, 0.1), lrs.ExponentialLR(o, 0.9)], milestones=[2]
        ),
        "ChainedScheduler": lambda o: lrs.ChainedScheduler(
            [lrs.ConstantLR(o, 0.1), lrs.ExponentialLR(o, 0.9)]
        ),
    }


def _scheduled(make: Any) -> tuple[Any, Any]:
    def do(run: TorchRun) -> None:
        scheduler = make(run.optimizer)
        for _ in range(4):
            run.advance(1)
            scheduler.step()

    def like(run: TorchRun) -> None:
        """The rates that the scheduler gives to SGD, set by hand."""
        twin = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=run.get("lr"))
        scheduler = make(twin)
        for _ in range(4):
            run.set("lr", twin.param_groups[0]["lr"])
            run.advance(1)
            twin.step()
            scheduler.step()
        run.set("lr", twin.param_groups[0]["lr"])

    return do, like


def _bad_schedule(factor: float) -> Any:
    def do(run: TorchRun) -> None:
        torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda k: factor)

    return do


def _plateau(run: TorchRun) -> None:
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(run.optimizer, patience=0, factor=0.5)
    for _ in range(3):
        run.advance(1)
        scheduler.step(1.0)


def _plateau_by_hand(run: TorchRun) -> None:
    for factor in (1.0, 0.5, 0.5):
        run.advance(1)
        run.set("lr", run.get("lr") * factor)


def _surroundings(run: TorchRun) -> Iterator[Row]:
    two = lambda run: run.advance(2)  # noqa: E731
    contexts = {
        "torch.inference_mode": torch.inference_mode,
        "torch.no_grad": torch.no_grad,
        "torch.enable_grad": torch.enable_grad,
        "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
        "anomaly detection": torch.autograd.detect_anomaly,
        "a default device": lambda: torch.device("meta"),
    }
    for name, context in contexts.items():
        yield Row(f"steps within {name}", _within(context), "the same steps as outside", like=two)
    yield Row("built within inference mode", _built_within, "the same steps", like=_built)
    yield Row("twins on three threads", _in_threads, "the same steps", like=_silent_steps)
    yield Row("Ctrl-C in the update", _interrupted, "as before the step", like=_skip_batch)
    yield Row("hooks before and after a step", _hooks, "they run", like=two)
    yield Row(
        "a hook that raises", lambda r: _own_error(r, "hook"), "its error, nothing changed", like=_skip_batch
    )
    yield Row(
        "a function that raises", lambda r: _own_error(r, ""), "its error, nothing changed", like=_skip_batch
    )
    yield Row("a function that gives the batch", _closure, "the same steps", like=two)
    for name, make in _schedulers().items():
        do, like = _scheduled(make)
        yield Row(f"scheduler {name}", do, "the steps with its rates", like=like)
    yield Row("scheduler ReduceLROnPlateau", _plateau, "the steps with its rates", like=_plateau_by_hand)
    for factor in (math.nan, math.inf, -1.0):
        yield Row(
            f"a scheduler that gives {factor}",
            _bad_schedule(factor),
            "refused at the step",
            "refused",
            heal=lambda run: run.set("lr", 1e-2),
        )


def _built_within(run: TorchRun) -> None:
    with torch.inference_mode():
        run.optimizer = run.module.Optimizer(run.model, lr=1e-2)


def _built(run: TorchRun) -> None:
    run.optimizer = run.module.Optimizer(run.model, lr=1e-2)
