"""Everything derived from one model, each part when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, wraps
from typing import TypeVar

from sifrc.derive.acceptance import accept
from sifrc.derive.curvature.systems import Curvature
from sifrc.derive.gauss_newton import GaussNewton, derive_gauss_newton
from sifrc.derive.lagrangian import FirstOrder, derive_first_order
from sifrc.derive.newton import Newton, derive_newton
from sifrc.derive.output_range import check_output_range
from sifrc.derive.preconditions import check_newton_preconditions
from sifrc.derive.sifrian import SecondOrder, derive_second_order
from sifrc.derive.spectral import Spectral, derive_spectral
from sifrc.derive.summaries import Summaries
from sifrc.model import Model
from sifrc.model.partition import partition_of

__all__ = ["Derived"]

T = TypeVar("T")


def _shared(derive: Callable[[Derived], T]) -> cached_property[T]:
    """A part that is taken from the derivations that an object goes on with, if it has such."""

    @wraps(derive)
    def part(self: Derived) -> T:
        known: T = derive(self) if self.base is None else getattr(self.base, derive.__name__)
        return known

    return cached_property(part)


class Derived:
    """The derivations of a model, computed once each.

    Args:
        model: the model.
        white_layer: whether an identity layer before the input fixes N_1 (ESN 2.2).
        base: derivations of the same network to go on with: what is there is not derived again.
    """

    def __init__(self, model: Model, white_layer: bool = True, base: Derived | None = None) -> None:
        self.model = model
        self.white_layer = white_layer
        self.base = base

    @_shared
    def first(self) -> FirstOrder:
        """Lagrangian, back-propagation, gradient."""
        return derive_first_order(self.model)

    @_shared
    def second(self) -> SecondOrder:
        """Sifrian, its four equations, Hessian–vector product."""
        return derive_second_order(self.first)

    @_shared
    def gauss_newton(self) -> GaussNewton:
        """Gauss–Newton–vector product."""
        return derive_gauss_newton(self.first)

    @_shared
    def curvature(self) -> Curvature:
        """Curvature blocks of the pre-activations, moments, and what is made of them."""
        return Curvature(self.first)

    @_shared
    def summaries(self) -> Summaries:
        """Summaries along a direction, by the spec's partition of the parameters."""
        return Summaries(self.first, partition_of(self.model.spec))

    @cached_property
    def accepted(self) -> tuple[Newton, str]:
        """Closed-form Newton direction of one sample, and how it was accepted.

        Raises:
            DerivationError: a precondition fails.
            VerificationError: the direction does not satisfy the tetrad.
        """
        if self.base is not None and self.base.white_layer == self.white_layer:
            return self.base.accepted
        newton = derive_newton(self.second, self.white_layer)
        return newton, accept(newton)

    @property
    def newton(self) -> Newton:
        """Closed-form Newton direction of one sample.

        Raises:
            DerivationError: a precondition fails.
            VerificationError: the direction does not satisfy the tetrad.
        """
        return self.accepted[0]

    @property
    def accepted_by(self) -> str:
        """How the Newton direction was accepted."""
        return self.accepted[1]

    @cached_property
    def exact_newton(self) -> Newton:
        """The same with its granular part, which solves a system of the size of the output.

        Raises:
            DerivationError: also where that system has no solution whatever the sample.
        """
        check_newton_preconditions(self.model)
        check_output_range(self.model)
        return self.newton

    @property
    def before_loss(self) -> tuple[str, ...]:
        """Systems of what the loss has for factors, which are held constant under differentiation."""
        spectral = () if self.spectral is None else ("spectral",)
        return spectral if self.model.normalization is None else (*spectral, "normalization")

    @cached_property
    def spectral(self) -> Spectral | None:
        """λ_k of MK(65), where the spec asks for it."""
        if self.model.spec.regularization.kind != "spectral":
            return None
        return derive_spectral(self.model, self.white_layer)
