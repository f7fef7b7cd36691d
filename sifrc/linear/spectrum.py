"""Eigenvalues and singular values by SciPy's Lanczos and LOBPCG."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import linalg
from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.operator import LinearOperator
from sifrc.linear.scipy import as_scipy

__all__ = ["Eigen", "eigsh", "largest_singular_value"]

_SIDES = ("LA", "SA", "LM", "BE")


class Eigen(NamedTuple):
    """Eigenvalues from the largest down, and their vectors."""

    values: Tensor
    """(k,)"""
    vectors: Tensor
    """(n, k), flat ones in columns."""


def eigsh(
    operator: LinearOperator,
    k: int,
    which: str,
    method: str,
    tolerance: float,
    limit: int | None,
    seed: int,
) -> Eigen:
    """Some eigenvalues of a symmetric operator, and their vectors.

    Args:
        operator: symmetric.
        k: how many.
        which: the largest (``LA``), smallest (``SA``), largest in magnitude (``LM``), or half of them from
            each end (``BE``). Those in the middle of a spectrum no method finds that knows products alone.
        method: ``lanczos`` (``scipy.sparse.linalg.eigsh``), or ``lobpcg`` (SciPy's, for ``LA`` and ``SA``).
        tolerance: relative, of eigenvalues (Lanczos) or residuals (LOBPCG); 0 is machine precision, or
            LOBPCG's own.
        limit: of iterations; SciPy's by default.
        seed: of the vectors it starts with.

    Raises:
        OperatorError: it is not symmetric, an argument is wrong, or the iteration does not end.

    Example:
        >>> from sifrc.linear import identity
        >>> eigsh(3.0 * identity({"w": (9,)}), 2, "LA", "lanczos", 0.0, None, 0).values
        tensor([3., 3.])
    """
    operator.check_symmetric("eigenvalues")
    n = operator.shape[0]
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n:
        raise OperatorError(f"{k!r} eigenvalues of {operator.name}", hint=f"a whole number from 1 to {n}")
    if which not in _SIDES:
        raise OperatorError(f"eigenvalues {which!r}", hint=", ".join(_SIDES))
    if method not in ("lanczos", "lobpcg") or (method == "lobpcg" and which not in ("LA", "SA")):
        raise OperatorError(f"eigenvalues {which!r} by {method!r}", hint="lanczos, or lobpcg for LA and SA")
    generator = np.random.default_rng(seed)
    with operator.watch.steps(f"eigenvalues of {operator.name}", None) as done:
        counted = _counting(operator, done)
        # Lanczos needs room beside the k vectors; small matrices are decomposed whole.
        if n <= max(2 * k + 1, 20) or (method == "lobpcg" and 5 * k > n):
            values, vectors = np.linalg.eigh(counted @ np.eye(n, dtype=counted.dtype))
            kept = _kept(values, k, which)
            values, vectors = values[kept], vectors[:, kept]
        elif method == "lanczos":
            start = generator.standard_normal(n).astype(counted.dtype)
            try:
                values, vectors = linalg.eigsh(
                    counted, k, which=which, v0=start, tol=tolerance, maxiter=limit
                )
            except linalg.ArpackNoConvergence as error:
                raise OperatorError(
                    f"{len(error.eigenvalues)} of {k} eigenvalues of {operator.name} after all iterations",
                    hint="a larger tolerance, or a larger limit",
                ) from None
        else:
            start = generator.standard_normal((n, k)).astype(counted.dtype)
            values, vectors = linalg.lobpcg(
                counted, start, largest=which == "LA", tol=tolerance or None, maxiter=limit or 20 * k + 200
            )
    order = np.argsort(-values)
    return Eigen(_tensor(values[order], operator), _tensor(vectors[:, order], operator))


def largest_singular_value(operator: LinearOperator, seed: int) -> tuple[float, int]:
    """By Lanczos, on the operator itself where it is symmetric; and how many products it took."""
    taken = 0

    def done() -> None:
        nonlocal taken
        taken += 1

    counted = _counting(operator, done)
    least = min(operator.shape)
    if least <= 3:
        values = np.linalg.svd(counted @ np.eye(operator.shape[1], dtype=counted.dtype), compute_uv=False)
        return float(values[0]), taken
    start = np.random.default_rng(seed).standard_normal(operator.shape[1]).astype(counted.dtype)
    if operator.symmetric:
        found = linalg.eigsh(counted, 1, which="LM", v0=start, return_eigenvectors=False)
        return float(abs(found[0])), taken
    if operator.shape[0] < operator.shape[1]:
        start = start[: operator.shape[0]]
    found = linalg.svds(counted, 1, v0=start, return_singular_vectors=False)
    return float(found[0]), taken


def _counting(operator: LinearOperator, done: Any) -> Any:
    """SciPy's operator, which says after each product that it is done."""
    inner = as_scipy(operator, np.float64 if operator.dtype == torch.float64 else np.float32)

    def counted(apply: Any) -> Any:
        def product(values: NDArray[Any]) -> NDArray[Any]:
            found = apply(values)
            for _ in range(1 if values.ndim == 1 else values.shape[1]):
                done()
            return np.asarray(found)

        return product

    return linalg.LinearOperator(
        shape=inner.shape,
        dtype=inner.dtype,
        matvec=counted(inner.matvec),
        rmatvec=counted(inner.rmatvec),
        matmat=counted(inner.matmat),
        rmatmat=counted(inner.rmatmat),
    )


def _kept(values: NDArray[Any], k: int, which: str) -> NDArray[Any]:
    """Which of all eigenvalues, ascending, are asked for."""
    n = len(values)
    if which == "BE":
        return np.concatenate([np.arange(k // 2), np.arange(n - (k - k // 2), n)])
    order = {"LA": -values, "SA": values, "LM": -np.abs(values)}[which]
    return np.argsort(order, kind="stable")[:k]


def _tensor(values: NDArray[Any], operator: LinearOperator) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(operator.device, operator.dtype)
