"""Level 3 on CUDA modules: on a device, or in Numba's simulator, where networks must be small."""

from __future__ import annotations

from math import prod
from typing import Any

from sifrc.errors import VerificationError
from sifrc.simulation import needs_device, prepare
from sifrc.spec.types import Spec
from sifrc.verify.points import parameter_count

__all__ = ["MOST", "find_device", "made_ready"]

MOST = 500
"""Parameters, and entries of all states of a sample, that are simulated: about a minute."""
_USER = "verifying a CUDA module"


def find_device(spec: Spec) -> bool:
    """Find out where a CUDA module for a spec will run, before it is imported.

    Args:
        spec: of the network.

    Returns:
        Whether that is the simulator, which begins where there is no device.

    Raises:
        MissingDevice: there is no device, and it is too late for the simulator.
        VerificationError: the network is too large for the simulator.
    """
    if not needs_device(_USER, otherwise_simulated=True):
        return False
    parameters, entries = parameter_count(spec), sum(map(prod, spec.shapes.values()))
    for count, what in ((parameters, "parameters"), (entries, "entries of states")):
        if count > MOST:
            raise VerificationError(
                f"the network has {count:,} {what}, and in Numba's simulator at most {MOST} are verified",
                hint="a CUDA device; or smaller layers with the same functions; or levels 1 and 2 alone, "
                "which check the program that every backend prints",
            )
    return True


def made_ready(spec: Spec, module: Any) -> None:
    """Make sure that a module can run; one for CUDA needs a device, or is prepared for the simulator.

    Raises:
        SifrcError: see :func:`find_device`.
    """
    from sifrc.verify.subjects.module import framework_of  # imports torch

    if framework_of(module) == "cuda" and find_device(spec):
        prepare(module, _USER)
