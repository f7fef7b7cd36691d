"""The optimizer of a generated module: its compiled loops over samples and batches, and its state."""

from __future__ import annotations

from typing import Any

from sifrc.backends.layout import lines_of
from sifrc.backends.numba_cpu.functions import DECORATOR, PrivateFunction
from sifrc.backends.numba_cpu.nests import indented
from sifrc.backends.numba_cpu.parts import STATES, TARGETS, Parts
from sifrc.backends.numba_cpu.storage import Group, is_scalar
from sifrc.errors import BackendError

__all__ = ["step_context"]
