"""A device in Python that does its worst: threads run one at a time, in an order drawn from wait to wait.

What a kernel reads before another thread has written it, it reads too early here: memory begins as NaN, and
a thread runs alone until it waits. Grids have several blocks, also cooperative ones, which Numba's simulator
lacks.
"""

from __future__ import annotations

import ast
import contextlib
import random
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from sifrc.simulation import device_math

__all__ = ["Deadlock", "loaded"]

BLOCKS = 3
"""Blocks of a cooperative grid."""
CAPTURING = 7
"""The stream of launches that become a graph."""


class Deadlock(RuntimeError):
    """Threads wait for others that never come."""


class DeviceArray:
    """An array on the device, as the host sees it: it cannot read the entries.

    Args:
        values: the memory.
    """

    recorded: ClassVar[list[Callable[[], None]] | None] = None
    """What a graph is made of, while one is made."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.shape, self.dtype, self.size, self.ndim = values.shape, values.dtype, values.size, values.ndim
        self.__cuda_array_interface__ = {"data": (values.ctypes.data, False)}

    def __len__(self) -> int:
        """Of the first axis."""
        return len(self.values)

    def __getitem__(self, index: Any) -> DeviceArray:
        """A part of it."""
        return DeviceArray(self.values[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        """Overwrite a part."""
        _not_in_a_graph()
        self.values[index] = value

    def reshape(self, *shape: Any) -> DeviceArray:
        """The same memory."""
        made = self.values.reshape(*shape)
        assert np.shares_memory(made, self.values) or not self.size
        return DeviceArray(made)

    def copy_to_host(self, stream: int = 0) -> Any:
        """A copy of NumPy."""
        _not_in_a_graph()
        return np.array(self.values)

    def copy_to_device(self, values: Any, stream: int = 0) -> None:
        """Overwrite it."""
        given = values.values if isinstance(values, DeviceArray) else values
        if np.shape(given) != self.shape:
            raise ValueError(f"shape {np.shape(given)} into {self.shape}")
        if not isinstance(values, DeviceArray):
            _not_in_a_graph()
        launched(lambda: np.copyto(self.values, given), stream)

    def is_c_contiguous(self) -> bool:
        """Whether it lies in memory in one piece."""
        return bool(self.values.flags.c_contiguous)


def launched(work: Callable[[], Any], stream: int) -> None:
    """Do what is launched, or keep it for the graph that is being made."""
    if DeviceArray.recorded is None:
        work()
    elif stream != CAPTURING:
        raise RuntimeError("a launch on another stream, of which no graph is made")
    else:
        DeviceArray.recorded.append(work)


def _not_in_a_graph() -> None:
    if DeviceArray.recorded is not None:
        raise RuntimeError("the host has a part in what a graph is made of")


def on_device(values: Any, stream: int = 0) -> DeviceArray:
    """A copy on the device."""
    _not_in_a_graph()
    return DeviceArray(np.array(values))


def device_array(shape: Any, dtype: Any = np.float64) -> DeviceArray:
    """Memory that nobody has written."""
    _not_in_a_graph()
    return unwritten(shape, dtype)


def unwritten(shape: Any, dtype: Any) -> DeviceArray:
    """The same, also in a graph."""
    made = np.empty(shape, dtype)
    made.fill(np.nan if made.dtype.kind == "f" else -(2**40))
    return DeviceArray(made)


def _in_kernel(value: Any) -> Any:
    """An argument as kernels see it."""
    if isinstance(value, tuple):
        return tuple(map(_in_kernel, value))
    return value.values if isinstance(value, DeviceArray) else value


@dataclass
class Place:
    """Where a thread is."""

    block: tuple[int, int, int]
    thread: tuple[int, int, int]
    grid: tuple[int, int, int]
    threads: tuple[int, int, int]
    shared: Any
    run: Run | None = None
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    state: str = "ready"


class Axes:
    """``threadIdx`` and the like."""

    def __init__(self, values: Callable[[], tuple[int, int, int]]) -> None:
        self._values = values

    x = property(lambda self: self._values()[0])
    y = property(lambda self: self._values()[1])
    z = property(lambda self: self._values()[2])


class Run:
    """A launch whose threads wait for each other."""

    def __init__(self, places: Sequence[Place], rng: random.Random) -> None:
        self.places = places
        self.rng = rng
        self.back = threading.Semaphore(0)
        self.error: BaseException | None = None

    def work(self, place: Place, call: Callable[[], Any], here: threading.local) -> None:
        """What one thread does."""
        place.turn.acquire()
        here.place = place
        try:
            if self.error is None:
                with np.errstate(all="ignore"):
                    call()
        except BaseException as error:
            self.error = self.error or error
        place.state = "done"
        self.back.release()

    def wait(self, place: Place, state: str) -> None:
        """Let others go on."""
        place.state = state
        self.back.release()
        place.turn.acquire()
        if self.error is not None:
            raise self.error

    def go(self, call: Callable[[], Any], here: threading.local) -> None:
        """Run all threads to their end."""
        workers = [threading.Thread(target=self.work, args=(p, call, here), daemon=True) for p in self.places]
        for worker in workers:
            worker.start()
        while any(place.state != "done" for place in self.places):
            ready = [place for place in self.places if place.state == "ready"]
            if not ready or self.error is not None:
                self.error = self.error or Deadlock(
                    "threads wait for others that have ended, or wait elsewhere"
                )
                ready = [place for place in self.places if place.state != "done"]
            place = self.rng.choice(ready)
            place.turn.release()
            self.back.acquire()
            self._meet()
        for worker in workers:
            worker.join()
        if self.error is not None:
            raise self.error

    def _meet(self) -> None:
        """Those who are all there go on."""
        if all(place.state == "grid" for place in self.places):
            for place in self.places:
                place.state = "ready"
        for block in {place.block for place in self.places}:
            own = [place for place in self.places if place.block == block]
            if all(place.state == "block" for place in own):
                for place in own:
                    place.state = "ready"


class Kernel:
    """A function for the device."""

    def __init__(self, function: Callable[..., Any], device: Device) -> None:
        self.fn, self.device = function, device
        self.__name__ = function.__name__
        self.overloads = {0: self}

    def __call__(self, *arguments: Any) -> Any:
        """Called by a kernel."""
        return self.fn(*arguments)

    def specialize(self, *arguments: Any) -> Kernel:
        """Compiled."""
        return self

    def max_cooperative_grid_blocks(self, threads: int, shared: int) -> int:
        """As many as the device runs together."""
        return BLOCKS

    def __getitem__(self, config: Any) -> Callable[..., None]:
        """A launch: blocks, threads, stream, bytes of shared memory."""
        grid, threads, stream, shared = (*config, 0, 0)[:4]

        def launch(*arguments: Any) -> None:
            given = tuple(map(_in_kernel, arguments))
            sizes = _three(grid), _three(threads), shared
            launched(lambda: self.device.launch(self, *sizes, given), stream)

        return launch


class Device:
    """What modules import as ``cuda``."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.here = threading.local()
        self.waiting: frozenset[str] = frozenset()
        self.to_device, self.device_array = on_device, device_array
        self.external_stream, self.defer_cleanup = int, contextlib.nullcontext
        self.blockIdx = Axes(lambda: self.here.place.block)
        self.threadIdx = Axes(lambda: self.here.place.thread)
        self.gridDim = Axes(lambda: self.here.place.grid)
        self.blockDim = Axes(lambda: self.here.place.threads)
        self.shared = types.SimpleNamespace(array=lambda size, dtype: self.here.place.shared.view(dtype))
        self.atomic = types.SimpleNamespace(min=self._minimum)
        self.cg = types.SimpleNamespace(
            this_grid=lambda: types.SimpleNamespace(sync=lambda: self._wait("grid"))
        )

    def jit(self, **options: Any) -> Callable[[Callable[..., Any]], Kernel]:
        """The decorator."""
        return lambda function: Kernel(function, self)

    def get_current_device(self) -> Any:
        """A device with everything."""
        return types.SimpleNamespace(COOPERATIVE_LAUNCH=True, id=0)

    def as_cuda_array(self, values: Any) -> Any:
        """The memory of another library."""
        return values if isinstance(values, DeviceArray) else DeviceArray(values.memory)

    def grid(self, dimensions: int) -> int:
        """Number of a thread."""
        return self.blockIdx.x * self.blockDim.x + self.threadIdx.x

    def gridsize(self, dimensions: int) -> int:
        """Number of threads."""
        return self.gridDim.x * self.blockDim.x

    def syncthreads(self) -> None:
        """Wait for the threads of the block."""
        self._wait("block")

    def _wait(self, state: str) -> None:
        place = self.here.place
        if place.run is None:
            raise Deadlock("a kernel waits that was taken for one without waits")
        place.run.wait(place, state)

    def _minimum(self, array: Any, index: int, value: Any) -> None:
        array[index] = min(array[index], value)

    def launch(self, kernel: Kernel, grid: Any, threads: Any, shared: int, arguments: Any) -> None:
        """All threads of a kernel."""
        places = list(_places(grid, threads, shared))
        self.rng.shuffle(places)
        if kernel.__name__ in self.waiting:
            run = Run(places, self.rng)
            for place in places:
                place.run = run
            run.go(lambda: kernel.fn(*arguments), self.here)
            return
        for place in places:
            self.here.place = place
            kernel.fn(*arguments)


def _three(size: Any) -> tuple[int, int, int]:
    own = size if isinstance(size, tuple) else (size,)
    first, second, third = (*(int(n) for n in own), 1, 1)[:3]
    return first, second, third


def _places(grid: tuple[int, int, int], threads: tuple[int, int, int], shared: int) -> Iterator[Place]:
    for block in np.ndindex(*grid):
        memory = np.full(shared, 0xFF, np.uint8)  # NaN in every floating type
        for thread in np.ndindex(*threads):
            yield Place(block, thread, grid, threads, memory)  # type: ignore[arg-type]


def _waiting(tree: ast.Module) -> frozenset[str]:
    """Functions in which threads wait, or that call one."""
    calls: dict[str, set[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            called = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
            calls[node.name] = {f.id if isinstance(f, ast.Name) else getattr(f, "attr", "") for f in called}
    found = {name for name, own in calls.items() if own & {"syncthreads", "sync"}}
    while more := {name for name, own in calls.items() if own & found} - found:
        found |= more
    return frozenset(found)


def loaded(text: str, seed: int = 0) -> Any:
    """A CUDA module on such a device, with blocks of two threads.

    Args:
        text: of the module.
        seed: of the order in which threads run.
    """
    tree = ast.parse(text)
    device = Device(seed)
    device.waiting = _waiting(tree)
    numba = types.SimpleNamespace(
        from_dtype=lambda dtype: dtype, float64=np.float64, config=types.SimpleNamespace(ENABLE_CUDASIM=False)
    )
    tree.body = [node for node in tree.body if not _imports_numba(node)]
    module = types.ModuleType("on_device")
    vars(module).update({"cuda": device, "numba": numba, "njit": lambda **options: lambda function: function})
    exec(compile(tree, "on_device", "exec"), module.__dict__)
    vars(module).update({"BLOCK": 2, "MOST_BLOCKS": BLOCKS, "TILE": 2, "THREADS": 4, "math": device_math()})
    return module


def _imports_numba(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import):
        return node.names[0].name == "numba"
    return isinstance(node, ast.ImportFrom) and node.module == "numba"
