"""Modules for CUDA beside the same modules for the CPU: every call, and what training makes of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from operator_calls import Given, arrays_in, calls

BATCH = 5
WITH_CLASSES = ("cross_entropy", "bounded")
"""Losses whose targets are classes where the spec does not say what they are."""
_LEAST = 1e-3
"""Size below which an array is compared as if it had this size."""


def on_host(value: Any) -> Any:
    """A result in arrays of NumPy."""
    if isinstance(value, dict):
        return {name: on_host(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(on_host, value))
    return value.copy_to_host() if hasattr(value, "copy_to_host") else value


def data(module: Any, count: int) -> tuple[dict[str, Any], Any, Any, dict[str, Any]]:
    """Parameters, inputs, targets and a vector."""
    rng = np.random.default_rng(0)
    dtype = module.SPEC["dtype"]
    params, vector = (
        {name: 0.7 * rng.standard_normal(shape).astype(dtype) for name, shape in module.SHAPES.items()}
        for _ in range(2)
    )
    size = module.SPEC["network"]["input"]["size"]
    shape = size if isinstance(size, list | tuple) else (size,)
    inputs = rng.standard_normal((count, *shape)).astype(dtype)
    outputs = module.predict(params, inputs).shape[1]
    loss = module.SPEC["loss"]
    classes = loss["targets"] == "classes" if "targets" in loss else loss["function"] in WITH_CLASSES
    targets = rng.integers(0, outputs, count) if classes else rng.random((count, outputs)).astype(dtype)
    return params, inputs, targets, vector


def error(found: Any, wanted: Any) -> float:
    """Largest difference of two results, relative to the largest entry of each array."""
    ours, theirs = arrays_in(found), arrays_in(wanted)
    if [np.shape(a) for a in ours] != [np.shape(b) for b in theirs]:
        return float("inf")
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if np.size(b):
            same = np.array_equal(np.isfinite(a), np.isfinite(b))
            inside = np.isfinite(b)
            # What is left of a residual is rounding.
            scale = max(np.abs(np.where(inside, b, 0.0)).max(), _LEAST)
            off = np.abs(np.where(inside, a, 0.0) - np.where(inside, b, 0.0)).max()
            worst = max(worst, float(off / scale), 0.0 if same else float("inf"))
    return worst


def compared(cpu: Any, cuda: Any) -> dict[str, float | str]:
    """Every operator, with every sort of argument that both have."""
    params, inputs, targets, vector = data(cpu, BATCH)
    at = Given(params, inputs, targets, vector)
    expected = dict(calls(cpu, at))
    found: dict[str, float | str] = {}
    for text, call in calls(cuda, at):
        if text in expected:
            found[text] = attempted(lambda call=call, text=text: error(on_host(call()), expected[text]()))
    return found


def attempted(work: Callable[[], Any]) -> float | str:
    """The error as a number, or what was raised."""
    try:
        return float(work())
    except Exception as raised:
        return f"{type(raised).__name__}: {raised}"


def trained(cpu: Any, cuda: Any, batches: tuple[int, ...] = (1, 3)) -> dict[str, float | str]:
    """Parameters and state after an epoch of each batch size, and a step."""
    device = cuda.cuda
    found: dict[str, float | str] = {}
    params, inputs, targets, _ = data(cpu, 7)
    order = np.array([3, 0, 5, 1, 6, 2, 4])

    def epoch(batch: int) -> float:
        ours = {name: device.to_device(value) for name, value in params.items()}
        theirs = {name: value.copy() for name, value in params.items()}
        mine, other = cuda.State(ours), cpu.State(theirs)
        losses = [
            cuda.train_epoch(ours, mine, inputs, targets, order, batch=batch),
            cpu.train_epoch(theirs, other, inputs, targets, order, batch=batch),
        ]
        losses[0] += cuda.step(ours, mine, inputs[:batch], targets[:batch])
        losses[1] += cpu.step(theirs, other, inputs[:batch], targets[:batch])
        states = [
            {name: value for name, value in state.state_dict().items() if name != "method"}
            for state in (mine, other)
        ]
        off = [
            error(on_host(ours), theirs),
            error(states[0], states[1]),
            float(abs(losses[0] / losses[1] - 1.0)),
        ]
        return max(off) if np.isfinite(off).all() else float("inf")

    for batch in (1,) if cpu.SPEC["method"]["name"] == "esn" else batches:
        found[f"epoch, batch={batch}"] = attempted(lambda batch=batch: epoch(batch))
    if hasattr(cuda, "_online_steps") and len(batches) > 1:
        # Without cooperative launches there is a launch for each kernel.
        cuda._compiled = lambda arguments: (None, 0)
        found["epoch, batch=1, launch by launch"] = attempted(lambda: epoch(1))
    return found
