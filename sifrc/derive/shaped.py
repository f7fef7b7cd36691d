"""Quantities with one tensor for each parameter."""

from __future__ import annotations

from types import MappingProxyType

from sifrc.model.parameters import Shaped

__all__ = [
    "BLOCK_PRODUCT",
    "DIAGONAL",
    "DIRECTION",
    "GAUSS_NEWTON_PRODUCT",
    "GRADIENT",
    "HESSIAN_PRODUCT",
    "NEWTON_DIRECTION",
    "PARAMETER",
    "PARAMETER_BLOCK",
    "shaped",
]


def shaped(name: str, weight: str, bias: str) -> Shaped:
    """A quantity by its letters for weights and for biases."""
    return Shaped(name, MappingProxyType({"weight": weight, "bias": bias}))


PARAMETER = shaped("parameter", "W", "β")
GRADIENT = shaped("gradient", "G", "g")
DIRECTION = shaped("direction", "N", "η")
"""Of a differential, and the vector of a product."""
HESSIAN_PRODUCT = shaped("hessian_product", "HN", "Hη")
GAUSS_NEWTON_PRODUCT = shaped("gauss_newton_product", "GN", "Gη")
NEWTON_DIRECTION = shaped("newton", "N*", "η*")
BLOCK_PRODUCT = shaped("block_product", "BN", "Bη")
DIAGONAL = shaped("diagonal", "dW", "dβ")
PARAMETER_BLOCK = shaped("parameter_block", "∇²W", "∇²β")
"""The block of each parameter: over its axes and again."""
