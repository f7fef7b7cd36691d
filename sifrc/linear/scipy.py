"""Operators as SciPy has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator as ScipyOperator
from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.operator import LinearOperator

__all__ = ["as_scipy"]

_DTYPES = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.float32}


def as_scipy(operator: LinearOperator, dtype: Any = None) -> ScipyOperator:
    """The operator on arrays of NumPy.

    Args:
        operator: any.
        dtype: float32 or float64; the operator's by default.

    Raises:
        OperatorError: another dtype.

    Example:
        >>> from scipy.sparse.linalg import eigsh
        >>> from sifrc.linear import identity
        >>> round(float(eigsh(as_scipy(3.0 * identity({"w": (4,)})), k=1)[0][0]), 3)
        3.0
    """
    chosen = np.dtype(_DTYPES[operator.dtype] if dtype is None else dtype)
    if chosen not in (np.float32, np.float64):
        raise OperatorError(f"{operator.name} as an operator of {chosen}", hint="float32 or float64")

    def wrapped(apply: Callable[[Tensor], Tensor]) -> Callable[[NDArray[Any]], NDArray[Any]]:
        def product(values: NDArray[Any]) -> NDArray[Any]:
            # SciPy's eigenvalue routines hand out parts of their own work arrays.
            vector = torch.from_numpy(np.array(values, dtype=chosen)).to(operator.device, operator.dtype)
            with torch.no_grad():
                found = apply(vector)
            return np.asarray(found.to("cpu", torch.from_numpy(np.empty(0, chosen)).dtype).numpy())

        return product

    flat = wrapped(lambda vector: operator.apply(vector.reshape(-1)))
    transposed = wrapped(lambda vector: operator.apply_transposed(vector.reshape(-1)))
    return ScipyOperator(
        shape=operator.shape,
        dtype=chosen,
        matvec=flat,
        rmatvec=transposed,
        matmat=wrapped(operator.apply_many),
        rmatmat=wrapped(operator.T.apply_many),
    )
