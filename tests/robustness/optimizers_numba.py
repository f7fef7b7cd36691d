"""Rows for the state and the steps of the generated Numba module."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from optimizers_modules import NumbaRun, Row, Run, at_once

__all__ = ["numba_rows"]


def numba_rows(run: Run, other: NumbaRun) -> Iterator[Row]:
    """Rows of a method; ``other`` is a run of another one."""
    assert isinstance(run, NumbaRun)
    yield from _state_rows(run, other)
    yield from _parameter_rows(run)
    yield from _loops(run)


# -- state


def _loaded(run: NumbaRun, values: Any) -> None:
    run.optimizer = run.module.State(run.params)
    run.optimizer.load_state_dict(values)


def _through_npz(run: NumbaRun) -> None:
    file = io.BytesIO()
    np.savez(file, **run.optimizer.state_dict())
    file.seek(0)
    with np.load(file) as found:
        _loaded(run, found)


def _through_npz_dict(run: NumbaRun) -> None:
    file = io.BytesIO()
    np.savez(file, **run.optimizer.state_dict())
    file.seek(0)
    with np.load(file) as found:
        _loaded(run, dict(found))


def _pickled(run: NumbaRun) -> None:
    run.params, run.optimizer = pickle.loads(pickle.dumps((run.params, run.optimizer)))


def _copied(run: NumbaRun) -> None:
    run.params, run.optimizer = copy.deepcopy((run.params, run.optimizer))


def _shallow(run: NumbaRun) -> None:
    run.optimizer = copy.copy(run.optimizer)


def _saved_later_changed(run: NumbaRun) -> None:
    saved = run.optimizer.state_dict()
    _loaded(run, saved)
    for value in saved.values():
        if isinstance(value, np.ndarray):
            value[...] = math.nan


def _array_of(saved: dict[str, Any]) -> str | None:
    return next((key for key, value in saved.items() if isinstance(value, np.ndarray)), None)


def _other_shape(saved: dict[str, Any]) -> None:
    saved[_array_of(saved) or "lr"] = np.zeros((9, 9, 9))


def _other_dtype(saved: dict[str, Any]) -> None:
    key = _array_of(saved)
    saved[key or "lr"] = np.zeros(2, np.float16) if key is None else saved[key].astype(np.float16)


BAD_STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an empty dict": lambda saved: {},
    "a list": list,
    "with an entry more": lambda saved: {**saved, "nobody": 1},
    "with an entry less": lambda saved: {key: value for key, value in saved.items() if key != "lr"},
    "with another shape": _other_shape,
    "with another dtype": _other_dtype,
    "with a list": lambda saved: {**saved, "steps": [1]},
    "with nan for lr": lambda saved: {**saved, "lr": math.nan},
    "with a negative lr": lambda saved: {**saved, "lr": np.array(-1.0)},
    "with half a step": lambda saved: {**saved, "steps": 2.5},
    "with steps below zero": lambda saved: {**saved, "steps": -1},
    "of another name": lambda saved: {**saved, "method": "nobody's"},
}


def _load(change: Callable[[dict[str, Any]], Any]) -> Callable[[NumbaRun], None]:
    def do(run: NumbaRun) -> None:
        saved = run.optimizer.state_dict()
        found = change(saved)
        run.optimizer.load_state_dict(saved if found is None else found)

    return do


def _state_rows(run: NumbaRun, other: NumbaRun) -> Iterator[Row]:
    same = "the same steps to the bit"
    yield Row("state dict into a new state", lambda r: _loaded(r, r.optimizer.state_dict()), same)
    yield Row("np.savez, np.load", _through_npz, same)
    yield Row("np.savez, np.load, dict", _through_npz_dict, same)
    yield Row("pickle", _pickled, same)
    yield Row("deepcopy", _copied, same)
    yield Row("copy", _shallow, same)
    yield Row("own state dict loaded", lambda r: r.optimizer.load_state_dict(r.optimizer.state_dict()), same)
    yield Row("a loaded state dict is changed afterwards", _saved_later_changed, "what was loaded is a copy")
    for name, change in BAD_STATES.items():
        yield Row(f"state dict {name}", _load(change), "refused when it is loaded", "refused")
    saved = other.optimizer.state_dict()
    yield Row(
        f"state dict of {other.method}",
        lambda run: run.optimizer.load_state_dict(saved),
        "that of another method is refused when it is loaded",
        "refused",
    )
    for name in ("learning_rate", "lrr", "weight_decay"):
        yield Row(
            f"state.{name} = 0.3",
            lambda run, name=name: setattr(run.optimizer, name, 0.3),
            "an attribute that does not exist is refused",
            "refused",
        )
    for value in (-1, 2.5, math.nan, "1", True):
        yield Row(
            f"state.steps = {value!r}",
            lambda run, value=value: setattr(run.optimizer, "steps", value),
            "a count of steps is a whole number",
            "refused",
        )
    yield Row(
        "state.steps = a 0-d array",
        lambda run: setattr(run.optimizer, "steps", np.array(run.optimizer.steps)),
        same,
    )


# -- parameters


def _array(change: Callable[[np.ndarray], Any], name: str = "fc2.weight") -> Callable[[NumbaRun], None]:
    def do(run: NumbaRun) -> None:
        run.kept = run.params[name]  # type: ignore[attr-defined]
        run.params[name] = change(run.params[name])

    return do


def _put_back(run: NumbaRun) -> None:
    run.params["fc2.weight"] = run.kept  # type: ignore[attr-defined]


def _locked(run: NumbaRun) -> None:
    run.params["fc2.weight"].flags.writeable = False


def _unlocked(run: NumbaRun) -> None:
    run.params["fc2.weight"].flags.writeable = True


def _entry(value: float) -> Callable[[NumbaRun], None]:
    def do(run: NumbaRun) -> None:
        run.params["fc2.weight"][0, 0] = value

    return do


def _parameter_rows(run: NumbaRun) -> Iterator[Row]:
    yield Row("a parameter replaced by a copy", _array(np.copy), "the same steps")
    wrong: dict[str, Callable[[np.ndarray], Any]] = {
        "of the other dtype": lambda v: v.astype("float64" if v.dtype == "float32" else "float32"),
        "of another shape": lambda v: v[:, :2].copy(),
        "columns first": np.asfortranarray,
        "with steps between": lambda v: np.repeat(v, 2, 1)[:, ::2],
        "backwards": lambda v: v[::-1],
        "a list": lambda v: v.tolist(),
        "None": lambda v: None,
        "of the other byte order": lambda v: v.astype(v.dtype.newbyteorder()),
    }
    for name, change in wrong.items():
        yield Row(f"a parameter {name}", _array(change), "refused", "refused", heal=_put_back)
    yield Row("a parameter that cannot be written", _locked, "refused", "refused", heal=_unlocked)
    yield Row("a parameter less", lambda run: run.params.pop("out.bias"), "refused", "refused", lost=True)
    yield Row(
        "a parameter more",
        lambda run: run.params.update(more=np.zeros(2)),
        "refused",
        "refused",
        heal=lambda run: run.params.pop("more"),
    )
    yield Row(
        "parameters in another order",
        lambda run: setattr(run, "params", dict(reversed(run.params.items()))),
        "the same steps",
    )
    for value in (math.nan, math.inf):
        yield Row(f"a parameter with {value}", _entry(value), "refused", "refused", lost=True)
    top = float(np.finfo(run.dtype).max)
    yield Row("a parameter at the end of the dtype", _entry(top), "refused or finite", "either", lost=True)


# -- loops


def _steps(count: int) -> Callable[[NumbaRun], None]:
    def like(run: NumbaRun) -> None:
        run.advance(count)

    return like


def _epoch(count: int) -> Callable[[NumbaRun], None]:
    def do(run: NumbaRun) -> None:
        run.objectives += [run.epoch(count) * 0.0] * count

    return do


def _forgotten(count: int) -> Callable[[NumbaRun], None]:
    def like(run: NumbaRun) -> None:
        for _ in range(count):
            run.update(*run.batch())
        run.objectives += [0.0] * count

    return like


def _broken_later(value: float) -> Callable[[NumbaRun], None]:
    """The third of four steps of one call has a sample that is not finite: two steps have been taken."""

    def do(run: NumbaRun) -> None:
        twin_params, twin = copy.deepcopy((run.params, run.optimizer))
        start, size = run.position, run.size
        inputs = run.all_inputs.copy()
        inputs[start + 2 * size, 0] = value
        order = np.arange(start, start + 4 * size)
        try:
            run.module.train_epoch(run.params, run.optimizer, inputs, run.all_targets, order, batch=size)
        except FloatingPointError:
            wanted = 2
        else:
            wanted = 4
        for k in range(wanted):
            rows = slice(start + k * size, start + (k + 1) * size)
            run.module.step(twin_params, twin, inputs[rows], run.all_targets[rows])
        for name, array in run.params.items():
            if not np.array_equal(array, twin_params[name]):
                raise AssertionError(f"{name} is not as after {wanted} steps")
        for key, kept in twin.state_dict().items():
            if not np.array_equal(kept, run.optimizer.state_dict()[key]):
                raise AssertionError(f"the state {key} is not as after {wanted} steps")
        run.position += 4 * size
        run.objectives += [0.0] * 4

    return do


def _in_threads(run: NumbaRun) -> None:
    twins = [copy.deepcopy((run.params, run.optimizer)) for _ in range(3)]
    rows = np.arange(run.position, run.position + 2 * run.size)
    run.position += 2 * run.size

    def work(params: Any, state: Any) -> None:
        run.module.train_epoch(params, state, run.all_inputs, run.all_targets, rows, batch=run.size)

    at_once(work, twins)
    run.params, run.optimizer = twins[1]
    run.objectives += [0.0, 0.0]


def _order(make: Callable[[NumbaRun], Any], **options: Any) -> Callable[[NumbaRun], None]:
    def do(run: NumbaRun) -> None:
        options.setdefault("batch", run.size)
        run.module.train_epoch(
            run.params, run.optimizer, run.all_inputs, run.all_targets, make(run), **options
        )

    return do


def _with_errors(run: NumbaRun) -> None:
    with np.errstate(over="warn", invalid="warn", divide="warn"):
        run.advance(2)


def _loops(run: NumbaRun) -> Iterator[Row]:
    yield Row("four steps by one call", _epoch(4), "the same as four calls", like=_forgotten(4))
    for value in (math.nan, math.inf):
        yield Row(
            f"{value} in the third of four steps of one call",
            _broken_later(value),
            "two steps are taken, or all",
            "either",
            lost=True,
        )
    yield Row("twins on three threads", _in_threads, "the same steps", like=_forgotten(2))
    yield Row("steps with NumPy's warnings on", _with_errors, "the same steps", like=_steps(2))
    orders: dict[str, Callable[[NumbaRun], Any]] = {
        "none": lambda run: np.array([], np.int64),
        "a list": lambda run: [0, 1],
        "of floats": lambda run: np.array([0.0, 1.0]),
        "of truth values": lambda run: np.array([True, False]),
        "out of range": lambda run: np.array([0, 60]),
        "below zero": lambda run: np.array([-1, 0]),
        "of two dimensions": lambda run: np.zeros((2, 2), np.int64),
    }
    for name, make in orders.items():
        yield Row(f"order: {name}", _order(make), "refused", "refused")
    for size in (0, -1, 1.5, True, None, "2", math.nan, np.array([2])):
        yield Row(f"batch={size!r}", _order(lambda run: np.arange(6), batch=size), "refused", "refused")
    yield Row(
        "a learning rate that overflows in a loop",
        lambda run: run.set("lr", 1e38 if run.dtype == "float32" else 1e308),
        "refused before that step, or finite",
        "either",
        heal=lambda run: run.set("lr", 1e-2),
        like=lambda run: run.set("lr", 1e38 if run.dtype == "float32" else 1e308),
    )
