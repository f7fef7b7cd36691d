"""Parameters of which a solver has no Kronecker factors: their diagonals, and directions from them."""

from __future__ import annotations

from collections.abc import Iterator

from sifrc.derive.curvature.kinds import Kind
from sifrc.derive.curvature.sharing import Moment, no_factors
from sifrc.derive.derived import Derived
from sifrc.derive.shaped import DIAGONAL, GRADIENT, shaped
from sifrc.derive.system import Equation
from sifrc.derive.terms import penalty_curvature
from sifrc.errors import DerivationError, MethodError
from sifrc.ir import Expr, Input
from sifrc.ir.build import apply, einsum, hadamard, ones, rename, subtract, total
from sifrc.methods.base import MethodOption
from sifrc.methods.layer_factors import MOVE
from sifrc.methods.plan import MemorySpec
from sifrc.model import LayerParameters, Model, Parameter
from sifrc.scalar import RECIPROCAL

__all__ = ["AVERAGES", "OTHERS", "averaged", "damping", "direction", "noted", "without_factors"]

OTHERS = MethodOption(
    "others",
    "diagonal",
    "parameters without Kronecker factors, as scales of norms: diagonal, that of the block stands for it, or "
    "error",
    choices=("diagonal", "error"),
)
_KEPT = shaped("diagonal_average", "d̃W", "d̃β")
_NEW = _KEPT.marked("+")
AVERAGES = (
    MemorySpec("d̃W", "moving average of the weights' diagonals"),
    MemorySpec("d̃β", "moving average of the biases' diagonals"),
)
_NAMED = 4
"""Layers that a note names."""


def without_factors(
    derived: Derived, kind: Kind, solver: str, moment: Moment, chosen: str
) -> tuple[LayerParameters, ...]:
    """Layers whose parameters have diagonals alone, in the order of the network.

    Args:
        derived: the derivations.
        kind: of curvature.
        solver: of the equations of the others.
        moment: of what their weights read.
        chosen: the option ``others``.

    Raises:
        DerivationError: there are some, and they are not wanted.
        MethodError: their diagonals may have any sign.
    """
    found = []
    for owned in derived.model.parameters:
        refusal = derived.curvature.refusal(owned) or _untaken(derived, owned, solver, moment)
        if refusal is None:
            continue
        if chosen == "error":
            raise refusal
        found.append(owned)
    if found and kind.source == "objective" and not kind.definite:
        method = derived.model.spec.method
        raise MethodError(
            f"kind '{kind.name}' is indefinite, and the parameters of layer '{found[0].layer}' have a "
            "diagonal alone, by which their gradient is divided",
            location=method.location_of("kind") if method else None,
            hint="kind: ggn, or one of the Fisher kinds",
        )
    return tuple(found)


def _untaken(derived: Derived, owned: LayerParameters, solver: str, moment: Moment) -> DerivationError | None:
    """Why a solver does not take the factors of a weight; None where it does."""
    reading = derived.curvature.reading(owned)
    if reading is None or solver in ("ea_cg", "cg"):
        return None
    if reading.group is not None:
        reason = f"none for solver '{solver}', which takes one pair and not one for each group of channels"
    elif reading.of_classes and moment == "second" and solver == "exact":
        reason = "none for solver 'exact', which takes matrices, and the moment of classes is a vector"
    else:
        return None
    return no_factors(derived.model, f"the weight of layer '{owned.layer}'", owned, reason)


def noted(found: tuple[LayerParameters, ...]) -> list[str]:
    """The sentence about them, if there are some."""
    names = ", ".join(owned.layer for owned in found[:_NAMED]) + (", …" if len(found) > _NAMED else "")
    return [f"The diagonal of the curvature for the parameters of {names}."] if found else []


def averaged(found: tuple[LayerParameters, ...]) -> Iterator[tuple[Input, Input, Input]]:
    """The diagonal of a batch, the new average of it and the one that is kept, of every parameter."""
    for owned in reversed(found):
        for parameter in owned.members:
            yield DIAGONAL.of(parameter), _NEW.of(parameter), _KEPT.of(parameter)


def damping(model: Model, parameter: Parameter, alpha: Input) -> Expr:
    """α, and (1 − α) λ where the parameter has regularisation: what multiplies it in the damped curvature."""
    own = penalty_curvature(model, parameter)
    return (
        alpha if own is None else total([alpha, einsum([(subtract(ones(), alpha), ()), (own, ())], ())], ())
    )


def direction(model: Model, parameter: Parameter, alpha: Input, *, average: bool) -> Equation:
    """((1 − α) d + α) D = G, entry by entry.

    Args:
        model: with regularisation of the parameter, or without.
        parameter: with the diagonal d.
        alpha: the damping α.
        average: whether d is a moving average.
    """
    move, gradient = MOVE.of(parameter), GRADIENT.of(parameter)
    diagonal = (_NEW if average else DIAGONAL).of(parameter)
    axes = move.axes
    parts: list[Expr] = [
        einsum([(subtract(ones(), alpha), ()), (diagonal, axes)], axes),
        einsum([(damping(model, parameter, alpha), ())], axes),
    ]
    value = hadamard(apply(RECIPROCAL, total(parts, axes)), rename(gradient, axes))
    return Equation(move, value, move.index, "EA-CG(10)")
