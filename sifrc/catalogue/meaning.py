"""What a result is, as a derivative of the objective: what verification computes on its oracles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sifrc.derive.curvature.sharing import Sharing

__all__ = [
    "Along",
    "BlockProduct",
    "Blocks",
    "Diagonal",
    "Factors",
    "Gradient",
    "Meaning",
    "NewtonDirection",
    "Product",
    "SampleBlocks",
    "Value",
]

Moment: TypeAlias = Literal["second", "mean", "exact", "places"]


@dataclass(frozen=True)
class Meaning:
    """Base of all: an operator may bring its own, with a rule in :mod:`sifrc.verify.meaning`."""


@dataclass(frozen=True)
class Value(Meaning):
    """The loss or the objective of a batch, or its loss after training."""

    of: Literal["loss", "objective", "evaluation_loss"]


@dataclass(frozen=True)
class Gradient(Meaning):
    """∂L/∂θ."""


@dataclass(frozen=True)
class Product(Meaning):
    """A matrix times the vector: the Hessian of the objective, or the Gauss–Newton matrix of the loss."""

    matrix: Literal["hessian", "gauss_newton"]


@dataclass(frozen=True)
class NewtonDirection(Meaning):
    """What the Hessian maps to the gradient, for one sample."""


@dataclass(frozen=True)
class SampleBlocks(Meaning):
    """The blocks of the biases, of every sample."""


@dataclass(frozen=True)
class Blocks(Meaning):
    """Diagonal blocks of a curvature, by parameter.

    Args:
        dense: also those of the weights.
    """

    dense: bool


@dataclass(frozen=True)
class Factors(Meaning):
    """Block of the pre-activation and moment of the input, by layer.

    Args:
        moment: which one.
        sharing: over which pairs of places is summed where a weight acts at several; None where none does.
    """

    moment: Literal["second", "mean"]
    sharing: Sharing | None = None


@dataclass(frozen=True)
class BlockProduct(Meaning):
    """Block-diagonal curvature times the vector.

    Args:
        moment: ``exact``, or what stands for the inputs; ``places``, EA-CG(5) on every pair of places.
        sharing: as in :class:`Factors`.
    """

    moment: Moment
    sharing: Sharing | None = None


@dataclass(frozen=True)
class Diagonal(Meaning):
    """Diagonal of a curvature.

    Args:
        others: of the parameters without Kronecker factors alone.
    """

    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Along(Meaning):
    """Derivatives of the objective along the groups' parts of the vector.

    Args:
        order: 1, 2 or 3.
        full: of order 3, all of it and not its diagonal.
    """

    order: int
    full: bool = False
