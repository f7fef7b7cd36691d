"""The Numba backend for the CPU (name ``numba``)."""

from sifrc.backends.numba_cpu.backend import BACKEND, NumbaBackend

__all__ = ["BACKEND", "NumbaBackend"]
