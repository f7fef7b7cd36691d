"""From derived quantities, requested operators and a method to the plan of a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from sifrc.catalogue.phase import Phase
from sifrc.catalogue.record import Operator
from sifrc.catalogue.registry import context_of, declared_by, operator_sets, phases_of
from sifrc.catalogue.summaries import groups_of, owners_of
from sifrc.derive.curvature.scores import RANDOM
from sifrc.derive.derived import Derived
from sifrc.derive.shaped import NEWTON_DIRECTION
from sifrc.derive.system import Condition, System
from sifrc.ir.traverse import inputs_of
from sifrc.methods.base import Method, StepPlan, read_options
from sifrc.methods.plan import Hyperparameter, Plan
from sifrc.methods.ranges import LARGEST_WHOLE, Range
from sifrc.methods.rates import rates_by_parameter, step_of
from sifrc.methods.registry import find_method
from sifrc.model import Model
from sifrc.spec.layers import evaluates_apart
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
        accepted: how the Newton direction was accepted that something uses; '' where nothing does.
    """

    plan: Plan
    derived: Derived
    method: Method | None
    options: Mapping[str, OptionValue]
    conditions: tuple[Condition, ...]
    notes: tuple[str, ...]
    accepted: str = ""


def make_plan(
    model: Model,
    describe: Callable[[System], tuple[str, ...]] | None = None,
    known: Derived | None = None,
    *,
    by_parameter: bool = False,
) -> Planned:
    """The plan for the operators and the method that the spec asks for.

    Args:
        model: built from the spec.
        describe: text of a system's equations, for docstrings.
        known: derivations of the same network to go on with.
        by_parameter: whether each parameter has rates of its own, see :mod:`sifrc.methods.rates`.

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
    sets = operator_sets(spec.target.operators, spec.target.operator_locations)
    declared = declared_by(spec.target.operators, sets, spec)
    context = context_of(derived, declared)
    operators = tuple(one.build(one, context) for one in declared)
    step = None if method is None else step_of(method, derived, options)
    used = set() if step is None else {symbol for system, _ in step.systems for symbol in _symbols(system)}
    if step is not None and by_parameter:
        step = rates_by_parameter(step, model)
    forms = tuple(f for f, on in (("batched", step and step.batched), ("single", step and step.single)) if on)
    phases = phases_of(context, _wanted(operators, forms, model), sets)
    hyperparameters: tuple[Hyperparameter, ...] = ()
    names: tuple[str, ...] = ()
    if step is not None and method is not None:
        factors = derived.before_loss
        names = ("forward", *factors, "objective", "adjoint", *(system.name for system, _ in step.systems))
        systems = _with_statistics(step.systems, derived)
        own = [Phase(system, (*factors, *after), forms) for system, after in systems]
        phases = _merged([*phases, *own])
        hyperparameters = tuple(
            h for h in method.hyperparameters(options) if h.name == "lr" or h.name in used
        )
        if step.periodic:
            text = "steps from one run of the periodic part to the next"
            hyperparameters += (_whole_number(method, options, "period", 1, text),)
        random = any(symbol in RANDOM for system, _ in step.systems for symbol in _symbols(system))
        if random or model.draws:
            hyperparameters += (_whole_number(method, options, "seed", 0, "of the draws"),)
    newton = "newton" in {phase.name for phase in phases} or (step is not None and step.newton)
    partitioned = any(operator.partitioned for operator in operators)
    partitioned = partitioned or (step is not None and step.partitioned)
    stated = (condition for phase in phases for condition in phase.system.conditions)
    conditions = tuple(dict.fromkeys((*(derived.newton.conditions if newton else ()), *stated)))
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
        groups=groups_of(derived.summaries.partition) if partitioned else (),
        owners=owners_of(derived) if partitioned else MappingProxyType({}),
        curvature_batch=_with_factors(() if step is None else step.curvature_batch, derived),
        kept=() if step is None else step.kept,
    )
    accepted = derived.accepted_by if newton else ""
    return Planned(plan, derived, method, options, conditions, () if step is None else step.notes, accepted)


def _wanted(operators: tuple[Operator, ...], forms: tuple[str, ...], model: Model) -> dict[str, set[str]]:
    """Forms of the phases that operators, predictions and a step use, by name."""
    wanted: dict[str, set[str]] = {"forward": {"batched"}}
    if evaluates_apart(model.spec):
        wanted["evaluation"] = {"batched"}
    if any(buffer.update is not None for buffer in model.buffers):
        wanted["statistics"] = {"batched"}
    for operator in operators:
        for name in operator.functions():
            wanted.setdefault(name, set()).add("batched" if operator.batched else "single")
    for name in ("forward", "objective", "adjoint"):
        wanted.setdefault(name, set()).update(forms)
    return wanted


def _with_statistics(
    systems: tuple[tuple[System, tuple[str, ...]], ...], derived: Derived
) -> tuple[tuple[System, tuple[str, ...]], ...]:
    """Systems of a step; the last one, which updates in place, brings running statistics up to date too."""
    more = derived.first.statistics.equations
    if not more:
        return systems
    *before, (last, after) = systems
    return (*before, (replace(last, equations=(*more, *last.equations)), after))


def _whole_number(
    method: Method, options: Mapping[str, OptionValue], name: str, least: int, text: str
) -> Hyperparameter:
    """A hyperparameter by what runs in the step; default and range are the method's, if it declares them."""
    declared = next((option.range for option in method.options if option.name == name), None)
    return Hyperparameter(
        name, float(options.get(name, least)), text, declared or Range(least, LARGEST_WHOLE, whole=True)
    )


def _with_factors(names: tuple[str, ...], derived: Derived) -> tuple[str, ...]:
    """What the loss has for factors after the states, where it has some."""
    return (names[0], *derived.before_loss, *names[1:]) if names else ()


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
    penalties = [(factor.family, factor.index, value) for _, factor, value in model.penalties]
    own = {(family, k): value for family, k, value in penalties if k is not None}
    if derived.spectral is not None:
        return MappingProxyType(own)
    values = own | {("λ", k): value for k, value in model.lambda_values}
    spec = model.spec.regularization
    if white:
        by_name = dict(spec.values)
        values["λ", 0] = spec.value if spec.kind == "uniform" else by_name.get(model.spec.input.name, 0.0)
    return MappingProxyType(values)
