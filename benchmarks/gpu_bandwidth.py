"""Kernels of entries in the forward and the backward pass: bytes a second, beside a copy on the device.

Bytes are those of the arrays that a kernel takes, each once; one that is read and written counts once too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from gpu_machine import Machine, Record

__all__ = ["entries"]

_LARGEST = 6
"""Kernels that are shown."""


@dataclass(frozen=True)
class Launch:
    """A kernel that was launched.

    Args:
        name: of its function.
        size: bytes of the arrays that it takes.
        largest: bytes of the largest of them.
        again: launches it once more.
    """

    name: str
    size: int
    largest: int
    again: Callable[[], object]


def entries(machine: Machine) -> list[Record]:
    """A copy on the device, and the kernels of a gradient that go through the most bytes."""
    batch = 4 if machine.dry else 65536
    rng = np.random.default_rng(0)
    module = machine.module("entries", "cuda")
    params = machine.arrays(
        {
            name: (rng.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)
            for name, shape in module.SHAPES.items()
        }
    )
    width = module.SPEC["network"]["layers"][0]["units"]
    inputs = machine.array(rng.standard_normal((batch, module.SHAPES["fc1.weight"][1])).astype(np.float32))
    targets = machine.array(rng.integers(0, 3, batch))
    whole = 4 * batch * width
    copied = _copy_rate(machine, whole)
    records: list[Record] = [
        {
            "what": "copy on the device",
            "seconds": 2 * whole / copied,
            "bytes_second": copied,
            "note": f"{copied / 1e9:.0f} GB/s",
        }
    ]
    module.gradient(params, inputs, targets)
    launches: list[Launch] = []
    with _recorded(machine, module, launches):
        module.gradient(params, inputs, targets)
    machine.synchronize()
    wide = [launch for launch in launches if launch.largest >= whole]
    plain = [launch for launch in wide if not any(word in launch.name for word in _PRODUCTS)]
    if not plain:
        seen = ", ".join(dict.fromkeys(launch.name for launch in launches)) or "none"
        return [*records, {"what": "kernels", "error": f"no kernel of so many entries among: {seen}"}]
    plain.sort(key=lambda launch: -launch.size)
    for launch in plain[:_LARGEST]:
        seconds = _seconds(machine, launch.again)
        rate = launch.size / seconds
        records.append(
            {
                "what": f"{launch.name}, {launch.size / whole:.2f} arrays",
                "seconds": seconds,
                "bytes_second": rate,
                "note": f"{rate / 1e9:.0f} GB/s, {100 * rate / copied:.0f} % of a copy",
            }
        )
    return records


_PRODUCTS = ("tiled", "contract", "product", "gemm", "matmul")
"""Words in names of kernels that multiply matrices."""


def _copy_rate(machine: Machine, size: int) -> float:
    """Bytes a second that a copy reads and writes."""
    import torch

    source = torch.rand(size // 4, device=machine.device)
    target = torch.empty_like(source)
    return 2 * size / _seconds(machine, lambda: target.copy_(source))


def _seconds(machine: Machine, run: Callable[[], object], repeat: int = 20) -> float:
    """Median time of one of several runs in a row."""
    found = []
    for _ in range(1 if machine.dry else 7):
        run()
        machine.synchronize()
        start = time.perf_counter()
        for _ in range(repeat):
            run()
        machine.synchronize()
        found.append((time.perf_counter() - start) / repeat)
    return statistics.median(found)


@contextmanager
def _recorded(machine: Machine, module: ModuleType, launches: list[Launch]) -> Iterator[None]:
    """Note every launch of a kernel of Numba."""
    owner, method, name_of = _simulator() if machine.dry else _compiled(module)
    plain = getattr(owner, method)

    def launch(kernel: Any, *arguments: Any, **named: Any) -> Any:
        # The arrays are arguments of their own in the simulator, and one tuple elsewhere.
        arrays = arguments if machine.dry else arguments[0]
        sizes = [
            array.size * array.dtype.itemsize for array in arrays if hasattr(array, "dtype") and array.ndim
        ]

        def again() -> object:
            return plain(kernel, *arguments, **named)

        launches.append(Launch(name_of(kernel), sum(sizes), max(sizes, default=0), again))
        return again()

    setattr(owner, method, launch)
    try:
        yield
    finally:
        setattr(owner, method, plain)


def _simulator() -> tuple[Any, str, Callable[[Any], str]]:
    from numba.cuda.simulator.kernel import FakeCUDAKernel

    return FakeCUDAKernel, "__call__", lambda kernel: str(kernel.fn.__name__)


def _compiled(module: ModuleType) -> tuple[Any, str, Callable[[Any], str]]:
    from numba.cuda import dispatcher

    # Names in the compiled kernel are mangled: the longest name of the module that is in there.
    known = sorted((name for name in vars(module) if name.startswith("_")), key=len, reverse=True)

    def name_of(kernel: Any) -> str:
        mangled = str(getattr(kernel, "entry_name", kernel))
        return next((name for name in known if name in mangled), mangled)

    return dispatcher._Kernel, "launch", name_of
