"""The Numba backend for CUDA (name ``cuda``)."""

from sifrc.backends.numba_cuda.backend import BACKEND, CudaBackend

__all__ = ["BACKEND", "CudaBackend"]
