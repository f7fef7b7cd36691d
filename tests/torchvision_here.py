"""torchvision, also where its own operators were built for another torch: no test needs them."""

from __future__ import annotations

import importlib.util

import torch

__all__ = ["torchvision_loads"]

_KEPT: list[object] = []
"""What lives as long as the process: operators go with their library."""


def torchvision_loads() -> bool:
    """Whether it can be imported; other libraries do so by themselves where it is installed."""
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
        import torchvision  # noqa: F401
    return True
