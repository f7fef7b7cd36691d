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
]


def _shaped(name: str, weight: str, bias: str) -> Shaped:
    return Shaped(name, MappingProxyType({"weight": weight, "bias": bias}))


PARAMETER = _shaped("parameter", "W", "β")
GRADIENT = _shaped("gradient", "G", "g")
DIRECTION = _shaped("direction", "N", "η")
"""Of a differential, and the vector of a product."""
HESSIAN_PRODUCT = _shaped("hessian_product", "HN", "Hη")
GAUSS_NEWTON_PRODUCT = _shaped("gauss_newton_product", "GN", "Gη")
NEWTON_DIRECTION = _shaped("newton", "N*", "η*")
BLOCK_PRODUCT = _shaped("block_product", "BN", "Bη")
DIAGONAL = _shaped("diagonal", "dW", "dβ")
