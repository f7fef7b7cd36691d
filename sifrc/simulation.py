"""Where CUDA modules run in this process: on a device, or in Numba's simulator.

Numba decides that when ``numba.cuda`` is imported, once for a process. In the simulator a thread of the
device is a thread of Python, so that modules are for checks there, and must be launched with few threads.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import sys
import types
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sifrc.devices import why_no_device
from sifrc.errors import BackendError
from sifrc.extras import MissingFramework, installing, optional

__all__ = [
    "VARIABLE",
    "MissingDevice",
    "SimulationWarning",
    "device_math",
    "is_simulated",
    "needs_device",
    "prepare",
]

VARIABLE = "NUMBA_ENABLE_CUDASIM"
"""Environment variable that makes ``numba.cuda`` the simulator, where it is set before the import."""

_NUMBA = "numba.cuda"
_LAUNCHES = ("BLOCK", "MOST_BLOCKS", "TILE", "THREADS")
"""Constants of modules that say how many threads and blocks there are at most."""
_FEW = 2
"""Of a block and of blocks: enough that threads meet, and blocks do not."""
_TURN = 1e-4
"""Seconds after which another thread goes on. Threads that wait for each other are asked all the time
whether they do, so that Python's own 5 ms are several times slower; far less is slower too."""
_OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        **{name: f"arc{name[1:]}" for name in ("acos", "acosh", "asin", "asinh", "atan", "atanh")},
        "atan2": "arctan2",
        "pow": "power",
    }
)
"""Functions of ``math`` that have another name in NumPy."""
_WHOLE = frozenset(("ceil", "floor", "trunc"))
"""Functions that give whole numbers in ``math``, and not in NumPy."""


class MissingDevice(BackendError):
    """There is no CUDA device to run a module on."""


class SimulationWarning(UserWarning):
    """CUDA modules run in Numba's simulator."""


def is_simulated() -> bool:
    """Whether ``numba.cuda`` is the simulator in this process, as far as it is decided yet.

    Example:
        >>> is_simulated()
        False
    """
    loaded = sys.modules.get(_NUMBA)
    return loaded is not None and loaded.jit.__module__.startswith(f"{_NUMBA}.simulator")


def needs_device(user: str, *, otherwise_simulated: bool = False) -> bool:
    """Make sure that CUDA modules can run in this process.

    Args:
        user: what needs it, for the error.
        otherwise_simulated: begin the simulator where there is no device, and it is not too late for that.

    Returns:
        Whether they run in the simulator, for which each has to be prepared.

    Raises:
        MissingDevice: there is no device, nor the simulator.
        MissingFramework: Numba is missing, or cannot use the device.
    """
    loaded = _NUMBA in sys.modules
    if not loaded and os.environ.get(VARIABLE, "0") not in ("", "0"):
        _begin(user)
    if not is_simulated():
        reason = why_no_device()
        if not reason:
            _check_numba(user)
            return False
        if loaded or not otherwise_simulated:
            raise _no_device(user, reason, late=loaded and otherwise_simulated)
        _begin(user)
    return True


def prepare(module: Any, user: str) -> None:
    """Let a CUDA module run in the simulator: with few threads, and with the device's arithmetic.

    What is no number is a result on the device, and no error or warning as in Python. This stays for the
    rest of the process, as the simulator does. A warning says that it is the simulator.

    Args:
        module: generated; what it does not have is left out.
        user: what runs it, for the warning.

    Example:
        >>> module = types.ModuleType("made")
        >>> module.math, module.BLOCK = math, 128
        >>> before = sys.getswitchinterval()
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     prepare(module, "an example")
        ...     module.BLOCK, float(module.math.log(0.0)), module.math.pi == math.pi
        (2, -inf, True)
        >>> sys.setswitchinterval(before)
    """
    for name in _LAUNCHES:
        if hasattr(module, name):
            setattr(module, name, _FEW)
    if getattr(module, "math", None) is math:
        module.math = device_math()
    sys.setswitchinterval(_TURN)
    # Threads of the simulator do not know numpy.errstate of the thread that starts them.
    where = re.escape(module.__name__) + r"\Z"
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=where)
    text = f"{user} runs in Numba's simulator and on no CUDA device: slow, for checks alone"
    warnings.warn(text, SimulationWarning, stacklevel=2)


def device_math() -> Any:
    """The functions of ``math`` as the device has them: infinity and NaN where Python raises."""
    import numpy as np

    made = types.SimpleNamespace(**{name: getattr(math, name) for name in dir(math)})
    for name in sorted(set(vars(made)) - _WHOLE):
        function = getattr(np, _OTHER_NAMES.get(name, name), None)
        if isinstance(function, np.ufunc):
            setattr(made, name, function)
    return made


def _begin(user: str) -> None:
    """Import ``numba.cuda`` as the simulator."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    if "numba" in sys.modules:  # it has read the environment
        sys.modules["numba"].config.ENABLE_CUDASIM = 1
    try:
        optional(_NUMBA, user, MissingFramework)
    except MissingFramework:
        del os.environ[VARIABLE]
        if before is not None:
            os.environ[VARIABLE] = before
        raise


def _check_numba(user: str) -> None:
    """Whether Numba can use the device that is there."""
    cuda = optional(_NUMBA, user, MissingFramework)
    if cuda.is_available():
        return
    if importlib.util.find_spec("numba_cuda") is None:
        raise MissingFramework(f"{user} needs numba-cuda, which is not installed", hint=installing(_NUMBA))
    reason = " ".join(str(cuda.cuda_error() or "a library of CUDA is missing").split())
    raise MissingFramework(
        f"{user} needs Numba for CUDA, which cannot use the device: {reason}",
        hint=f"is it complete? {installing(_NUMBA)}",
    )


def _no_device(user: str, reason: str, late: bool) -> MissingDevice:
    if late:
        return MissingDevice(
            f"{user} found no CUDA device ({reason}), and it is too late for Numba's simulator: "
            f"{_NUMBA} is imported already",
            hint=f"a new process, with {VARIABLE}=1 set before Python starts",
        )
    return MissingDevice(
        f"{user} needs a CUDA device, and none was found: {reason}",
        hint=f"a machine with one, and {installing(_NUMBA)}. "
        f"{VARIABLE}=1, set before Python starts, names Numba's simulator: slow, for checks",
    )
