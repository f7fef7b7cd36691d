"""Block-diagonal operators of Kronecker products, with their inverses and other functions of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.operator import LinearOperator
from sifrc.linear.progress import Watch
from sifrc.linear.space import Space

__all__ = ["Factors", "Kronecker", "KroneckerFunction"]


@dataclass(frozen=True)
class Factors:
    """The block of one parameter, A ⊗ B: V ↦ A V B for the parameter as a matrix, both symmetric.

    Args:
        rows: A, (n, n).
        columns: B, (m, m); None for a bias, whose block is A.
        before: size of the axis that a tensor has before that of the rows, as the inputs of a transposed
            convolution are before its outputs; 1 where rows are first.
    """

    rows: Tensor
    columns: Tensor | None = None
    before: int = 1

    def matrix(self, flat: Tensor) -> Tensor:
        """The parameter as a matrix (n, m)."""
        return flat.view(self.before, len(self.rows), -1).transpose(0, 1).reshape(len(self.rows), -1)

    def flat(self, matrix: Tensor) -> Tensor:
        """The other way."""
        return matrix.reshape(len(self.rows), self.before, -1).transpose(0, 1).reshape(-1)

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Eigenvalues and vectors of A, and of B."""
        one = self.rows.new_ones((1, 1))
        return (
            *torch.linalg.eigh(self.rows),
            *torch.linalg.eigh(one if self.columns is None else self.columns),
        )

    def apply(self, vector: Tensor) -> Tensor:
        """The product with a flat vector."""
        if self.columns is None:
            return self.rows @ vector
        return self.flat(self.rows @ self.matrix(vector) @ self.columns)

    def eigenvalues(self) -> Tensor:
        """All products of an eigenvalue of A and one of B, (n, m)."""
        of_rows, _, of_columns, _ = self.eigen
        return of_rows[:, None] * of_columns

    def diagonal(self) -> Tensor:
        """Flat."""
        if self.columns is None:
            return self.rows.diagonal().clone()
        return self.flat(self.rows.diagonal()[:, None] * self.columns.diagonal())


class _OfFactors(LinearOperator):
    """What has a pair of factors for each parameter."""

    def __init__(
        self, name: str, space: Space, factors: Mapping[str, Factors], shift: float, watch: Watch | None
    ) -> None:
        super().__init__(name, space, space, symmetric=True, watch=watch)
        self.factors, self.shift = dict(factors), shift

    def each(self, vector: Tensor, apply: Callable[[Factors, Tensor], Tensor]) -> Tensor:
        """Results for the parts of a vector, one after the other."""
        parts = torch.split(vector, self.rows.sizes)
        return torch.cat(
            [apply(self.factors[name], part) for name, part in zip(self.rows.shapes, parts, strict=True)]
        )


class Kronecker(_OfFactors):
    """A ⊗ B + c I for each parameter.

    Args:
        name: for errors.
        space: of the parameters.
        factors: by name.
        shift: c.
        watch: shows how far long work is.

    Example:
        >>> space = Space({"w": (2, 2)}, torch.float32, torch.device("cpu"))
        >>> op = Kronecker("K", space, {"w": Factors(torch.diag(torch.tensor([1.0, 2.0])), torch.eye(2))})
        >>> op.inverse() @ torch.ones(4)
        tensor([1.0000, 1.0000, 0.5000, 0.5000])
    """

    def __init__(
        self,
        name: str,
        space: Space,
        factors: Mapping[str, Factors],
        shift: float = 0.0,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(name, space, factors, shift, watch)

    def apply(self, vector: Tensor) -> Tensor:
        found = self.each(vector, lambda factors, part: factors.apply(part))
        return found.add_(vector, alpha=self.shift) if self.shift else found

    def exact_diagonal(self) -> Tensor:
        return torch.cat([self.factors[name].diagonal() for name in self.rows.shapes]) + self.shift

    def shifted(self, shift: float) -> Kronecker:
        """With more of the identity."""
        return Kronecker(
            f"({self.name} + {shift:g} I)", self.rows, self.factors, self.shift + shift, self.watch
        )

    def scaled(self, factor: float) -> Kronecker:
        """A multiple."""
        factors = {name: replace(own, rows=factor * own.rows) for name, own in self.factors.items()}
        return Kronecker(f"{factor:g} {self.name}", self.rows, factors, factor * self.shift, self.watch)

    def eigenvalues(self) -> Tensor:
        """All of them, exactly, from the largest down."""
        found = [self.factors[name].eigenvalues().reshape(-1) for name in self.rows.shapes]
        return (torch.cat(found) + self.shift).sort(descending=True).values

    def logdet(self) -> float:
        """Logarithm of the determinant.

        Raises:
            OperatorError: an eigenvalue is not positive.
        """
        values = self.eigenvalues()
        if not bool((values > 0).all()):
            raise OperatorError(
                f"no logarithm of the determinant of {self.name}: an eigenvalue of {float(values.min()):.3g}",
                hint="damping, as op + 0.1 * ops.identity",
            )
        return float(values.log().sum())

    def function(self, function: Callable[[Tensor], Tensor], name: str = "function") -> KroneckerFunction:
        """A function of the operator, by that of its eigenvalues.

        Args:
            function: of a tensor of eigenvalues, entry by entry, such as ``torch.rsqrt``.
            name: for errors.

        Raises:
            OperatorError: the function is not finite at an eigenvalue.
        """
        return KroneckerFunction(f"{name} of {self.name}", self, function)

    def inverted(self) -> KroneckerFunction:
        """The inverse, exactly.

        Raises:
            OperatorError: it is singular to rounding.
        """
        values = self.eigenvalues()
        size, rounding = float(values.abs().max()), torch.finfo(self.dtype).eps
        least = float(values.abs().min())
        if least <= rounding * size:
            raise OperatorError(
                f"{self.name} is singular: eigenvalues from {least:.2g} to {size:.2g} in magnitude",
                hint="damping, as op + 0.1 * ops.identity",
            )
        return self.function(torch.reciprocal, "inverse")


class KroneckerFunction(_OfFactors):
    """f(A ⊗ B + c I) for each parameter."""

    def __init__(self, name: str, of: Kronecker, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__(name, of.rows, of.factors, of.shift, of.watch)
        self._values = {key: function(f.eigenvalues() + of.shift) for key, f in of.factors.items()}
        wrong = [key for key, values in self._values.items() if not bool(values.isfinite().all())]
        if wrong:
            raise OperatorError(
                f"{name}: not finite at an eigenvalue of the block of '{wrong[0]}'",
                hint="damping, as op + 0.1 * ops.identity",
            )

    def apply(self, vector: Tensor) -> Tensor:
        parts = torch.split(vector, self.rows.sizes)
        found = []
        for name, part in zip(self.rows.shapes, parts, strict=True):
            factors = self.factors[name]
            _, of_rows, _, of_columns = factors.eigen
            inner = of_rows.T @ factors.matrix(part) @ of_columns
            found.append(factors.flat(of_rows @ (self._values[name] * inner) @ of_columns.T))
        return torch.cat(found)

    def exact_diagonal(self) -> Tensor:
        found = []
        for name in self.rows.shapes:
            factors = self.factors[name]
            _, of_rows, _, of_columns = factors.eigen
            found.append(factors.flat(of_rows**2 @ self._values[name] @ (of_columns**2).T))
        return torch.cat(found)
