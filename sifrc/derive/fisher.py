"""Products with Fisher matrices, Jᵀ S Sᵀ J, from the linearised model and scores at the output.

The Gauss–Newton product goes back from r = ∂²ℓ/∂x_n² ẋ_n; with r = S Sᵀ ẋ_n the same adjoints give the
product with the average of outer products of scores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sifrc.derive.curvature.kinds import Kind
from sifrc.derive.curvature.scores import score
from sifrc.derive.gauss_newton import GaussNewton
from sifrc.derive.system import Equation, System, with_uses
from sifrc.ir import Axis, Input, Role
from sifrc.ir.build import einsum, transpose
from sifrc.model import Model

__all__ = ["FisherProduct", "derive_fisher_product"]


@dataclass(frozen=True)
class FisherProduct:
    """What a product has of the point, and the backward sweep.

    Args:
        scores: S at the output.
        product: adjoint of the linearised model from S Sᵀ ẋ_n, and the product.
    """

    scores: System
    product: System


def derive_fisher_product(model: Model, linear: GaussNewton, kind: Kind) -> FisherProduct:
    """The product of a Fisher matrix with the direction (N, η).

    Raises:
        DerivationError: the kind needs a distribution of targets, and none is known for the loss.
    """
    output = model.output
    start = score(model, kind)
    value, family = start.value, "S"
    numbers: tuple[Axis, ...] = ()
    kept: tuple[Axis, ...] = ()
    if start.own is not None:
        # Scores of a place are zero at all others: the axes of the places need not be there twice.
        value, family = start.own, "Sᶜ"
        numbers, kept = start.extra[-1:], (*model.output_places, *start.extra[-1:])
    scores = Input(family, output.index, (*numbers, *output.axes), Role.ADJOINT)
    move = output.symbol("dx", Role.TANGENT)
    along = einsum([(scores, scores.axes), (move, output.axes)], kept)
    curved = einsum([(scores, scores.axes), (along, kept)], output.axes)
    seed, *backward = linear.adjoint.equations
    adjoint = replace(linear.adjoint, equations=(replace(seed, value=curved), *backward))
    definition = Equation(scores, transpose(value, scores.axes), output.index, "definition")
    title = "Adjoint of the linearised model from the scores, and the product with their outer products"
    return FisherProduct(
        System(f"scores_of_{kind.name}", "Scores at the output", (*start.equations, definition)),
        with_uses(f"{kind.name}_product", title, adjoint, linear.product),
    )
