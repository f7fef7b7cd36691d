"""Gradients of the samples of a batch, and what people make of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from types import MappingProxyType

from sifrc.catalogue.context import Context, Declaration, OperatorSet
from sifrc.catalogue.meaning import Meaning
from sifrc.catalogue.phase import Row
from sifrc.catalogue.record import Argument, Case, Operator
from sifrc.derive.samples import (
    SAMPLE_GRADIENT,
    SAMPLE_SYSTEMS,
    SECOND_MOMENT,
    SQUARED_NORM,
    VARIANCE,
    sample_system,
)
from sifrc.derive.separability import check_separable

__all__ = ["SAMPLES"]


@dataclass(frozen=True)
class SampleGradients(Meaning):
    """∂L/∂θ of every sample, or a moment of these.

    Args:
        moment: as the operator calls it.
    """

    moment: str


_QUANTITIES = {"none": SAMPLE_GRADIENT, "norm": SQUARED_NORM, "second": SECOND_MOMENT, "variance": VARIANCE}


_BEFORE = MappingProxyType({"variance": ("gradient", SAMPLE_SYSTEMS["second"])})
"""Systems whose values a moment is made of."""


def _per_sample_gradients(declared: Declaration, context: Context) -> Operator:
    check_separable(context.model, f"{declared.name} are gradients")
    cases = [
        Case(
            (*_BEFORE.get(moment, ()), name),
            (context.like_params(_QUANTITIES[moment], SampleGradients(moment)),),
            (("moment", (moment,)),),
            batch_axis=moment in ("none", "norm"),
            scaled=False,
        )
        for moment, name in SAMPLE_SYSTEMS.items()
    ]
    return Operator(
        declared.name,
        declared.doc,
        "ESN(10)",
        tuple(cases),
        prepare=("forward", *context.before_loss, "adjoint"),
        arguments=(
            Argument(
                "moment",
                "none",
                "none: the gradients themselves; norm: their squared norms; second: the mean over the batch "
                "of their squares; variance: the mean of their squared distances from the mean.",
            ),
        ),
        returns="Dict with the names of params: none: (B, …); norm: (B,); otherwise like params. Of the "
        "objective of single samples, whatever the reduction of the loss is.",
    )


def _systems(context: Context, wanted: Collection[str]) -> Iterator[Row]:
    for moment, name in SAMPLE_SYSTEMS.items():
        after = ("forward", *context.before_loss, "adjoint", *_BEFORE.get(moment, ()))
        yield Row(name, lambda m=moment: sample_system(context.derived.first, m), after)  # type: ignore[misc]


SAMPLES = OperatorSet(
    (
        Declaration(
            "per_sample_gradients",
            "Gradient of the objective of every sample of a batch, or moments of these.",
            _per_sample_gradients,
        ),
    ),
    _systems,
)
