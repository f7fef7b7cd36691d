"""Operators that give Kronecker factors, and what others need to know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from sifrc.catalogue.context import Context, Declaration
from sifrc.catalogue.meaning import Factors, Gradient
from sifrc.catalogue.record import Argument, Case, Field, Form, Operator, Pairs, Record
from sifrc.derive.curvature.kinds import EXACT_WHEN
from sifrc.derive.curvature.sharing import SHARINGS, Sharing
from sifrc.derive.curvature.systems import FACTORED, Curvature, Moment, factor_blocks_name, moments_name
from sifrc.derive.shaped import GRADIENT
from sifrc.model import Model

__all__ = [
    "FORMS",
    "MEANS",
    "MOMENTS",
    "curvature_factors",
    "factor_functions",
    "gradient_and_factors",
    "other_names",
    "sharing_argument",
    "sharing_choice",
    "sharings",
]

MOMENTS: tuple[Moment, ...] = ("second", "mean")
FORMS: tuple[Form, ...] = ("samples", *FACTORED, "batch")
MEANS: Mapping[Form, tuple[str, ...]] = MappingProxyType(
    {form: (f"mean_blocks_of_{form}",) for form in FACTORED} | {"samples": ("mean_blocks",), "batch": ()}
)
"""Functions that compute the blocks of the batch."""

_AT_PLACES = (
    ", and, where a weight acts at several places, if these have nothing to do with each other (expand) or "
    "have all the same derivatives (reduce)"
)
"""What is needed besides for factors to be the block."""
_SHARING = (
    "where a weight acts at several places s, expand: mean over s of E[x_s x_sᵀ] and the blocks of single "
    "places, added up, or reduce: E[x xᵀ] of the mean x over s and the block of all places together."
)

_PAIRS = "layer -> Factors(moment (m, m) or (m,), block (n, n))"
_NAMED = 4
"""Parameters that a docstring names."""
_GROUPS = " Of channels in groups there is one pair for each, along a first axis."
_CLASSES = " Of layers that read classes E[x xᵀ] is diagonal, and a vector."


def _factors_record(curvature: Curvature) -> Record:
    """The class of the pairs, with what is said of those that a network has."""
    readings = [curvature.reading(owned) for owned, _ in curvature.factored]
    grouped = any(reading is not None and reading.group is not None for reading in readings)
    classes = any(reading is not None and reading.of_classes for reading in readings)
    return Record(
        "Factors",
        "Kronecker factors, means over the batch: ``block`` ⊗ ``moment`` approximates a weight's block."
        + (_GROUPS if grouped else ""),
        (
            Field(
                "moment",
                f"E[x xᵀ] of the layer's input x, or E[x].{_CLASSES if classes else ''}",
                scaled=False,
            ),
            Field("block", "Block of the layer's pre-activation."),
        ),
    )


def sharings(model: Model) -> tuple[Sharing | None, ...]:
    """What there is to choose where weights act at several places."""
    return (None,) if model.separates else SHARINGS


def sharing_choice(sharing: Sharing | None) -> tuple[tuple[str, tuple[object, ...]], ...]:
    """The value of the argument, where there is one."""
    return () if sharing is None else (("sharing", (sharing,)),)


def sharing_argument(model: Model) -> tuple[Argument, ...]:
    return () if model.separates else (Argument("sharing", "expand", _SHARING),)


def _factors(curvature: Curvature, moment: Moment, sharing: Sharing | None) -> Pairs:
    rows = []
    for owned, _ in reversed(curvature.factored):
        pair = curvature.moment(owned, moment), curvature.factor_block(owned)
        rows.append((owned.layer, ((pair[0].family, pair[0].index), (pair[1].family, pair[1].index))))
    return Pairs(_factors_record(curvature), tuple(rows), Factors(moment, sharing))


def factor_functions(form: Form, moment: Moment, sharing: Sharing | None) -> tuple[str, ...]:
    """Functions that compute the factors of the weights' blocks."""
    if sharing is None:
        return (*MEANS[form], f"{moment}_moments")
    return (factor_blocks_name(form, sharing), moments_name(moment, sharing))


def curvature_factors(declared: Declaration, context: Context) -> Operator:
    model, curvature = context.model, context.derived.curvature
    if not curvature.factored:
        raise next(filter(None, map(curvature.refusal, model.parameters)))
    cases = [
        Case(
            factor_functions(form, moment, sharing),
            (_factors(curvature, moment, sharing),),
            (("moment", (moment,)), *sharing_choice(sharing)),
            (form,),
        )
        for form in FORMS
        for moment in MOMENTS
        for sharing in sharings(model)
    ]
    return Operator(
        declared.name,
        declared.doc,
        "EA-CG(5, 11)",
        tuple(cases),
        arguments=(
            Argument("moment", "second", "second: E[x xᵀ] of the input x of the layer, or mean: E[x]."),
            *sharing_argument(model),
        ),
        kinds=context.kinds,
        returns=f"Dict {_PAIRS}, each a mean over the batch. The "
        "weight's block is the mean of products; block ⊗ moment, a product of means, approximates it and is "
        f"exact for {EXACT_WHEN['moment']}{'' if model.separates else _AT_PLACES}."
        + (_without_factors(curvature) if curvature.others else ""),
    )


def other_names(curvature: Curvature) -> tuple[str, ...]:
    """Parameters without factors."""
    return tuple(parameter.name for owned in curvature.others for parameter in owned.members)


def _without_factors(curvature: Curvature) -> str:
    """The sentence about the other parameters."""
    names = other_names(curvature)
    some = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    return f" Parameters without factors are left out: {some}; ``diagonal`` has theirs."


def gradient_and_factors(declared: Declaration, context: Context) -> Operator:
    return replace(
        curvature_factors(declared, context),
        extra=("gradient",),
        also=(context.like_params(GRADIENT, Gradient()),),
        returns=f"Dict like params, and dict {_PAIRS}, as ``curvature_factors`` has them.",
    )
