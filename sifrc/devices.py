"""Whether there is a CUDA device, asked of the driver alone.

Numba would say it too, and could then no longer begin as its simulator in this process.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

__all__ = ["why_no_device"]

_NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE."""


def why_no_device() -> str:
    """Why this process has no CUDA device; nothing where it has one.

    Example:
        >>> isinstance(why_no_device(), str)
        True
    """
    driver = _driver()
    if driver is None:
        return "there is no CUDA driver"
    count = ctypes.c_int(0)
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code not in (0, _NO_DEVICE):
        return f"the CUDA driver fails with code {code}"
    if code == 0 and count.value:
        return ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "the CUDA driver has none" + ("" if visible is None else f" (CUDA_VISIBLE_DEVICES is '{visible}')")


def _driver() -> Any:
    """The driver's library, where Numba looks for it too; None where there is none."""
    usual = ["nvcuda.dll"] if sys.platform == "win32" else ["libcuda.so", "libcuda.so.1"]
    for name in filter(None, [os.environ.get("NUMBA_CUDA_DRIVER"), *usual]):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
