"""Rows for the generated Torch optimizer: frozen parameters, and what is around a step."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from optimizers_modules import Row, Run, TorchRun, at_once
from torch import nn

__all__ = ["frozen_rows", "surrounding_rows"]


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
                if owner not in users or mine is None:
                    continue
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


def frozen_rows(run: TorchRun) -> Iterator[Row]:
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

    def work(optimizer: Any) -> None:
        for batch in batches:
            optimizer.step(*batch)

    at_once(work, [(optimizer,) for _, optimizer in twins])
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


def surrounding_rows(run: TorchRun) -> Iterator[Row]:
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
