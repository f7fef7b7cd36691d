"""Spectral densities by stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt

import torch
from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.operator import LinearOperator
from sifrc.linear.probes import check_factored, count_of_probes, normal

__all__ = ["SpectralDensity", "lanczos", "spectral_density"]


@dataclass(frozen=True)
class SpectralDensity:
    """Where the eigenvalues of an operator are: a quadrature rule for each probe.

    Args:
        nodes: (probes, steps), Ritz values.
        weights: (probes, steps), shares of the eigenvalues; each row adds up to one.
        size: n, how many eigenvalues there are.
        products: with the operator that it took.
    """

    nodes: Tensor
    weights: Tensor
    size: int
    products: int

    def mean(self, function: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        """The mean of a function over all eigenvalues, and its standard error.

        Its n-fold is the trace of the function of the operator.
        """
        each = (self.weights * function(self.nodes)).sum(1)
        return float(each.mean()), float(each.std() / sqrt(len(each)))

    def density(self, points: Tensor, width: float | None = None) -> Tensor:
        """The density at some points, with a normal distribution of a width for each eigenvalue.

        Args:
            points: where.
            width: standard deviation; a hundredth of the range by default.

        Raises:
            OperatorError: the width is not positive.
        """
        if width is None:
            width = float(self.nodes.max() - self.nodes.min()) / 100 or 1.0
        if not width > 0:
            raise OperatorError(f"a density of width {width!r}", hint="a positive number")
        distance = (points.to(self.nodes)[:, None, None] - self.nodes) / width
        bumps = torch.exp(-0.5 * distance**2) / (width * sqrt(2 * pi))
        return (bumps * self.weights).sum(2).mean(1)

    def points(self, count: int = 200, margin: float = 0.05) -> Tensor:
        """Points from below the least node to above the largest."""
        low, high = float(self.nodes.min()), float(self.nodes.max())
        beside = margin * ((high - low) or 1.0)
        return torch.linspace(low - beside, high + beside, count, dtype=self.nodes.dtype)


def spectral_density(operator: LinearOperator, probes: int, steps: int, seed: int) -> SpectralDensity:
    """The density of the eigenvalues of a symmetric operator.

    Args:
        operator: symmetric.
        probes: random vectors.
        steps: of Lanczos for each, whose vectors are all kept; a rule with m nodes is exact for polynomials
            of degree 2m − 1.
        seed: of the probes.

    Raises:
        OperatorError: it is not symmetric, or a number is too small.

    Example:
        >>> from sifrc.linear import identity
        >>> found = spectral_density(2.0 * identity({"w": (4,)}), 2, 10, 0)
        >>> [round(value, 5) for value in found.mean(torch.square)]
        [4.0, 0.0]
    """
    operator.check_symmetric("the spectral density")
    check_factored(operator, "the spectral density")
    probes = count_of_probes(probes, 2, "the spectral density")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise OperatorError(f"{steps!r} steps of Lanczos", hint="a whole number of at least 2")
    steps = min(steps, operator.shape[0])
    nodes, weights, products = [], [], 0
    with operator.watch.steps(f"spectral density of {operator.name}", probes * steps) as done:
        for start in normal(operator, probes, seed).T:
            diagonal, beside = lanczos(operator, start, steps, done)
            products += len(diagonal)
            tridiagonal = torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1)
            values, vectors = torch.linalg.eigh(tridiagonal)
            # A rule that ended early has nodes of no weight.
            empty = steps - len(values)
            nodes.append(torch.nn.functional.pad(values, (0, empty), value=float(values[-1])))
            weights.append(torch.nn.functional.pad(vectors[0] ** 2, (0, empty)))
    return SpectralDensity(torch.stack(nodes), torch.stack(weights), operator.shape[0], products)


def lanczos(
    operator: LinearOperator, start: Tensor, steps: int, done: Callable[[], None] = lambda: None
) -> tuple[Tensor, Tensor]:
    """Diagonal and off-diagonal, float64, of the tridiagonal matrix of a Krylov space.

    Every vector is made orthogonal to all before it, twice, so that no eigenvalue comes back as a copy.
    """
    basis = start.new_empty((steps, len(start)))
    basis[0] = start / start.norm()
    diagonal: list[float] = []
    beside: list[float] = []
    scale = 0.0
    for k in range(steps):
        found = operator.apply(basis[k].clone())
        done()
        diagonal.append(float(basis[k] @ found))
        if k + 1 == steps:
            break
        for _ in range(2):
            found = found - basis[: k + 1].T @ (basis[: k + 1] @ found)
        length = float(found.norm())
        scale = max(scale, abs(diagonal[-1]), length)
        if length <= 10 * torch.finfo(start.dtype).eps * scale * sqrt(len(start)):
            break  # the space is closed: its eigenvalues are exact
        beside.append(length)
        basis[k + 1] = found / length
    return torch.tensor(diagonal, dtype=torch.float64), torch.tensor(beside, dtype=torch.float64)
