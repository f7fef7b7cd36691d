"""CUDA modules in float32 against modules of another backend in float64, call by call.

What the other backend is off in float32 is beside it: where a system is badly conditioned, or a step moves
parameters by little more than their rounding, 1e-5 is not to be had in float32.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from gpu_machine import ROOT, Machine, Record, failure, within
from gpu_modules import wanted

__all__ = ["BOUND", "RANDOM", "cases", "compared"]

BOUND = 1e-5
"""Largest ‖out − ref‖ / ‖ref‖ in float32."""
_LIKE_OTHER = 10.0
"""Where the other backend is off by more than the bound too: how many times its error is allowed."""
RANDOM = ("mnist_esn", "method_ea_cg_sampled")
"""Draw numbers, which modules of Torch draw otherwise."""
_TIMED = ("online_", "entries", "summary_1", "summary_2")
_CALL = 90
"""Seconds that a call may take."""


def cases(dry: bool) -> list[str]:
    """Modules that are compared, those with most to compile first."""
    names = [name for name in wanted(dry) if not name.startswith(_TIMED)]
    long = ("digits_grouped", "summary_", "all_", "grouped", "method_grouped")
    return sorted(names, key=lambda name: not name.startswith(long))


def compared(machine: Machine, name: str) -> list[Record]:
    """A line for each call: what differs from the reference, and by how much."""
    full = name in ("products", "summary_0", "grouped", "ea_cg")
    count = 3 if machine.dry else 1000 if full else 40
    cuda = machine.module(name, "cuda")
    backend = "numba" if name in RANDOM else "torch"
    single = machine.module(name, backend)
    # Torch modules compute in the dtype of what they are given.
    reference = single if backend == "torch" else machine.module(name, backend, "float64")
    given = _data(cuda, count)
    wanted_results = _results(reference, given, np.float64, "cpu", _from_host)
    yardstick = _results(single, given, np.float32, machine.device, _from_host)
    found = _results(cuda, given, np.float32, "array", machine.array)
    records = [
        _judged(text, found.get(text), expected, yardstick.get(text))
        for text, expected in wanted_results.items()
        if text in found or text == ERROR
    ]
    errors = [
        value
        for key, value in found.items()
        if isinstance(value, BaseException) and key not in wanted_results
    ]
    records += [failure(error, what="calls") for error in errors]
    if not records:
        records = [{"what": "calls", "error": "there was nothing to compare"}]
    return records


ERROR = "calls"
Results = dict[str, Any]
"""Text of a call -> arrays on the host, or what was raised."""


def _judged(text: str, found: Any, expected: Any, single: Any) -> Record:
    if isinstance(expected, BaseException):
        return failure(expected, what=f"{text} (reference)")
    if isinstance(found, BaseException):
        return failure(found, what=text)
    record: Record = {"what": text, "off": _distance(found, expected)}
    if isinstance(single, list):
        record["other_off"] = _distance(single, expected)
    allowed = max(BOUND, _LIKE_OTHER * min(record.get("other_off", 0.0), 1.0))
    record["right"] = bool(record["off"] <= allowed)
    return record


def _distance(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """‖found − expected‖ / ‖expected‖ of all arrays of a result; infinite where shapes differ."""
    if [np.shape(a) for a in found] != [np.shape(b) for b in expected]:
        return float("inf")
    off, size = 0.0, 0.0
    for a, b in zip(found, expected, strict=True):
        wide = np.asarray(b, np.float64)
        off += float(np.sum((np.asarray(a, np.float64) - wide) ** 2))
        size += float(np.sum(wide**2))
    return float("inf") if not off >= 0.0 else (off / size) ** 0.5 if size else off**0.5


def _data(module: ModuleType, count: int) -> dict[str, Any]:
    """Parameters, a vector, inputs and targets in NumPy's arrays and float32."""
    rng = np.random.default_rng(7)
    shapes = module.SHAPES.items()
    params, vector = (
        {name: _normal(rng, shape) / np.float32(max(shape[-1], 4) ** 0.5) for name, shape in shapes}
        for _ in range(2)
    )
    size = module.SPEC["network"]["input"]["size"]
    inputs = _normal(rng, (count, *(size if isinstance(size, list | tuple) else (size,))))
    outputs = list(module.SHAPES.values())[-1][0]
    loss = module.SPEC["loss"]
    classes = loss.get("targets") == "classes" or loss.get("function") in ("cross_entropy", "bounded")
    targets = rng.integers(0, outputs, count) if classes else _normal(rng, (count, outputs))
    return {"params": params, "vector": vector, "inputs": inputs, "targets": targets}


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def _from_host(value: np.ndarray) -> np.ndarray:
    return value


def _results(
    module: ModuleType,
    given: Mapping[str, Any],
    dtype: type,
    place: str,
    own: Callable[[np.ndarray], Any],
) -> Results:
    """What the module computes with every sort of argument, and after some steps."""
    is_torch = hasattr(module, "torch")

    def put(value: np.ndarray) -> Any:
        cast = value.astype(dtype) if value.dtype.kind == "f" else value.copy()
        if not is_torch:
            return own(cast)
        import torch

        return torch.from_numpy(cast).to(place)

    found: Results = {}
    try:
        params, vector = ({k: put(v) for k, v in given[name].items()} for name in ("params", "vector"))
        inputs, targets = put(given["inputs"]), put(given["targets"])
        for text, call in _calls(module, params, inputs, targets, vector):
            found[text] = _attempted(call)
    except Exception as error:
        found[ERROR] = error
    if hasattr(module, "Optimizer"):
        found["steps"] = _attempted(lambda: _torch_steps(module, given, put))
    elif hasattr(module, "State"):
        found["steps"] = _attempted(lambda: _numba_steps(module, given, put))
    return found


def _calls(module: ModuleType, params: Any, inputs: Any, targets: Any, vector: Any) -> Any:
    sys.path.insert(0, str(ROOT / "tests" / "backends"))
    from operator_calls import Given, calls

    return calls(module, Given(params, inputs, targets, vector))


def _attempted(call: Callable[[], Any]) -> Any:
    """Arrays on the host, or what was raised."""
    try:
        with within(_CALL), np.errstate(all="ignore"):
            return _on_host(call())
    except Exception as error:
        return error


def _on_host(value: Any) -> list[np.ndarray]:
    """Arrays of a result, in its order."""
    if isinstance(value, Mapping):
        return [array for item in value.values() for array in _on_host(item)]
    if isinstance(value, tuple | list):
        return [array for item in value for array in _on_host(item)]
    if hasattr(value, "copy_to_host"):
        return [np.array(value.copy_to_host())]
    if hasattr(value, "detach"):
        return [value.detach().cpu().numpy()]
    return [np.asarray(value)] if isinstance(value, float | int | np.ndarray | np.generic) else []


def _batches(module: ModuleType, count: int) -> tuple[int, int]:
    """Samples of a step, and steps: one sample where a method takes no more."""
    method = module.SPEC["method"]
    if method["name"] in ("esn", "mk"):
        return 1, 4
    return count // 2 if count < 100 else count, 2


def _numba_steps(module: ModuleType, given: Mapping[str, Any], put: Callable[[Any], Any]) -> list[Any]:
    """How far parameters have gone after some steps of an epoch, and its loss."""
    batch, steps = _batches(module, len(given["inputs"]))
    params = {name: put(value) for name, value in given["params"].items()}
    order = np.arange(batch * steps) % len(given["inputs"])
    loss = module.train_epoch(
        params, module.State(params), put(given["inputs"]), put(given["targets"]), order, batch=batch
    )
    return _moved(params, given, float(loss))


def _torch_steps(module: ModuleType, given: Mapping[str, Any], put: Callable[[Any], Any]) -> list[Any]:
    """The same, step by step."""
    batch, steps = _batches(module, len(given["inputs"]))
    first = put(next(iter(given["params"].values())))
    model = module.Network(dtype=first.dtype, device=first.device)
    model.load_state_dict({name: put(value) for name, value in given["params"].items()})
    optimizer = module.Optimizer(model)
    inputs, targets = put(given["inputs"]), put(given["targets"])
    total = 0.0
    for start in range(0, batch * steps, batch):
        rows = (np.arange(start, start + batch) % len(inputs)).tolist()
        total += float(optimizer.step(inputs[rows], targets[rows]))
    return _moved(dict(model.named_parameters()), given, total / steps)


def _moved(params: Mapping[str, Any], given: Mapping[str, Any], loss: float) -> list[Any]:
    start = given["params"]
    now = {name: _on_host(params[name])[0].astype(np.float64) for name in start}
    return [*(now[name] - start[name] for name in start), loss]
