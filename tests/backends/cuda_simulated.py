"""Runs CUDA modules in Numba's simulator, beside the same modules for the CPU; a process of its own.

    python cuda_simulated.py FOLDER

The folder has ``jobs.json``, a list of names; ``<name>_cpu.py`` and ``<name>_cuda.py`` are compared. What is
printed, as JSON, is the largest relative error of each call of each module, or the error that it raised.
Numba's environment says that there is a simulator, and no JIT.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from operator_calls import Given, arrays_in, calls

BATCH = 5
_LEAST = 1e-3
"""Size below which an array is compared as if it had this size."""


def functions() -> Any:
    """The functions of ``math`` as the device has them: infinity and NaN where Python raises."""
    names = {"atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh"}
    plain = ("exp", "log", "log1p", "expm1", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "isfinite")
    made = types.SimpleNamespace(**{name: getattr(math, name) for name in dir(math)})
    for name in (*plain, *names):
        setattr(made, name, getattr(np, names.get(name, name)))
    return made


@cache
def waits(function: Any) -> bool:
    """Whether threads of the kernel wait for each other: only then they must take turns often."""
    return "syncthreads" in inspect.getsource(function)


def taking_turns() -> None:
    """Make the simulator let a thread go on where nobody waits for it."""
    from numba.cuda.simulator.kernel import FakeCUDAKernel

    run = FakeCUDAKernel.__call__

    def call(kernel: Any, *arguments: Any) -> Any:
        sys.setswitchinterval(1e-5 if waits(kernel.fn) else 5e-3)
        return run(kernel, *arguments)

    FakeCUDAKernel.__call__ = call  # type: ignore[method-assign]


def load(name: str) -> Any:
    """A module; one for CUDA with blocks as small as can be."""
    module = importlib.import_module(name)
    if name.endswith("_cuda"):
        module.BLOCK, module.MOST_BLOCKS, module.TILE = 2, 2, 2
        module.math = functions()
    return module


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
    classes = loss.get("targets") == "classes" or loss.get("function") in ("cross_entropy", "bounded")
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


def attempted(work: Any) -> float | str:
    """The error as a number, or what was raised."""
    try:
        return float(work())
    except Exception as raised:
        return f"{type(raised).__name__}: {raised}"


def trained(cpu: Any, cuda: Any) -> dict[str, float | str]:
    """Parameters and state after an epoch of each batch size, and a step."""
    from numba import cuda as device

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
        return max(
            error(on_host(ours), theirs), error(states[0], states[1]), abs(losses[0] / losses[1] - 1.0)
        )

    for batch in (1,) if cpu.SPEC["method"]["name"] == "esn" else (1, 3):
        found[f"epoch, batch={batch}"] = attempted(lambda batch=batch: epoch(batch))
    if hasattr(cuda, "_online_steps"):
        # Without cooperative launches there is a launch for each kernel.
        cuda._compiled = lambda arguments: (None, 0)
        found["epoch, batch=1, launch by launch"] = attempted(lambda: epoch(1))
    return found


def main(folder: str) -> None:
    """Print the errors of all jobs."""
    sys.path.insert(0, folder)
    taking_turns()
    results = {}
    for name in json.loads((Path(folder) / "jobs.json").read_text()):
        cpu, cuda = load(f"{name}_cpu"), load(f"{name}_cuda")
        with np.errstate(all="ignore"):
            results[name] = (trained if hasattr(cpu, "State") else compared)(cpu, cuda)
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
