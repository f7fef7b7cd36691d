"""Records the types of the arguments of every kernel of CUDA modules, in Numba's simulator; its own process.

    python cuda_recorded.py FOLDER NAME...

Modules are files of the folder. What is printed, as JSON, is for each module and each of its kernels a list
of signatures, empty for a kernel that nothing launches. Numba's environment says that there is a simulator,
and no JIT. Grids are as small as can be: of what is computed, only what is launched next is of interest.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from functools import cache
from typing import Any

import numpy as np
from cuda_comparison import data
from operator_calls import Given, calls

from sifrc.simulation import device_math

__all__ = ["Found", "Signatures", "recorded", "recording", "type_of"]

Signatures = dict[str, list[Any]]
"""Kernel -> its signatures, each a list of types as ``type_of`` gives them."""
Found = dict[Any, dict[str, None]]
"""Kernel -> its signatures, as text."""

LARGE = 30_000
"""Entries of an array that are too many for a simulator: a kernel that is given one is not run."""
SAMPLES = 3
"""Samples of an epoch: batches of two leave one."""


def type_of(value: Any) -> Any:
    """An argument's type for Numba, as JSON: a name, a list for a tuple, or a dict for an array.

    >>> type_of((1, np.float32(2.0), np.zeros((3, 4)).T))
    ['int64', 'float32', {'dtype': 'float64', 'ndim': 2, 'layout': 'F'}]
    """
    if hasattr(value, "copy_to_host") or isinstance(value, np.ndarray):
        flags = value.flags
        layout = "C" if flags["C_CONTIGUOUS"] else "F" if flags["F_CONTIGUOUS"] else "A"
        return {"dtype": str(value.dtype), "ndim": value.ndim, "layout": layout}
    if isinstance(value, tuple):
        return [type_of(item) for item in value]
    if isinstance(value, np.generic):
        return str(value.dtype)
    return {bool: "bool", int: "int64", float: "float64", type(None): "none"}[type(value)]


@cache
def strides(function: Any) -> bool:
    """Whether any grid computes all entries: the kernel goes on by the size of the grid."""
    text = inspect.getsource(function)
    return "gridsize" in text or "gridDim" in text


def recording(found: Found) -> None:
    """Make the simulator keep the signatures of kernels in ``found``, and run small blocks fast."""
    from numba import cuda
    from numba.cuda.simulator import kernel as simulator

    launch, manager = simulator.FakeCUDAKernel.__call__, simulator.BlockManager

    class Block(manager):  # type: ignore[misc, valid-type]
        """A block; where it has one thread, that never waits."""

        def run(self, position: tuple[int, ...], *arguments: Any) -> None:
            if any(size != 1 for size in self._block_dim):
                super().run(position, *arguments)
                return
            origin = (0, 0, 0)
            thread = simulator.BlockThread(lambda: self._f(*arguments), self, position, origin, self._debug)
            thread.syncthreads = lambda: None
            thread.start()
            thread.join()
            if thread.exception:
                raise thread.exception[0].with_traceback(thread.exception[1])

    def call(kernel: Any, *arguments: Any) -> None:
        if not kernel._device:
            found.setdefault(kernel, {})[json.dumps([type_of(value) for value in arguments])] = None
            if any(getattr(value, "size", 0) > LARGE for value in arguments):
                return None
            if strides(kernel.fn):
                kernel.grid_dim = (1, 1, 1)
        return launch(kernel, *arguments)

    new = cuda.device_array

    def zeros(*arguments: Any, **more: Any) -> Any:
        made = new(*arguments, **more)
        made[:] = 0
        return made

    simulator.FakeCUDAKernel.__call__ = call
    simulator.BlockManager = Block
    # Arrays of NumPy are many times as fast in loops as those that stand for arrays of the device.
    simulator.FakeWithinKernelCUDAArray = lambda array: array._ary
    # Results of kernels that are not run are finite.
    cuda.device_array = zeros


def used(module: Any) -> None:
    """Call every operator; a step and an epoch of each batch size."""
    from numba import cuda

    _, inputs, targets, vector = data(module, SAMPLES)
    params = module.init(0)
    for _, call in calls(module, Given(params, inputs[:2], targets[:2], vector)):
        call()
    if not hasattr(module, "State"):
        return
    for batch in (1, 2, 1):
        ours = {name: cuda.to_device(value) for name, value in params.items()}
        state = module.State(ours)
        module.train_epoch(ours, state, inputs, targets, np.arange(SAMPLES), batch=batch)
        module.step(ours, state, inputs[:batch], targets[:batch])
        # Then as where the device has no cooperative launches.
        module._compiled = lambda arguments: (None, 0)


def recorded(name: str, found: Found) -> Signatures:
    """Signatures of the kernels of a module."""
    from numba.cuda.simulator.kernel import FakeCUDAKernel

    module = importlib.import_module(name)
    # A batch of two is more than the rows that are taken at a time.
    for own in ("BLOCK", "MOST_BLOCKS", "TILE", "THREADS", "_ROWS"):
        if hasattr(module, own):
            setattr(module, own, 1)
    module.math = device_math()
    with np.errstate(all="ignore"):
        used(module)
    kernels = {
        own: value
        for own, value in vars(module).items()
        if isinstance(value, FakeCUDAKernel) and not value._device
    }
    return {own: [json.loads(text) for text in found.get(value, ())] for own, value in kernels.items()}


def main(folder: str, *names: str) -> None:
    """Print what is recorded of the modules."""
    sys.path.insert(0, folder)
    found: Found = {}
    recording(found)
    print(json.dumps({name: recorded(name, found) for name in names}))


if __name__ == "__main__":
    main(*sys.argv[1:])
