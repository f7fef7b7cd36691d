"""Functions of a Torch module that draw the weights a network begins with: name, meaning, and the draw."""

from __future__ import annotations

from types import MappingProxyType

__all__ = ["INITIALIZERS"]

INITIALIZERS = MappingProxyType(
    {
        "he": (
            "_he",
            "Normal, variance 2 / inputs.",
            "torch.randn(outputs, inputs, generator=generator, dtype=torch.float64) "
            "* math.sqrt(2.0 / inputs)",
        ),
        "glorot": (
            "_glorot",
            "Uniform, limit sqrt(6 / (inputs + outputs)).",
            "(torch.rand(outputs, inputs, generator=generator, dtype=torch.float64) * 2.0 - 1.0) "
            "* math.sqrt(6.0 / (inputs + {reached}))",
        ),
        "uniform": (
            "_uniform",
            "Uniform, between minus a limit and it.",
            "(torch.rand(outputs, inputs, generator=generator, dtype=torch.float64) * 2.0 - 1.0) * limit",
        ),
        "normal": (
            "_normal_start",
            "Normal with a standard deviation.",
            "torch.randn(outputs, inputs, generator=generator, dtype=torch.float64) * deviation",
        ),
    }
)
