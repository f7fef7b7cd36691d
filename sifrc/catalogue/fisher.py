"""Products with Fisher matrices of all parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial

from sifrc.catalogue.context import Context, Declaration, OperatorSet
from sifrc.catalogue.meaning import Meaning
from sifrc.catalogue.phase import Row
from sifrc.catalogue.record import Case, Operator, Vector
from sifrc.derive.curvature.kinds import KINDS
from sifrc.derive.fisher import FisherProduct as Derivation
from sifrc.derive.fisher import derive_fisher_product
from sifrc.derive.separability import check_separable
from sifrc.derive.shaped import DIRECTION, GAUSS_NEWTON_PRODUCT
from sifrc.derive.system import System

__all__ = ["FISHER", "FISHER_OPERATORS", "FisherProduct"]


@dataclass(frozen=True)
class FisherProduct(Meaning):
    """The mean over the batch of outer products of scores, times the vector.

    Args:
        kind: ``fisher`` or ``empirical_fisher``.
    """

    kind: str


_PRODUCTS = {"fisher": "fisher_vector_product", "empirical_fisher": "empirical_fisher_vector_product"}
FISHER_OPERATORS: tuple[str, ...] = tuple(_PRODUCTS.values())
"""Their names."""


def _derived(context: Context, kind: str) -> Derivation:
    return derive_fisher_product(context.model, context.derived.gauss_newton, KINDS[kind])


def _product(kind: str, declared: Declaration, context: Context) -> Operator:
    check_separable(context.model, f"{declared.name} is made of scores")
    _derived(context, kind)  # refused here, where no distribution of targets is known
    result = context.like_params(GAUSS_NEWTON_PRODUCT, FisherProduct(kind))
    return Operator(
        declared.name,
        declared.doc,
        "",
        (Case(("linearized", f"{kind}_product"), (result,)),),
        prepare=("forward", *context.before_loss, f"scores_of_{kind}"),
        vector=Vector(DIRECTION.families),
        linearized=kind,
    )


def _systems(context: Context, wanted: Collection[str]) -> Iterator[Row]:
    base = ("forward", *context.before_loss)
    for kind in _PRODUCTS:

        def part(take: Callable[[Derivation], System], kind: str = kind) -> System:
            return take(_derived(context, kind))

        scores, product = f"scores_of_{kind}", f"{kind}_product"
        yield Row(scores, partial(part, lambda found: found.scores), base)
        yield Row(product, partial(part, lambda found: found.product), (*base, scores, "linearized"))


FISHER = OperatorSet(
    (
        Declaration(
            _PRODUCTS["fisher"],
            "Fisher matrix of the model, over the classes or the Gaussian of the loss, times a vector.",
            partial(_product, "fisher"),
        ),
        Declaration(
            _PRODUCTS["empirical_fisher"],
            "Mean of the outer products of the samples' loss gradients times a vector.",
            partial(_product, "empirical_fisher"),
        ),
    ),
    _systems,
)
