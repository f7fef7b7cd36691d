"""The Torch backend (name ``torch``)."""

from sifrc.backends.torch_eager.backend import BACKEND, TorchBackend

__all__ = ["BACKEND", "TorchBackend"]
