"""What estimators that leave out one probe at a time have in common (Epperly, Tropp & Webber 2024).

With Y = A Ω = Q R, the range of all columns of Y but column i is that of Q (I − s_i s_iᵀ), where s_i is
column i of R⁻ᵀ with length one: it is orthogonal to all columns of R but column i.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sifrc.linear.operator import LinearOperator
from sifrc.linear.probes import signs

__all__ = ["LeaveOneOut"]


@dataclass(frozen=True)
class LeaveOneOut:
    """Probes, their images, and the range of the images.

    Args:
        probes: Ω (n, m), random signs.
        images: Y = A Ω.
        basis: Q (n, m).
        of_images: R = Qᵀ Y.
        applied: Z = A Q.
    """

    probes: Tensor
    images: Tensor
    basis: Tensor
    of_images: Tensor
    applied: Tensor

    @classmethod
    def of(cls, operator: LinearOperator, count: int, seed: int) -> LeaveOneOut:
        """Twice ``count`` products."""
        probes = signs(operator, count, seed)
        images = operator.apply_many(probes)
        basis, triangle = torch.linalg.qr(images)
        return cls(probes, images, basis, triangle, operator.apply_many(basis))

    @property
    def spans(self) -> bool:
        """Whether the probes' images do not span as many dimensions as there are, to rounding.

        Then they span the range of A: random probes do, whatever A is.
        """
        lengths = self.of_images.diagonal().abs()
        rounding = 100 * torch.finfo(lengths.dtype).eps * float(self.of_images.abs().max())
        return bool((lengths <= rounding).any())

    @cached_property
    def left_out(self) -> Tensor:
        """Columns s_i."""
        eye = torch.eye(len(self.of_images)).to(self.of_images)
        found = torch.linalg.solve_triangular(self.of_images.T, eye, upper=False)
        unit: Tensor = found / torch.linalg.vector_norm(found, dim=0)
        return unit

    @property
    def core(self) -> Tensor:
        """Qᵀ A Q."""
        return self.basis.T @ self.applied

    @property
    def tested(self) -> Tensor:
        """(A Q)ᵀ Ω."""
        return self.applied.T @ self.probes

    @property
    def coefficients(self) -> Tensor:
        """Column i: what probe i is on the range without it, (I − s_i s_iᵀ) Qᵀ ω_i."""
        return self.without(self.basis.T @ self.probes)

    def without(self, columns: Tensor) -> Tensor:
        """(I − s_i s_iᵀ) of column i."""
        return columns - self.left_out * (self.left_out * columns).sum(0)
