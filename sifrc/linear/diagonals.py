"""Diagonals: exact where they are derived, estimated by random probes elsewhere."""

from __future__ import annotations

from math import sqrt

from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.leave_one_out import LeaveOneOut
from sifrc.linear.operator import Estimate, LinearOperator
from sifrc.linear.probes import check_factored, count_of_probes, signs

__all__ = ["diagonal", "hutchinson_diagonal", "xdiag"]


def diagonal(operator: LinearOperator, method: str | None, probes: int, seed: int) -> Estimate:
    """The diagonal of a square operator, flat.

    Args:
        operator: any.
        method: ``exact``, ``hutchinson`` or ``xdiag`` (symmetric operators); exact where something computes
            the diagonal, else Hutchinson's, by default.
        probes: products with the operator that an estimate may take.
        seed: of the probes.

    Raises:
        OperatorError: it is not square, nothing computes the diagonal, or there are too few probes.

    Example:
        >>> from sifrc.linear import identity
        >>> diagonal(2.0 * identity({"w": (3,)}), None, 30, 0).value
        tensor([2., 2., 2.])
    """
    operator.check_square("the diagonal")
    if method in (None, "exact"):
        found = operator.exact_diagonal()
        if found is not None:
            return Estimate(found, found.new_zeros(()), "exact", 0)
        if method == "exact":
            raise OperatorError(
                f"nothing computes the diagonal of {operator.name}", hint="hutchinson or xdiag estimate it"
            )
        method = "hutchinson"
    estimators = {"hutchinson": hutchinson_diagonal, "xdiag": xdiag}
    if method not in estimators:
        raise OperatorError(
            f"the diagonal of {operator.name} by {method!r}", hint=f"exact, {', '.join(estimators)}"
        )
    return estimators[method](operator, probes, seed)


def hutchinson_diagonal(operator: LinearOperator, probes: int, seed: int) -> Estimate:
    """Mean of z ∘ A z over random signs z (Bekas, Kokiopoulou & Saad 2007).

    The variance of an entry is that of Σ_{j≠i} a_ij z_j, the squares of the row beside the diagonal.
    """
    probes = count_of_probes(probes, 2, "Hutchinson's estimator of the diagonal")
    z = signs(operator, probes, seed)
    return _mean(z * operator.apply_many(z), "hutchinson", probes)


def xdiag(operator: LinearOperator, probes: int, seed: int) -> Estimate:
    """XDiag (Epperly, Tropp & Webber 2024): for each probe, the diagonal of Q Qᵀ A on the range of the
    others, exactly, and an estimate by the probe of what is beside it. For symmetric operators.
    """
    operator.check_symmetric("XDiag")
    check_factored(operator, "XDiag")
    probes = count_of_probes(probes, 4, "XDiag")
    count = probes // 2
    if operator.shape[0] <= count:
        exact = operator.to_dense().diagonal().clone()
        return Estimate(exact, exact.new_zeros(()), "xdiag", operator.shape[0])
    sketch = LeaveOneOut.of(operator, count, seed)
    basis, whole = sketch.basis, (sketch.basis * sketch.applied).sum(1)
    if sketch.spans:
        return Estimate(whole, whole.new_zeros(()), "xdiag", 2 * count)
    left_out = sketch.left_out
    inside = whole[:, None] - (basis @ left_out) * (sketch.applied @ left_out)
    beside = sketch.images - basis @ sketch.without(sketch.of_images)
    return _mean(inside + sketch.probes * beside, "xdiag", 2 * count)


def _mean(values: Tensor, method: str, products: int) -> Estimate:
    """Of columns, and how far each entry may be off."""
    error = values.std(1) / sqrt(values.shape[1])
    return Estimate(values.mean(1), error, method, products)
