"""Linear operators on vectors of named tensors: products, algebra, parts, and what is computed of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import torch
from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.progress import Watch
from sifrc.linear.space import Space, Vector, is_transformed
from sifrc.linear.terms import no_operator

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator as ScipyOperator

    from sifrc.linear.density import SpectralDensity
    from sifrc.linear.spectrum import Eigen

__all__ = ["Estimate", "LinearOperator"]


@dataclass(frozen=True)
class Estimate:
    """A number, or one for each entry, and how far it may be off.

    Args:
        value: the number, or a flat tensor.
        error: its standard error; 0 where it is exact.
        method: that found it.
        products: with the operator that it took.
    """

    value: Any
    error: Any
    method: str
    products: int

    def __float__(self) -> float:
        """The number."""
        return float(self.value)


class LinearOperator(ABC):
    """A matrix that is known by its products.

    ``op @ v`` takes a flat tensor (n,), a matrix (n, k) with a vector in each column, a dict by the names of
    ``columns``, or a list of tensors in their order, and returns the same form over ``rows``.

    Args:
        name: for errors.
        rows: space of results.
        columns: space of vectors.
        symmetric: whether it is its own transpose.
        watch: shows how far long work is.
    """

    def __init__(
        self, name: str, rows: Space, columns: Space, *, symmetric: bool, watch: Watch | None = None
    ) -> None:
        self.name, self.rows, self.columns = name, rows, columns
        self.symmetric, self.watch = symmetric, watch or Watch()

    # -- what a kind of operator is

    @abstractmethod
    def apply(self, vector: Tensor) -> Tensor:
        """The product with one flat vector, which is what it should be."""

    def apply_transposed(self, vector: Tensor) -> Tensor:
        """The product of the transpose with one flat vector.

        Raises:
            OperatorError: nothing computes it.
        """
        if self.symmetric:
            return self.apply(vector)
        raise OperatorError(f"{self.name}: nothing computes products with its transpose")

    def apply_many(self, vectors: Tensor) -> Tensor:
        """The product with a matrix (n, k)."""
        found = vectors.new_empty((self.rows.size, vectors.shape[1]))
        with self.watch.steps(f"{self.name} @ matrix", vectors.shape[1]) as done:
            for k, vector in enumerate(vectors.T):
                found[:, k] = self.apply(vector.contiguous())
                done()
        return found

    def exact_diagonal(self) -> Tensor | None:
        """The diagonal, where something computes it."""
        return None

    def exact_trace(self) -> float | None:
        """The trace, where something computes it."""
        diagonal = self.exact_diagonal()
        return None if diagonal is None else float(diagonal.sum())

    # -- facts

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows.size, self.columns.size

    @property
    def dtype(self) -> torch.dtype:
        """Of vectors and results."""
        return self.columns.dtype

    @property
    def device(self) -> torch.device:
        """Of vectors and results."""
        return self.columns.device

    def __repr__(self) -> str:
        m, n = self.shape
        return f"<{self.name}: {m} × {n}, {str(self.dtype).removeprefix('torch.')}, {self.device}>"

    def check_square(self, what: str) -> None:
        """Refuse what is of square matrices only.

        Raises:
            OperatorError: rows and columns are not the same.
        """
        if self.rows != self.columns:
            raise OperatorError(
                f"{what} of {self.name}, whose rows and columns are not the same ({self.shape[0]} × "
                f"{self.shape[1]})",
                hint="op.T @ op is square",
            )

    def check_symmetric(self, what: str) -> None:
        """Refuse what is of symmetric matrices only.

        Raises:
            OperatorError: it is not known to be symmetric.
        """
        self.check_square(what)
        if not self.symmetric:
            raise OperatorError(
                f"{what} of {self.name}, which is not known to be symmetric", hint="op.T @ op, or op + op.T"
            )

    # -- products

    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...

    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...

    @overload
    def __matmul__(self, other: Mapping[str, Tensor]) -> dict[str, Tensor]: ...

    @overload
    def __matmul__(self, other: list[Tensor]) -> list[Tensor]: ...

    def __matmul__(self, other: Any) -> Any:
        """The product with a vector, several vectors, or another operator.

        Raises:
            OperatorError: it is not in the space of the columns.
        """
        if isinstance(other, LinearOperator):
            from sifrc.linear.algebra import Composed

            return Composed(self, other)
        with torch.set_grad_enabled(is_transformed() and torch.is_grad_enabled()):
            flat, form = self.columns.flat(cast(Vector, other), f"{self.name} @ vector")
            found = self.apply_many(flat) if form == "matrix" else self.apply(flat)
            return self.rows.restored(found, form)

    def to_dense(self) -> Tensor:
        """All entries, (m, n), by a product for each column.

        Example:
            >>> from sifrc.linear import identity
            >>> (2.0 * identity({"w": (2,)})).to_dense()
            tensor([[2., 0.],
                    [0., 2.]])
        """
        return self.apply_many(torch.eye(self.shape[1], dtype=self.dtype, device=self.device))

    def to_scipy(self, dtype: Any = None) -> ScipyOperator:
        """A ``scipy.sparse.linalg.LinearOperator`` with the same products.

        Args:
            dtype: of NumPy's arrays; that of the operator by default, float32 for bfloat16.
        """
        from sifrc.linear.scipy import as_scipy

        return as_scipy(self, dtype)

    # -- algebra

    @property
    def T(self) -> LinearOperator:
        """The transpose."""
        from sifrc.linear.algebra import Transposed

        return self if self.symmetric else Transposed(self)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        """The sum with another operator of the same spaces.

        Raises:
            OperatorError: a number or a tensor is no operator; a multiple of the identity is.
        """
        if not isinstance(other, LinearOperator):
            return cast(LinearOperator, no_operator(self.name, "+", other))
        from sifrc.linear.algebra import added

        return added(self, other)

    def __radd__(self, other: object) -> Any:
        if isinstance(other, int) and other == 0:
            return self  # what sum() of operators begins with
        return no_operator(self.name, "+", other, after=False)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        """The difference from another operator of the same spaces.

        Raises:
            OperatorError: as for the sum.
        """
        if not isinstance(other, LinearOperator):
            return cast(LinearOperator, no_operator(self.name, "-", other))
        from sifrc.linear.algebra import added, scaled

        return added(self, scaled(other, -1.0))

    def __rsub__(self, other: object) -> Any:
        return no_operator(self.name, "-", other, after=False)

    def __mul__(self, factor: float) -> LinearOperator:
        """A multiple."""
        if not isinstance(factor, Real):
            return NotImplemented
        from sifrc.linear.algebra import scaled

        return scaled(self, float(factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> LinearOperator:
        """A multiple."""
        if not isinstance(divisor, Real):
            return NotImplemented
        return self.__mul__(1.0 / float(divisor))

    def __neg__(self) -> LinearOperator:
        """Minus the operator."""
        return self * -1.0

    # -- parts

    def __getitem__(self, names: str | tuple[str, ...]) -> LinearOperator:
        """The part with the rows and columns of some parameters, by name, module or pattern."""
        return self.sub(names, names)

    def sub(
        self, rows: str | Iterable[str] | None = None, columns: str | Iterable[str] | None = None
    ) -> LinearOperator:
        """A part of the matrix.

        Args:
            rows: names of tensors or modules, with ``*``, ``?`` and ``[ab]`` for patterns; all by default.
            columns: the same.

        Raises:
            OperatorError: nothing has such a name.
        """
        from sifrc.linear.algebra import part_of

        return part_of(self, _chosen(self.rows, rows), _chosen(self.columns, columns))

    def per(self, by: str | Mapping[str, Iterable[str]] = "module") -> dict[str, LinearOperator]:
        """The parts on the diagonal.

        Args:
            by: ``module`` (a layer with all it has), ``parameter``, or groups: name -> names or patterns, as
                ``ops.groups``, the partition of the spec.

        Raises:
            OperatorError: rows and columns differ, or ``by`` is unknown.
        """
        self.check_square("parts on the diagonal")
        if isinstance(by, Mapping):
            groups = {name: self.rows.matching(patterns) for name, patterns in by.items()}
        elif by == "module":
            groups = self.rows.by_module()
        elif by == "parameter":
            groups = {name: (name,) for name in self.rows.shapes}
        else:
            raise OperatorError(f"parts by {by!r}", hint="module, parameter, or a dict of groups")
        return {name: self.sub(names, names) for name, names in groups.items()}

    def block_diagonal(self, by: str | Mapping[str, Iterable[str]] = "module") -> LinearOperator:
        """The operator without what is beside its parts on the diagonal; see :meth:`per`.

        Raises:
            OperatorError: the parts have parameters in common, or not all of them.
        """
        from sifrc.linear.algebra import DiagonalBlocks

        return DiagonalBlocks(self, self.per(by))

    # -- what is computed of it

    def inverse(
        self,
        method: Literal["cg", "lsmr"] = "cg",
        *,
        tolerance: float | None = None,
        limit: int | None = None,
    ) -> LinearOperator:
        """An operator whose products solve linear systems; see :mod:`sifrc.linear.solving`."""
        from sifrc.linear.solving import inverse

        return inverse(self, method, tolerance, limit)

    def trace(self, method: str | None = None, *, probes: int = 30, seed: int = 0) -> Estimate:
        """The trace; see :func:`sifrc.linear.traces.trace`."""
        from sifrc.linear.traces import trace

        return trace(self, method, probes, seed)

    def diagonal(self, method: str | None = None, *, probes: int = 30, seed: int = 0) -> Estimate:
        """The diagonal, flat; see :func:`sifrc.linear.diagonals.diagonal`."""
        from sifrc.linear.diagonals import diagonal

        return diagonal(self, method, probes, seed)

    def norm(
        self, order: Literal["frobenius", "spectral"] = "frobenius", *, probes: int = 30, seed: int = 0
    ) -> Estimate:
        """A norm; see :func:`sifrc.linear.norms.norm`."""
        from sifrc.linear.norms import norm

        return norm(self, order, probes, seed)

    def eigsh(
        self,
        k: int = 5,
        which: Literal["LA", "SA", "LM", "BE"] = "LA",
        *,
        method: Literal["lanczos", "lobpcg"] = "lanczos",
        tolerance: float = 0.0,
        limit: int | None = None,
        seed: int = 0,
    ) -> Eigen:
        """Some eigenvalues and eigenvectors; see :func:`sifrc.linear.spectrum.eigsh`."""
        from sifrc.linear.spectrum import eigsh

        return eigsh(self, k, which, method, tolerance, limit, seed)

    def spectral_density(self, *, probes: int = 10, steps: int = 50, seed: int = 0) -> SpectralDensity:
        """Where the eigenvalues are; see :func:`sifrc.linear.density.spectral_density`."""
        from sifrc.linear.density import spectral_density

        return spectral_density(self, probes, steps, seed)


def _chosen(space: Space, names: str | Iterable[str] | None) -> tuple[str, ...]:
    if names is None:
        return tuple(space.shapes)
    return space.matching((names,) if isinstance(names, str) else names)
