"""Products with the Jacobian of the outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sifrc.catalogue.context import Context, Declaration, OperatorSet
from sifrc.catalogue.meaning import Meaning
from sifrc.catalogue.phase import Row
from sifrc.catalogue.record import Case, Entry, Operator, Table, Vector
from sifrc.derive.shaped import DIRECTION

__all__ = ["JACOBIANS", "JACOBIAN_OPERATORS", "OutputsAlong"]


@dataclass(frozen=True)
class OutputsAlong(Meaning):
    """Derivatives of the outputs of the samples along the vector."""


JACOBIAN_OPERATORS: tuple[str, ...] = ("jacobian_vector_product",)
"""Their names."""


def _along(declared: Declaration, context: Context) -> Operator:
    result = Table((Entry("outputs", ("dx", context.model.output.index)),), OutputsAlong())
    return Operator(
        declared.name,
        declared.doc,
        "",
        (Case(("linearized",), (result,), batch_axis=True, scaled=False),),
        prepare=("forward",),
        vector=Vector(DIRECTION.families),
        returns='Dict with "outputs", of the shape of the network\'s outputs.',
    )


def _systems(context: Context, wanted: Collection[str]) -> Iterator[Row]:
    """The linearised forward model is a system of the products."""
    return iter(())


JACOBIANS = OperatorSet(
    (
        Declaration(
            JACOBIAN_OPERATORS[0],
            "Derivative of the outputs along a vector: their Jacobian by the parameters times it.",
            _along,
        ),
    ),
    _systems,
)
