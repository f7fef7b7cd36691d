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
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cuda_comparison import compared, trained

from sifrc.simulation import device_math


@cache
def waits(function: Any) -> bool:
    """Whether threads of the kernel wait for each other: only then they must take turns often."""
    return any(word in inspect.getsource(function) for word in ("syncthreads", "scratch", "space"))


def taking_turns() -> None:
    """Make the simulator let a thread go on where nobody waits for it."""
    from numba.cuda.simulator.kernel import FakeCUDAKernel

    run = FakeCUDAKernel.__call__

    def call(kernel: Any, *arguments: Any) -> Any:
        sys.setswitchinterval(1e-4 if waits(kernel.fn) else 5e-3)
        return run(kernel, *arguments)

    FakeCUDAKernel.__call__ = call  # type: ignore[method-assign]


def load(name: str) -> Any:
    """A module; one for CUDA with blocks as small as can be."""
    module = importlib.import_module(name)
    if name.endswith("_cuda"):
        module.BLOCK, module.MOST_BLOCKS, module.TILE, module.THREADS = 2, 2, 2, 2
        module.math = device_math()
    return module


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
