"""Traces: exact where they are derived, estimated by random probes elsewhere."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.leave_one_out import LeaveOneOut
from sifrc.linear.operator import Estimate, LinearOperator
from sifrc.linear.probes import check_factored, count_of_probes, signs

__all__ = ["hutchinson", "hutchpp", "trace", "xtrace"]


def trace(operator: LinearOperator, method: str | None, probes: int, seed: int) -> Estimate:
    """The trace of a square operator.

    Args:
        operator: any.
        method: ``exact``, ``hutchinson``, ``hutch++`` or ``xtrace``; exact where something computes the
            trace, else XTrace, by default.
        probes: products with the operator that an estimate may take.
        seed: of the probes.

    Raises:
        OperatorError: it is not square, nothing computes the trace, or there are too few probes.

    Example:
        >>> from sifrc.linear import identity
        >>> trace(2.0 * identity({"w": (3,)}), None, 30, 0)
        Estimate(value=6.0, error=0.0, method='exact', products=0)
    """
    operator.check_square("the trace")
    if method in (None, "exact"):
        found = operator.exact_trace()
        if found is not None:
            return Estimate(found, 0.0, "exact", 0)
        if method == "exact":
            raise OperatorError(
                f"nothing computes the trace of {operator.name}",
                hint="hutchinson, hutch++ or xtrace estimate it",
            )
        method = "xtrace"
    estimators = {"hutchinson": hutchinson, "hutch++": hutchpp, "xtrace": xtrace}
    if method not in estimators:
        raise OperatorError(
            f"the trace of {operator.name} by {method!r}", hint=f"exact, {', '.join(estimators)}"
        )
    return estimators[method](operator, probes, seed)


def hutchinson(operator: LinearOperator, probes: int, seed: int) -> Estimate:
    """Mean of zᵀ A z over random signs z (Hutchinson 1989).

    The variance of a probe is 2 (‖A‖_F² − Σ a_ii²) for symmetric A.
    """
    probes = count_of_probes(probes, 2, "Hutchinson's estimator")
    z = signs(operator, probes, seed)
    return _mean((z * operator.apply_many(z)).sum(0), "hutchinson", probes)


def hutchpp(operator: LinearOperator, probes: int, seed: int) -> Estimate:
    """Hutch++ (Meyer, Musco, Musco & Woodruff 2021): the trace on a range that A maps probes to, exactly, and
    Hutchinson's estimator on what is beside it. A third of the products each for the range, the exact part
    and the estimate.
    """
    check_factored(operator, "Hutch++")
    probes = count_of_probes(probes, 6, "Hutch++")
    third = probes // 3
    if operator.shape[0] <= third:
        return _dense(operator, "hutch++")
    z = signs(operator, 2 * third, seed)
    q = torch.linalg.qr(operator.apply_many(z[:, :third].contiguous()))[0]
    exact = (q * operator.apply_many(q)).sum()
    beside = z[:, third:] - q @ (q.T @ z[:, third:])
    rest = _mean((beside * operator.apply_many(beside)).sum(0), "hutch++", 3 * third)
    return Estimate(float(exact) + rest.value, rest.error, rest.method, rest.products)


def xtrace(operator: LinearOperator, probes: int, seed: int) -> Estimate:
    """XTrace (Epperly, Tropp & Webber 2024): for each probe, the trace on the range of the others, exactly,
    and an estimate by the probe on what is beside it, scaled to the length that a probe has there.
    """
    check_factored(operator, "XTrace")
    probes = count_of_probes(probes, 4, "XTrace")
    count = probes // 2
    if operator.shape[0] <= count:
        return _dense(operator, "xtrace")
    sketch = LeaveOneOut.of(operator, count, seed)
    if sketch.spans:
        return Estimate(float(sketch.core.trace()), 0.0, "xtrace", 2 * count)
    inside = sketch.core.trace() - (sketch.left_out * (sketch.core @ sketch.left_out)).sum(0)
    u = sketch.coefficients
    quadratic = (
        (sketch.probes * sketch.images).sum(0)
        - (sketch.tested * u).sum(0)
        - (u * sketch.of_images).sum(0)
        + (u * (sketch.core @ u)).sum(0)
    )
    length = (sketch.probes**2).sum(0) - (u**2).sum(0)
    return _mean(inside + quadratic * (operator.shape[0] - count + 1) / length, "xtrace", 2 * count)


def _mean(values: Tensor, method: str, products: int) -> Estimate:
    values = values.double()
    error = float(values.std() / sqrt(len(values)))
    return Estimate(float(values.mean()), error, method, products)


def _dense(operator: LinearOperator, method: str) -> Estimate:
    """With as many products as there are columns nothing is left to estimate."""
    return Estimate(float(operator.to_dense().trace()), 0.0, method, operator.shape[0])
