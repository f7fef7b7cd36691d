"""Rows of data that a step is given, of both backends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from optimizers_modules import SIZES, NumbaRun, Row, Run

__all__ = ["data_rows"]

Change = Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]


def data_rows(run: Run) -> Iterator[Row]:
    """Rows of a method."""
    yield from _values(run)
    yield from _kinds(run)
    yield from _layouts(run)
    yield from _sizes(run)


def _given(change: Change, convert: bool = True) -> Callable[[Run], None]:
    """A step on a changed batch of arrays."""

    def do(run: Run) -> None:
        rows = slice(run.position, run.position + run.size)
        inputs, targets = change(run.all_inputs[rows].copy(), run.all_targets[rows].copy())
        run.step(*(map(run.given, (inputs, targets)) if convert else (inputs, targets)))
        run.position += run.size

    return do


def _entry(value: float, which: int) -> Change:
    def change(inputs: np.ndarray, targets: np.ndarray) -> tuple[Any, Any]:
        (inputs, targets)[which].reshape(-1)[1] = value
        return inputs, targets

    return change


def _values(run: Run) -> Iterator[Row]:
    top = float(np.finfo(run.dtype).max)
    text = "refused, or finite"
    for name, value in {
        "nan": math.nan,
        "inf": math.inf,
        "-inf": -math.inf,
        "the largest number": top,
    }.items():
        yield Row(
            f"inputs with {name}", _given(_entry(value, 0)), text, "either", like=_given(_entry(value, 0))
        )
        if not run.classes:
            yield Row(
                f"targets with {name}",
                _given(_entry(value, 1)),
                text,
                "either",
                like=_given(_entry(value, 1)),
            )
    for name, value in {"zeros": 0.0, "the smallest numbers": 1e-40, "all of the largest": top}.items():
        change = _filled(value)
        yield Row(f"inputs: {name}", _given(change), text, "either", like=_given(change))
    if run.classes:
        for value in (-1, SIZES[-1], 10**6):
            row = f"class {value}"
            yield Row(row, _given(_class(value)), "refused", "refused")


def _filled(value: float) -> Change:
    def change(inputs: np.ndarray, targets: np.ndarray) -> tuple[Any, Any]:
        return np.full_like(inputs, value), targets

    return change


def _class(value: int) -> Change:
    def change(inputs: np.ndarray, targets: np.ndarray) -> tuple[Any, Any]:
        targets[0] = value
        return inputs, targets

    return change


def _kinds(run: Run) -> Iterator[Row]:
    other = "float64" if run.dtype == "float32" else "float32"
    dtypes = {name: np.dtype(name) for name in (other, "float16", "int64", "complex64", "bool")}
    for name, dtype in dtypes.items():
        yield Row(
            f"inputs of {name}",
            _given(lambda inputs, targets, dtype=dtype: (inputs.astype(dtype), targets)),
            "refused",
            "refused",
        )
    wrong = ("float32", "float64", "bool") if run.classes else (other, "int64", "complex64")
    for name in wrong:
        yield Row(
            f"targets of {name}",
            _given(lambda inputs, targets, name=name: (inputs, targets.astype(name))),
            "refused",
            "refused",
        )
    if run.classes:
        for name in ("int32", "int16", "int8", "uint8"):
            yield Row(
                f"classes of {name}",
                _given(lambda inputs, targets, name=name: (inputs, targets.astype(name))),
                "the same step",
                like=_given(lambda inputs, targets: (inputs, targets)),
            )
    objects: dict[str, Change] = {
        "lists": lambda inputs, targets: (inputs.tolist(), targets.tolist()),
        "inputs a list": lambda inputs, targets: (inputs.tolist(), run.given(targets)),
        "targets a list": lambda inputs, targets: (run.given(inputs), targets.tolist()),
        "inputs None": lambda inputs, targets: (None, run.given(targets)),
        "targets None": lambda inputs, targets: (run.given(inputs), None),
        "inputs a number": lambda inputs, targets: (1.0, run.given(targets)),
        "the other framework's": lambda inputs, targets: (
            (torch.from_numpy(inputs), torch.from_numpy(targets))
            if run.backend == "numba"
            else (inputs, targets)
        ),
    }
    if run.backend == "torch":
        objects |= {
            "inputs on meta": lambda inputs, targets: (run.given(inputs).to("meta"), run.given(targets)),
            "targets on meta": lambda inputs, targets: (run.given(inputs), run.given(targets).to("meta")),
            "inputs sparse": lambda inputs, targets: (run.given(inputs).to_sparse(), run.given(targets)),
            "inputs quantized": lambda inputs, targets: (
                torch.quantize_per_tensor(run.given(inputs).float(), 0.1, 0, torch.qint8),
                run.given(targets),
            ),
        }
    for name, change in objects.items():
        yield Row(f"batch: {name}", _given(change, convert=False), "refused", "refused")


def _layouts(run: Run) -> Iterator[Row]:
    plain = _given(lambda inputs, targets: (inputs, targets))
    text = "the same step, to rounding"
    tolerance = 1e-4 if run.dtype == "float32" else 1e-11
    layouts: dict[str, Change] = {
        "columns first": lambda x, t: (np.asfortranarray(x), t),
        "every other row": lambda x, t: (np.repeat(x, 2, 0)[::2], np.repeat(t, 2, 0)[::2]),
        "every other column": lambda x, t: (np.repeat(x, 2, 1)[:, ::2], t),
    }
    if run.backend == "numba":
        layouts |= {
            "backwards": lambda x, t: (x[::-1].copy()[::-1], t[::-1].copy()[::-1]),
            "columns backwards": lambda x, t: (x[:, ::-1].copy()[:, ::-1], t),
            "read only": lambda x, t: (_read_only(x), _read_only(t)),
            "not aligned": lambda x, t: (_not_aligned(x), t),
            "a subclass": lambda x, t: (x.view(_Own), t.view(_Own)),
        }
        yield Row(
            "inputs of the other byte order",
            _given(lambda x, t: (x.astype(x.dtype.newbyteorder()), t)),
            "refused",
            "refused",
        )
    for name, change in layouts.items():
        do = _given(lambda x, t, change=change: _as_is(run, *change(x, t)), convert=False)
        yield Row(f"batch: {name}", do, text, like=plain, tolerance=tolerance)
    if run.backend == "torch":
        yield Row(
            "inputs that require a gradient",
            _given(lambda x, t: (run.given(x).requires_grad_(), run.given(t)), convert=False),
            "the same step",
            like=plain,
        )
        yield Row(
            "inputs expanded",
            _given(lambda x, t: (run.given(x[:1]).expand(len(x), -1), run.given(t)), convert=False),
            text,
            like=_given(lambda x, t: (np.repeat(x[:1], len(x), 0), t)),
            tolerance=tolerance,
        )


class _Own(np.ndarray):
    """A user's subclass."""


def _as_is(run: Run, inputs: np.ndarray, targets: np.ndarray) -> tuple[Any, Any]:
    """Arrays or tensors in the layout that they have."""
    if isinstance(run, NumbaRun):
        return inputs, targets
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _not_aligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    found = raw[1:].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


def _sizes(run: Run) -> Iterator[Row]:
    def sized(size: int) -> Callable[[Run], None]:
        def do(run: Run) -> None:
            run.step(*run.batch(size))

        return do

    def none(run: Run) -> None:
        run.step(run.given(run.all_inputs[:0]), run.given(run.all_targets[:0]))

    yield Row("a batch of none", none, "refused", "refused")
    if run.size == 1:
        yield Row(
            "a batch of two",
            lambda run: run.step(run.given(run.all_inputs[:2]), run.given(run.all_targets[:2])),
            "this method takes one sample",
            "refused",
        )
    else:
        drawn = run.method == "sampled"
        tolerance = 1e-3 if run.dtype == "float32" else 1e-9

        def twice(run: Run) -> None:
            inputs, targets = (
                np.repeat(array[run.position : run.position + 1], 2, 0)
                for array in (run.all_inputs, run.all_targets)
            )
            run.position += 1
            run.step(run.given(inputs), run.given(targets))

        yield Row(
            "a batch of one",
            sized(1),
            "the step of a batch that has the sample twice",
            "either",
            like=sized(1) if drawn else twice,
            tolerance=tolerance,
        )
        yield Row("a larger batch", sized(11), "the same twice", "either", like=sized(11))
    shapes: dict[str, Change] = {
        "fewer columns": lambda x, t: (x[:, :-1], t),
        "a dimension more": lambda x, t: (x[None], t),
        "a vector": lambda x, t: (x[0], t),
        "fewer targets": lambda x, t: (x, t[:-1]),
        "targets of a dimension more": lambda x, t: (x, t[None]),
    }
    for name, change in shapes.items():
        yield Row(f"shapes: {name}", _given(change), "refused", "refused")
