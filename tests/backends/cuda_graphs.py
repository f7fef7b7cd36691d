"""torch as CUDA modules use it, without a device: graphs keep what is launched, and replay it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import cuda_device
from cuda_device import DeviceArray, launched, unwritten

__all__ = ["Torch"]


class Graph:
    """What has been captured."""

    def __init__(self, torch: Torch) -> None:
        self.torch = torch
        self.work: list[Callable[[], None]] = []

    def replay(self) -> None:
        """All launches again."""
        self.torch.replays += 1
        for one in self.work:
            one()


class Torch:
    """The part of torch that modules use, in memory that it shares with the device; the rest is torch itself.

    Args:
        torch: the library.
    """

    __name__ = "torch"

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.graphs = self.replays = 0
        self.cuda = SimpleNamespace(
            CUDAGraph=lambda: Graph(self),
            graph=self._captured,
            is_current_stream_capturing=lambda: DeviceArray.recorded is not None,
            current_stream=lambda: SimpleNamespace(cuda_stream=self._stream()),
        )

    def __getattr__(self, name: str) -> Any:
        """Of the library."""
        return getattr(self.torch, name)

    def empty(self, shape: Any, dtype: Any, device: str) -> DeviceArray:
        """Memory that nobody has written."""
        return unwritten(shape, str(dtype).removeprefix("torch."))

    def baddbmm(self, *operands: Any, **options: Any) -> None:
        """A launch too."""
        launched(lambda: self.torch.baddbmm(*operands, **options), self._stream())

    def given_to(self, module: Any) -> Any:
        """The module, which finds this library."""
        module._library = lambda: self
        module._view = lambda array: self.torch.from_numpy(array.values)
        return module

    def _stream(self) -> int:
        return 0 if DeviceArray.recorded is None else cuda_device.CAPTURING

    @contextlib.contextmanager
    def _captured(self, graph: Graph, capture_error_mode: str) -> Iterator[None]:
        self.graphs += 1
        DeviceArray.recorded = graph.work
        try:
            yield
        finally:
            DeviceArray.recorded = None
