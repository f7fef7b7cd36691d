"""A torch module that is called and left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["restored"]


@contextmanager
def restored(module: torch.nn.Module) -> Iterator[None]:
    """Put the modes and the buffers of a module back at the end of the block, also after an error.

    Example:
        >>> import torch
        >>> norm = torch.nn.BatchNorm1d(2)
        >>> with restored(norm):
        ...     _ = norm(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        ...     _ = norm.eval()
        >>> norm.training, norm.running_mean
        (True, tensor([0., 0.]))
    """
    import torch

    modes = {part: part.training for part in module.modules()}
    kept = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
