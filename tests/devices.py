"""Runs tests of Torch modules on the device that SIFRC_TEST_DEVICE names, as cuda; on the CPU by default.

Tests are written for the CPU. Here tensors that they make, and those that generated modules make on the CPU
by default, are made on the device, and what goes to NumPy comes from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["DEVICE", "enter"]

DEVICE = os.environ.get("SIFRC_TEST_DEVICE", "cpu")


def enter() -> Any:
    """Go to the device, where there is another one than the CPU; what it returns must be kept."""
    if DEVICE == "cpu":
        return None
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._device import _device_constructors

    device = torch.device(DEVICE)
    made = _device_constructors()
    to_numpy = (torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist)

    def moved(value: Any) -> Any:
        """The device for the CPU, what else there is unchanged."""
        named = isinstance(value, str | torch.device) and str(value) == "cpu"
        return device if named else value

    class OnDevice(TorchFunctionMode):
        """Calls of torch with the device in place of the CPU."""

        def __torch_function__(
            self,
            function: Callable[..., Any],
            types: Sequence[type],
            args: tuple[Any, ...] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            named = dict(kwargs or {})
            if function in to_numpy and args[0].device.type != "cpu":
                return function(args[0].detach().cpu(), *args[1:], **named)
            generator = named.get("generator")
            if function in made and generator is not None and generator.device.type == "cpu":
                # Numbers are those of the CPU's generator, on any device.
                return function(*args, **{**named, "device": "cpu"}).to(moved(named.get("device", "cpu")))
            if function in made:
                named["device"] = moved(named.get("device") or "cpu")
            elif "device" in named:
                named["device"] = moved(named["device"])
            if function is torch.Tensor.to:
                args = tuple(map(moved, args))
            return function(*args, **named)

    plain = torch.from_numpy
    torch.from_numpy = lambda array: plain(array).to(device)
    mode = OnDevice()
    mode.__enter__()
    return mode
