"""Operators whose products solve linear systems, by SciPy's conjugate gradients and LSMR."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import linalg
from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.algebra import BlockDiagonal, Identity, Scaled, shift_of
from sifrc.linear.kronecker import Kronecker
from sifrc.linear.operator import LinearOperator
from sifrc.linear.scipy import as_scipy

__all__ = ["Inverse", "LeastSquares", "inverse"]

_TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2}


def inverse(
    operator: LinearOperator, method: str, tolerance: float | None, limit: int | None
) -> LinearOperator:
    """An operator whose products solve linear systems with another.

    Kronecker factors are inverted by their eigenvalues, multiples of I and block diagonals part by part; for
    everything else each product is an iteration.

    Args:
        operator: to invert.
        method: ``cg`` for symmetric positive definite ones, ``lsmr`` for least squares of least norm.
        tolerance: of the residual, relative to the right-hand side; 1e-10 in float64, 1e-5 in float32.
        limit: of iterations; ten times the size by default.

    Raises:
        OperatorError: the operator has no inverse of this kind, or an argument is wrong.

    Example:
        >>> from sifrc.linear import identity
        >>> inverse(4.0 * identity({"w": (2,)}), "cg", None, None) @ torch.ones(2)
        tensor([0.2500, 0.2500])
    """
    if method not in ("cg", "lsmr"):
        raise OperatorError(f"the inverse of {operator.name} by {method!r}", hint="cg or lsmr")
    bound = _TOLERANCES[operator.dtype] if tolerance is None else tolerance
    if not 0 < bound < 1:
        raise OperatorError(f"a tolerance of {tolerance!r}", hint="between 0 and 1")
    if method == "lsmr":
        return LeastSquares(operator, bound, limit)
    operator.check_symmetric("the inverse by conjugate gradients")
    if isinstance(operator, Kronecker):
        return operator.inverted()
    factor = shift_of(operator)
    if factor is not None:
        if factor == 0.0:
            raise OperatorError(f"the inverse of {operator.name}", hint="a factor that is not zero")
        return Scaled(Identity(operator.rows, operator.watch), 1.0 / factor)
    if isinstance(operator, BlockDiagonal):
        blocks = {key: inverse(block, method, tolerance, limit) for key, block in operator.blocks.items()}
        return BlockDiagonal(operator.rows, blocks, f"inverse of {operator.name}", operator.watch)
    return Inverse(operator, bound, limit)


class Inverse(LinearOperator):
    """A⁻¹ of a symmetric positive definite A; each product is an iteration of conjugate gradients."""

    def __init__(self, operator: LinearOperator, tolerance: float, limit: int | None) -> None:
        super().__init__(
            f"inverse of {operator.name}",
            operator.columns,
            operator.rows,
            symmetric=True,
            watch=operator.watch,
        )
        self.operator, self.tolerance, self.limit = operator, tolerance, limit

    def apply(self, vector: Tensor) -> Tensor:
        inner = as_scipy(self.operator)
        with self.watch.steps(f"conjugate gradients with {self.operator.name}", None) as done:

            def product(direction: NDArray[Any]) -> NDArray[Any]:
                found = inner.matvec(direction)
                done()
                if float(direction @ found) <= 0.0 and direction.any():
                    raise OperatorError(
                        f"{self.operator.name} is not positive definite: conjugate gradients met a direction "
                        "along which it does not curve upwards",
                        hint="damping, as op + 0.1 * ops.identity, or method='lsmr'",
                    )
                return np.asarray(found)

            checked = linalg.LinearOperator(inner.shape, dtype=inner.dtype, matvec=product)
            rhs = _array(vector, inner.dtype)
            found, info = linalg.cg(checked, rhs, rtol=self.tolerance, atol=0.0, maxiter=self.limit)
        if info:
            raise _unfinished(self.operator, inner, found, rhs, self.tolerance, "conjugate gradients")
        return torch.from_numpy(found).to(vector.device, vector.dtype)


class LeastSquares(LinearOperator):
    """A⁺: the solution of least norm of min ‖A x − b‖; each product is an iteration of LSMR."""

    def __init__(self, operator: LinearOperator, tolerance: float, limit: int | None) -> None:
        super().__init__(
            f"least squares of {operator.name}",
            operator.columns,
            operator.rows,
            symmetric=operator.symmetric,
            watch=operator.watch,
        )
        self.operator, self.tolerance, self.limit = operator, tolerance, limit

    def apply(self, vector: Tensor) -> Tensor:
        inner = as_scipy(self.operator, np.float64 if vector.dtype == torch.float64 else np.float32)
        rhs = _array(vector, inner.dtype)
        most = 10 * max(self.operator.shape) if self.limit is None else self.limit
        with self.watch.steps(f"LSMR with {self.operator.name}", None) as done:

            def product(direction: NDArray[Any]) -> NDArray[Any]:
                done()
                return np.asarray(inner.matvec(direction))

            counted = linalg.LinearOperator(
                inner.shape, dtype=inner.dtype, matvec=product, rmatvec=inner.rmatvec
            )
            found, stop, *_ = linalg.lsmr(
                counted, rhs, atol=self.tolerance, btol=self.tolerance, conlim=0.0, maxiter=most
            )
        if stop == 7:
            raise _unfinished(self.operator, inner, found, rhs, self.tolerance, "LSMR")
        return torch.from_numpy(np.asarray(found)).to(vector.device, vector.dtype)


def _array(vector: Tensor, dtype: Any) -> NDArray[Any]:
    return np.asarray(vector.double().cpu().numpy(), dtype=dtype)


def _unfinished(
    operator: LinearOperator, inner: Any, found: Any, rhs: Any, tolerance: float, what: str
) -> OperatorError:
    left = float(np.linalg.norm(inner.matvec(found) - rhs) / (np.linalg.norm(rhs) or 1.0))
    return OperatorError(
        f"{what} with {operator.name} ended with a relative residual of {left:.2g}, above {tolerance:.2g}",
        hint="damping, as op + 0.1 * ops.identity, a larger tolerance, or a larger limit",
    )
