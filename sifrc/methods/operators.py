"""Public operators as compositions of derived systems: one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType

from sifrc.derive.derived import Derived
from sifrc.derive.shaped import (
    DIRECTION,
    GAUSS_NEWTON_PRODUCT,
    GRADIENT,
    HESSIAN_PRODUCT,
    NEWTON_DIRECTION,
)
from sifrc.derive.system import Equation, System
from sifrc.errors import Location, MethodError
from sifrc.ir import Input
from sifrc.methods.curvature import CURVATURE_OPERATORS
from sifrc.methods.plan import OperatorPlan, Phase
from sifrc.methods.summary import SUMMARY

__all__ = ["OPERATORS", "all_phases", "resolve_operators", "with_spectral"]

_TABLE = (
    OperatorPlan(
        "loss", ("forward", "objective"), scalar="loss", doc="Mean loss of a batch.", source="ESN(1)"
    ),
    OperatorPlan(
        "objective",
        ("forward", "objective"),
        scalar="objective",
        doc="Mean loss and state regularisation of a batch.",
        source="ESN(4)",
    ),
    OperatorPlan(
        "gradient",
        ("forward", "adjoint", "gradient"),
        tensors=GRADIENT.families,
        doc="Gradient of the objective.",
        source="ESN(9, 10)",
    ),
    OperatorPlan(
        "objective_and_gradient",
        ("forward", "objective", "adjoint", "gradient"),
        scalar="objective",
        tensors=GRADIENT.families,
        doc="Objective and its gradient, in one pass.",
        source="ESN(9, 10)",
    ),
    OperatorPlan(
        "hessian_vector_product",
        ("forward", "adjoint"),
        ("tangent", "adjoint_tangent", "hessian_product"),
        tensors=HESSIAN_PRODUCT.families,
        vector=DIRECTION.families,
        doc="Hessian of the objective times a vector.",
        source="ESN(16), MK(31)",
    ),
    OperatorPlan(
        "gauss_newton_vector_product",
        ("forward",),
        ("linearized", "linearized_adjoint", "gauss_newton_product"),
        tensors=GAUSS_NEWTON_PRODUCT.families,
        vector=DIRECTION.families,
        doc="Gauss–Newton matrix of the data loss times a vector.",
        source="",
    ),
    OperatorPlan(
        "newton_direction",
        ("forward", "adjoint", "newton"),
        tensors=NEWTON_DIRECTION.families,
        batched=False,
        doc="Newton direction (N, η) of one sample, H·(N, η) = gradient; a step is params − lr·(N, η).",
        source="ESN(17)",
    ),
)

OPERATORS: Mapping[str, OperatorPlan] = MappingProxyType({plan.name: plan for plan in _TABLE})
"""Every operator by name."""

_ALIASES: Mapping[str, str] = MappingProxyType({"linearize": "hessian_vector_product"})
_ALWAYS = ("loss", "objective")


def resolve_operators(
    names: tuple[str, ...], locations: Mapping[str, Location] = MappingProxyType({})
) -> tuple[OperatorPlan, ...]:
    """Operators by name, in the order of the table; ``loss`` and ``objective`` are always there.

    Operators on curvature blocks are known, but not among those returned: see
    :func:`sifrc.methods.curvature.curvature_operators`.

    Args:
        names: what is asked for.
        locations: where each is asked for.

    Raises:
        MethodError: an unknown operator.
    """
    known = [*OPERATORS, *_ALIASES, *CURVATURE_OPERATORS, SUMMARY]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise MethodError(
                f"unknown operator '{name}'",
                location=locations.get(name),
                label=f"did you mean '{near[0]}'?" if near else None,
                hint=f"operators: {', '.join(known)}",
            )
    wanted = {_ALIASES.get(name, name) for name in names} | set(_ALWAYS)
    return tuple(plan for name, plan in OPERATORS.items() if name in wanted)


def all_phases(derived: Derived, wanted: Mapping[str, set[str]]) -> tuple[Phase, ...]:
    """The wanted phases with what must have run before each."""
    spectral = derived.spectral
    base = ("forward",) if spectral is None else ("forward", "spectral")
    phases: list[Phase] = []

    def put(system: System, *after: str) -> None:
        forms = tuple(form for form in ("batched", "single") if form in wanted.get(system.name, ()))
        if forms:
            phases.append(Phase(system, after, forms))

    put(derived.first.forward)
    if spectral is not None:
        forms = {form for forms in wanted.values() for form in forms}
        phases.append(
            Phase(spectral.system, ("forward",), tuple(f for f in ("batched", "single") if f in forms))
        )
    put(derived.first.objective, *base)
    put(derived.first.adjoint, *base)
    if "gradient" in wanted:
        put(derived.first.gradient, *base, "adjoint")
    if "tangent" in wanted:
        put(derived.second.tangent, *base, "adjoint")
        put(derived.second.adjoint_tangent, *base, "adjoint", "tangent")
        put(derived.second.product, *base, "adjoint", "tangent", "adjoint_tangent")
    if "linearized" in wanted:
        put(derived.gauss_newton.tangent, "forward")
        put(derived.gauss_newton.adjoint, "forward", "linearized")
        put(derived.gauss_newton.product, "forward", "linearized", "linearized_adjoint")
    if "newton" in wanted:
        put(_as_result(derived.exact_newton.system()), *base, "adjoint")
    return tuple(phases)


def with_spectral(plan: OperatorPlan, derived: Derived) -> OperatorPlan:
    """The operator with the spectral phase in its place, where the spec asks for it."""
    factored = derived.model.loss_factor is not None  # λ_n multiplies the loss
    if derived.spectral is None or (plan.prepare == ("forward",) and not factored):
        return plan
    return replace(plan, prepare=("forward", "spectral", *plan.prepare[1:]))


def _as_result(system: System) -> System:
    """Newton directions as results: apart from the vector (N, η) that a product is given."""
    equations = tuple(
        Equation(
            Input(f"{e.symbol.family}*", e.symbol.index, e.symbol.slots, e.symbol.role),
            e.value,
            e.layer,
            e.source,
        )
        for e in system.equations
    )
    return replace(system, equations=equations)
