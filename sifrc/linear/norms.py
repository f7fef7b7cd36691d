"""Norms of operators."""

from __future__ import annotations

from math import sqrt

from sifrc.errors import OperatorError
from sifrc.linear.operator import Estimate, LinearOperator
from sifrc.linear.probes import count_of_probes, normal

__all__ = ["norm"]


def norm(operator: LinearOperator, order: str, probes: int, seed: int) -> Estimate:
    """A norm of an operator.

    Args:
        operator: any.
        order: ``frobenius``, estimated by ‖A‖_F² = E ‖A z‖² over normal z, or ``spectral``, the largest
            singular value by SciPy's Lanczos.
        probes: products that the estimate may take.
        seed: of the probes.

    Returns:
        The norm, its standard error to first order, and what it took. The variance of a probe's ‖A z‖² is
        2 ‖Aᵀ A‖_F².

    Raises:
        OperatorError: the norm is unknown, or there are too few probes.

    Example:
        >>> from sifrc.linear import identity
        >>> round(norm(2.0 * identity({"w": (10,)}), "spectral", 30, 0).value, 6)
        2.0
    """
    if order == "spectral":
        from sifrc.linear.spectrum import largest_singular_value

        value, products = largest_singular_value(operator, seed)
        return Estimate(value, 0.0, "lanczos", products)
    if order != "frobenius":
        raise OperatorError(f"a norm {order!r} of {operator.name}", hint="frobenius or spectral")
    probes = count_of_probes(probes, 2, "the Frobenius norm")
    squares = operator.apply_many(normal(operator, probes, seed)).double().square().sum(0)
    value = sqrt(float(squares.mean()))
    error = float(squares.std()) / sqrt(probes) / (2 * value) if value else 0.0
    return Estimate(value, error, "hutchinson", probes)
