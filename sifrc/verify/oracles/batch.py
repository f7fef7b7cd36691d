"""What an oracle says of a batch: values and derivatives of the objective, from the forward pass alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np

from sifrc.derive.curvature.kinds import Kind
from sifrc.ir.arithmetic import Array
from sifrc.spec.types import Spec
from sifrc.verify.oracles.curvature_expected import Expected
from sifrc.verify.oracles.curvature_reference import Measured, output_scores
from sifrc.verify.summary_parts import Along, Coefficients, parts_of, remembered

__all__ = ["BatchOracle"]


class BatchOracle(ABC):
    """The oracle at one batch and one direction.

    Args:
        spec: the network.
        seed: of probes and coefficients.
        limit: digits that can agree at most.
        vector: the direction, by name.
        factor: what a loss that is a sum over the batch multiplies means by.
    """

    def __init__(
        self, spec: Spec, seed: int, limit: float, vector: Mapping[str, Array], factor: int = 1
    ) -> None:
        self.spec, self.seed, self.limit = spec, seed, limit
        self.vector, self.factor = vector, factor
        self._expected: dict[str, Expected] = {}

    @abstractmethod
    def value(self, of: Literal["loss", "objective", "evaluation_loss"]) -> Any:
        """Of the batch."""

    @abstractmethod
    def gradient(self) -> dict[str, Array]:
        """Of the objective, as :meth:`seen`."""

    @abstractmethod
    def sample_gradients(self) -> dict[str, Array]:
        """Of the objective of every sample, (B, …) by name."""

    @abstractmethod
    def product(self, matrix: Literal["hessian", "gauss_newton"]) -> dict[str, Array]:
        """Times the direction, as :meth:`seen`."""

    @abstractmethod
    def output_along(self) -> Array:
        """J times the direction, (B, n_out)."""

    @abstractmethod
    def pulled(self, cotangents: Array) -> dict[str, Array]:
        """Jᵀ times cotangents (B, n_out), as :meth:`seen`."""

    def fisher_product(self, kind: Kind) -> dict[str, Array]:
        """Mean of Jᵀ s sᵀ J over the samples, added up over their scores, times the direction."""
        scores = output_scores(self.measured, kind, self.drawn(kind))
        along = (scores * self.output_along()[:, None]).sum(axis=2)
        back = (scores * along[:, :, None]).sum(axis=1)
        return self.pulled(back * self.factor / len(back))

    @abstractmethod
    def newton(self, direction: Mapping[str, Array]) -> float:
        """Digits by which the Hessian maps a direction to the gradient."""

    @abstractmethod
    def derivatives(self, many: Sequence[Coefficients]) -> list[Any]:
        """Mixed derivatives of the objective, each along Σ_s c_s u_s for its coefficients."""

    @abstractmethod
    def measure(self) -> Measured:
        """The numbers of the batch, layer by layer."""

    @abstractmethod
    def drawn(self, kind: Kind) -> Array | None:
        """The random numbers (B, n_out) that a sampled kind is given; None for others."""

    def seen(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """How results like the parameters are compared: every entry, or products with probes."""
        return dict(tensors)

    @cached_property
    def measured(self) -> Measured:
        """The same numbers, once."""
        return self.measure()

    def expected(self, kind: Kind) -> Expected:
        """Results of a kind of curvature."""
        if kind.name not in self._expected:
            self._expected[kind.name] = Expected(self.measured, kind, self.drawn(kind), self.factor)
        return self._expected[kind.name]

    @cached_property
    def parts(self) -> list[dict[str, Array]]:
        """The direction's part u_s in each group of the parameters."""
        return parts_of(self.spec, self.vector)

    def combined(self, coefficients: Array) -> dict[str, Array]:
        """Σ_s c_s u_s."""
        pairs = [(c, part) for c, part in zip(coefficients, self.parts, strict=True) if c != 0]
        return {
            name: sum((c * part[name] for c, part in pairs), np.zeros_like(value))
            for name, value in self.vector.items()
        }

    @cached_property
    def along(self) -> Along:
        """The derivatives along combinations of the parts, each computed once."""
        return remembered(self.derivatives)
