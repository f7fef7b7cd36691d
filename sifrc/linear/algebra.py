"""Operators made of operators."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import torch
from torch import Tensor

from sifrc.errors import OperatorError
from sifrc.linear.operator import LinearOperator
from sifrc.linear.progress import Watch
from sifrc.linear.space import Space

__all__ = [
    "BlockDiagonal",
    "Composed",
    "DiagonalBlocks",
    "Identity",
    "Part",
    "Scaled",
    "Sum",
    "Transposed",
    "added",
    "identity",
    "part_of",
    "scaled",
    "shift_of",
]


class Identity(LinearOperator):
    """I."""

    def __init__(self, space: Space, watch: Watch | None = None) -> None:
        super().__init__("I", space, space, symmetric=True, watch=watch)

    def apply(self, vector: Tensor) -> Tensor:
        return vector.clone()

    def apply_many(self, vectors: Tensor) -> Tensor:
        return vectors.clone()

    def exact_diagonal(self) -> Tensor:
        return torch.ones(self.rows.size, dtype=self.dtype, device=self.device)


def identity(
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Identity:
    """The identity on vectors of named tensors.

    Example:
        >>> identity({"weight": (2, 3)})
        <I: 6 × 6, float32, cpu>
    """
    return Identity(Space(dict(shapes), dtype, torch.device(device)))


class Scaled(LinearOperator):
    """c A."""

    def __init__(self, operator: LinearOperator, factor: float) -> None:
        if not isfinite(factor):
            raise OperatorError(f"{factor} · {operator.name}", hint="a finite number")
        name = f"{factor:g} {operator.name}"
        super().__init__(
            name, operator.rows, operator.columns, symmetric=operator.symmetric, watch=operator.watch
        )
        self.operator, self.factor = operator, factor

    def apply(self, vector: Tensor) -> Tensor:
        return self.operator.apply(vector).mul_(self.factor)

    def apply_transposed(self, vector: Tensor) -> Tensor:
        return self.operator.apply_transposed(vector).mul_(self.factor)

    def apply_many(self, vectors: Tensor) -> Tensor:
        return self.operator.apply_many(vectors).mul_(self.factor)

    def exact_diagonal(self) -> Tensor | None:
        found = self.operator.exact_diagonal()
        return None if found is None else self.factor * found

    def exact_trace(self) -> float | None:
        found = self.operator.exact_trace()
        return None if found is None else self.factor * found


class Sum(LinearOperator):
    """A + B."""

    def __init__(self, left: LinearOperator, right: LinearOperator) -> None:
        for name in ("rows", "columns"):
            _check_same(getattr(left, name), getattr(right, name), f"{left.name} + {right.name}")
        super().__init__(
            f"({left.name} + {right.name})",
            left.rows,
            left.columns,
            symmetric=left.symmetric and right.symmetric,
            watch=left.watch,
        )
        self.left, self.right = left, right

    def apply(self, vector: Tensor) -> Tensor:
        return self.left.apply(vector).add_(self.right.apply(vector))

    def apply_transposed(self, vector: Tensor) -> Tensor:
        return self.left.apply_transposed(vector).add_(self.right.apply_transposed(vector))

    def apply_many(self, vectors: Tensor) -> Tensor:
        return self.left.apply_many(vectors).add_(self.right.apply_many(vectors))

    def exact_diagonal(self) -> Tensor | None:
        left, right = self.left.exact_diagonal(), self.right.exact_diagonal()
        return None if left is None or right is None else left + right

    def exact_trace(self) -> float | None:
        left, right = self.left.exact_trace(), self.right.exact_trace()
        return None if left is None or right is None else left + right


class Composed(LinearOperator):
    """A B; symmetric where A is the transpose of B."""

    def __init__(self, left: LinearOperator, right: LinearOperator) -> None:
        _check_same(left.columns, right.rows, f"{left.name} @ {right.name}")
        gram = (isinstance(left, Transposed) and left.operator is right) or (
            isinstance(right, Transposed) and right.operator is left
        )
        super().__init__(
            f"{left.name} {right.name}",
            left.rows,
            right.columns,
            symmetric=gram or (left is right and left.symmetric),
            watch=left.watch,
        )
        self.left, self.right = left, right

    def apply(self, vector: Tensor) -> Tensor:
        return self.left.apply(self.right.apply(vector))

    def apply_transposed(self, vector: Tensor) -> Tensor:
        return self.right.apply_transposed(self.left.apply_transposed(vector))

    def apply_many(self, vectors: Tensor) -> Tensor:
        return self.left.apply_many(self.right.apply_many(vectors))


class Transposed(LinearOperator):
    """Aᵀ."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(
            f"{operator.name}ᵀ", operator.columns, operator.rows, symmetric=False, watch=operator.watch
        )
        self.operator = operator

    def apply(self, vector: Tensor) -> Tensor:
        return self.operator.apply_transposed(vector)

    def apply_transposed(self, vector: Tensor) -> Tensor:
        return self.operator.apply(vector)

    @property
    def T(self) -> LinearOperator:
        return self.operator

    def exact_diagonal(self) -> Tensor | None:
        return self.operator.exact_diagonal()

    def exact_trace(self) -> float | None:
        return self.operator.exact_trace()


class Part(LinearOperator):
    """Some rows and columns."""

    def __init__(self, operator: LinearOperator, rows: tuple[str, ...], columns: tuple[str, ...]) -> None:
        shown = ", ".join(rows) if rows == columns else f"{', '.join(rows)}; {', '.join(columns)}"
        super().__init__(
            f"{operator.name}[{shown}]",
            operator.rows.part(rows),
            operator.columns.part(columns),
            symmetric=operator.symmetric and rows == columns,
            watch=operator.watch,
        )
        self.operator = operator
        self._rows, self._columns = operator.rows.positions(rows), operator.columns.positions(columns)

    def apply(self, vector: Tensor) -> Tensor:
        whole = vector.new_zeros(self.operator.columns.size)
        whole[self._columns] = vector
        return self.operator.apply(whole)[self._rows]

    def apply_transposed(self, vector: Tensor) -> Tensor:
        whole = vector.new_zeros(self.operator.rows.size)
        whole[self._rows] = vector
        return self.operator.apply_transposed(whole)[self._columns]

    def exact_diagonal(self) -> Tensor | None:
        found = self.operator.exact_diagonal() if self.rows == self.columns else None
        return None if found is None else found[self._rows]


class BlockDiagonal(LinearOperator):
    """Operators on parts of a space, and nothing beside them.

    Args:
        space: of all of them.
        blocks: by name, each on a part of the space.
        name: for errors.
        watch: shows how far long work is.

    Raises:
        OperatorError: they have parameters in common, or not all of them.
    """

    def __init__(
        self, space: Space, blocks: Mapping[str, LinearOperator], name: str, watch: Watch | None = None
    ) -> None:
        owned = [parameter for block in blocks.values() for parameter in block.rows.shapes]
        if sorted(owned) != sorted(space.shapes):
            missing = [name for name in space.shapes if name not in owned]
            twice = [parameter for parameter in space.shapes if owned.count(parameter) > 1]
            where = f"'{missing[0]}' is in none" if missing else f"'{twice[0]}' is in several"
            raise OperatorError(f"{name}: {where} of the parts", hint="each parameter in one group")
        symmetric = all(block.symmetric for block in blocks.values())
        super().__init__(name, space, space, symmetric=symmetric, watch=watch)
        self.blocks = dict(blocks)
        self._positions = {key: space.positions(block.rows.shapes) for key, block in blocks.items()}

    def apply(self, vector: Tensor) -> Tensor:
        found = torch.empty_like(vector)
        for key, block in self.blocks.items():
            found[self._positions[key]] = block.apply(vector[self._positions[key]])
        return found

    def apply_transposed(self, vector: Tensor) -> Tensor:
        found = torch.empty_like(vector)
        for key, block in self.blocks.items():
            found[self._positions[key]] = block.apply_transposed(vector[self._positions[key]])
        return found

    def exact_diagonal(self) -> Tensor | None:
        found = torch.empty(self.rows.size, dtype=self.dtype, device=self.device)
        for key, block in self.blocks.items():
            part = block.exact_diagonal()
            if part is None:
                return None
            found[self._positions[key]] = part
        return found

    def exact_trace(self) -> float | None:
        parts = [block.exact_trace() for block in self.blocks.values()]
        found = [part for part in parts if part is not None]
        return sum(found) if len(found) == len(parts) else None


class DiagonalBlocks(BlockDiagonal):
    """The blocks on the diagonal of one operator: a vector goes through it once for each, all at once."""

    def __init__(self, operator: LinearOperator, blocks: Mapping[str, LinearOperator]) -> None:
        super().__init__(operator.rows, blocks, f"block diagonal of {operator.name}", operator.watch)
        self.operator = operator

    def apply(self, vector: Tensor) -> Tensor:
        return self.apply_many(vector[:, None])[:, 0]

    def apply_many(self, vectors: Tensor) -> Tensor:
        apart = vectors.new_zeros((len(vectors), len(self.blocks), vectors.shape[1]))
        for k, positions in enumerate(self._positions.values()):
            apart[positions, k] = vectors[positions]
        images = self.operator.apply_many(apart.flatten(1)).view_as(apart)
        found = torch.empty_like(vectors)
        for k, positions in enumerate(self._positions.values()):
            found[positions] = images[positions, k]
        return found

    def apply_transposed(self, vector: Tensor) -> Tensor:
        return self.T.apply(vector)

    @property
    def T(self) -> LinearOperator:
        if self.symmetric:
            return self
        blocks = {key: block.T for key, block in self.blocks.items()}
        return DiagonalBlocks(self.operator.T, blocks)


def added(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    """A + B; a multiple of I is added to the eigenvalues where these are known.

    Raises:
        OperatorError: the spaces are not the same.
    """
    from sifrc.linear.kronecker import Kronecker

    for one, other in ((left, right), (right, left)):
        shift = shift_of(other)
        if isinstance(one, Kronecker) and shift is not None and one.rows == other.rows:
            return one.shifted(shift)
    return Sum(left, right)


def scaled(operator: LinearOperator, factor: float) -> LinearOperator:
    """c A; of Kronecker factors with their eigenvalues, so that they stay such.

    Raises:
        OperatorError: the factor is not finite.
    """
    from sifrc.linear.kronecker import Kronecker

    if isinstance(operator, Kronecker) and isfinite(factor):
        return operator.scaled(factor)
    return Scaled(operator, factor)


def shift_of(operator: LinearOperator) -> float | None:
    """c of c I."""
    if isinstance(operator, Identity):
        return 1.0
    if isinstance(operator, Scaled):
        inner = shift_of(operator.operator)
        return None if inner is None else operator.factor * inner
    return None


def part_of(operator: LinearOperator, rows: tuple[str, ...], columns: tuple[str, ...]) -> LinearOperator:
    """Some rows and columns; those of a part are taken from the whole."""
    if rows == tuple(operator.rows.shapes) and columns == tuple(operator.columns.shapes):
        return operator
    if isinstance(operator, Part):
        return Part(operator.operator, rows, columns)
    return Part(operator, rows, columns)


def _check_same(left: Space, right: Space, what: str) -> None:
    if left == right:
        return
    if left.shapes != right.shapes:
        raise OperatorError(
            f"{what}: spaces of other tensors ({left.size} and {right.size} entries)",
            hint="operators on the same parameters",
        )
    raise OperatorError(
        f"{what}: {left.dtype} on {left.device}, and {right.dtype} on {right.device}",
        hint="operators of one dtype on one device",
    )
