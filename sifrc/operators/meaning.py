"""What a result is, as a derivative of the objective: what verification computes on its oracles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

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

Moment: TypeAlias = Literal["second", "mean", "exact"]


@dataclass(frozen=True)
class Value:
    """The loss or the objective of a batch."""

    of: Literal["loss", "objective"]


@dataclass(frozen=True)
class Gradient:
    """∂L/∂θ."""


@dataclass(frozen=True)
class Product:
    """A matrix times the vector: the Hessian of the objective, or the Gauss–Newton matrix of the loss."""

    matrix: Literal["hessian", "gauss_newton"]


@dataclass(frozen=True)
class NewtonDirection:
    """What the Hessian maps to the gradient, for one sample."""


@dataclass(frozen=True)
class SampleBlocks:
    """The blocks of the biases, of every sample."""


@dataclass(frozen=True)
class Blocks:
    """Diagonal blocks of a curvature, by parameter.

    Args:
        dense: also those of the weights.
    """

    dense: bool


@dataclass(frozen=True)
class Factors:
    """Block of the pre-activation and moment of the input, by layer."""

    moment: Literal["second", "mean"]


@dataclass(frozen=True)
class BlockProduct:
    """Block-diagonal curvature times the vector.

    Args:
        moment: ``exact``, or what stands for the inputs.
    """

    moment: Moment


@dataclass(frozen=True)
class Diagonal:
    """Diagonal of a curvature."""


@dataclass(frozen=True)
class Along:
    """Derivatives of the objective along the groups' parts of the vector.

    Args:
        order: 1, 2 or 3.
        full: of order 3, all of it and not its diagonal.
    """

    order: int
    full: bool = False


Meaning: TypeAlias = (
    Value
    | Gradient
    | Product
    | NewtonDirection
    | SampleBlocks
    | Blocks
    | Factors
    | BlockProduct
    | Diagonal
    | Along
)
