"""From derived quantities, requested operators and a method to the plan of a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from sifrc.derive.curvature.kinds import kind_of
from sifrc.derive.curvature.scores import RANDOM
from sifrc.derive.derived import Derived
from sifrc.derive.shaped import NEWTON_DIRECTION
from sifrc.derive.system import Condition, System
from sifrc.ir.traverse import inputs_of
from sifrc.methods.base import Method, StepPlan, read_options
from sifrc.methods.curvature import (
    CURVATURE_OPERATORS,
    available_kinds,
    curvature_operators,
    curvature_phases,
    kind_plans,
)
from sifrc.methods.operators import all_phases, resolve_operators, with_spectral
from sifrc.methods.plan import Hyperparameter, Phase, Plan
from sifrc.methods.ranges import LARGEST_WHOLE, Range
from sifrc.methods.registry import find_method
from sifrc.methods.summary import SUMMARY, groups_of, owners_of, summary_operator, summary_phases
from sifrc.model import Model
from sifrc.spec.types import OptionValue

__all__ = ["Planned", "make_plan"]


@dataclass(frozen=True)
class Planned:
    """A plan, and what the module says about it.

    Args:
        plan: what the lowering needs.
        derived: the derivations it comes from.
        method: the method, or None for a module of operators only.
        options: the method's options with defaults filled in.
        conditions: of everything that is used.
        notes: statements of the method.
    """

    plan: Plan
    derived: Derived
    method: Method | None
    options: Mapping[str, OptionValue]
    conditions: tuple[Condition, ...]
    notes: tuple[str, ...]


def make_plan(
    model: Model,
    describe: Callable[[System], tuple[str, ...]] | None = None,
    known: Derived | None = None,
) -> Planned:
    """The plan for the operators and the method that the spec asks for.

    Args:
        model: built from the spec.
        describe: text of a system's equations, for docstrings.
        known: derivations of the same network to go on with.

    Raises:
        MethodError: an unknown method, operator or option.
        DerivationError: a precondition of something requested fails.
    """
    spec = model.spec
    method = None if spec.method is None else find_method(spec.method.name, spec.method.location)
    options: Mapping[str, OptionValue] = MappingProxyType({})
    if method is not None and spec.method is not None:
        options = read_options(method, spec.method)
    white = bool(options.get("white_layer", True))
    derived = Derived(model, white, known)
    operators = resolve_operators(spec.target.operators, spec.target.operator_locations)
    operators = tuple(with_spectral(operator, derived) for operator in operators)
    step = None if method is None else method.step(derived, options)
    named = tuple(name for name in spec.target.operators if name in CURVATURE_OPERATORS)
    kinds = available_kinds(derived, [kind_of(c) for c in spec.curvature]) if named else ()
    spectral_phase = derived.spectral is not None

    wanted: dict[str, set[str]] = {"forward": {"batched"}}
    for operator in operators:
        for name in (*operator.prepare, *operator.apply):
            wanted.setdefault(name, set()).add("batched" if operator.batched else "single")
    forms = tuple(f for f, on in (("batched", step and step.batched), ("single", step and step.single)) if on)
    for name in ("forward", "objective", "adjoint"):
        wanted.setdefault(name, set()).update(forms)
    plans = kind_plans(kinds, spectral_phase)
    if "gradient_and_factors" in named:
        wanted.setdefault("gradient", set()).add("batched")
        wanted.setdefault("adjoint", set()).add("batched")
    for kind_plan in plans:
        for name in kind_plan.functions[:-1]:
            wanted.setdefault(name, set()).add("batched")
    summary = summary_operator(derived) if SUMMARY in spec.target.operators else None
    if summary is not None:
        for name in (*summary.base, "gradient"):
            wanted.setdefault(name, set()).add("batched")
    phases = [*all_phases(derived, wanted), *curvature_phases(derived, kinds, named)]
    phases += [] if summary is None else summary_phases(derived, (1, 2, 3), whole=True)
    hyperparameters: tuple[Hyperparameter, ...] = ()
    names: tuple[str, ...] = ()
    if step is not None and method is not None:
        spectral = () if derived.spectral is None else ("spectral",)
        names = ("forward", *spectral, "objective", "adjoint", *(system.name for system, _ in step.systems))
        own = [Phase(system, (*spectral, *after), forms) for system, after in step.systems]
        phases = _merged([*phases, *own])
        used = {symbol for system, _ in step.systems for symbol in _symbols(system)}
        hyperparameters = tuple(
            h for h in method.hyperparameters(options) if h.name == "lr" or h.name in used
        )
        if step.periodic:
            text = "steps from one run of the periodic part to the next"
            hyperparameters += (_whole_number(method, options, "period", 1, text),)
        if any(symbol in RANDOM for system, _ in step.systems for symbol in _symbols(system)):
            hyperparameters += (_whole_number(method, options, "seed", 0, "of the draws"),)
    newton = derived.newton.conditions if derived.uses_newton else ()
    stated = (condition for phase in phases for condition in phase.system.conditions)
    conditions = tuple(dict.fromkeys((*newton, *stated)))
    if describe is not None:
        phases = [replace(phase, lines=describe(phase.system)) for phase in phases]
    plan = Plan(
        model=model,
        phases=tuple(phases),
        operators=operators,
        step=names,
        periodic=() if step is None else step.periodic,
        hyperparameters=hyperparameters,
        memory=() if step is None else step.memory,
        constants=_constants(model, derived, white),
        guarded=_guarded(step),
        refreshable=step is not None and step.refreshable,
        separable=step is not None and step.separable,
        kinds=plans,
        curvature=curvature_operators(model, named, plans),
        summary=summary,
        groups=groups_of(derived.summaries.partition) if derived.uses_summaries else (),
        owners=owners_of(derived) if derived.uses_summaries else MappingProxyType({}),
        curvature_batch=_with_spectral(() if step is None else step.curvature_batch, derived),
        kept=() if step is None else step.kept,
    )
    return Planned(plan, derived, method, options, conditions, () if step is None else step.notes)


def _whole_number(
    method: Method, options: Mapping[str, OptionValue], name: str, least: int, text: str
) -> Hyperparameter:
    """A hyperparameter by what runs in the step; default and range are the method's, if it declares them."""
    declared = next((option.range for option in method.options if option.name == name), None)
    return Hyperparameter(
        name, float(options.get(name, least)), text, declared or Range(least, LARGEST_WHOLE, whole=True)
    )


def _with_spectral(names: tuple[str, ...], derived: Derived) -> tuple[str, ...]:
    """The λ of MK(65) after the states, where the spec asks for them."""
    return names if derived.spectral is None or not names else (names[0], "spectral", *names[1:])


def _merged(phases: list[Phase]) -> list[Phase]:
    """Phases of one name once, in all their forms; those that a step uses too may be an operator's."""
    found: dict[str, Phase] = {}
    for phase in phases:
        known = found.get(phase.name)
        if known is not None and known.system.equations != phase.system.equations:
            raise ValueError(f"two different systems are called '{phase.name}'")
        found[phase.name] = phase if known is None else known.with_forms(*phase.forms)
    return list(found.values())


def _guarded(step: StepPlan | None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Newton directions exist only where their conditions hold; steps must be finite."""
    newton = ("newton", NEWTON_DIRECTION.families)
    if step is None:
        return (newton,)
    return (
        newton,
        ("objective", ("objective",)),
        *((entry, ()) if isinstance(entry, str) else entry for entry in step.guarded),
    )


def _symbols(system: System) -> set[str]:
    return {symbol.family for equation in system.equations for symbol in inputs_of(equation.value)}


def _constants(model: Model, derived: Derived, white: bool) -> Mapping[tuple[str, int], float]:
    """λ_k by index; λ_0 of the white layer is the number of a uniform regularisation."""
    if derived.spectral is not None:
        return MappingProxyType({})
    values = {("λ", k): value for k, value in model.lambda_values}
    spec = model.spec.regularization
    if white:
        by_name = dict(spec.values)
        values["λ", 0] = spec.value if spec.kind == "uniform" else by_name.get(model.spec.input.name, 0.0)
    return MappingProxyType(values)
