"""Which operators and methods are possible for a model, and why others are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sifrc.derive.system import Condition
from sifrc.errors import BackendError, MethodError, SifrcError
from sifrc.spec.types import MethodSpec

if TYPE_CHECKING:
    from sifrc.derive.derived import Derived
    from sifrc.model import Model

__all__ = ["HEADERS", "Abilities", "find_abilities"]

_DEEP = 40
"""Layers beyond which repeated ones are left out."""
_UNITS = 4
HEADERS = ("kind", "name", "possible", "requested", "reason")


@dataclass(frozen=True)
class Abilities:
    """What can be derived for a model.

    Args:
        rows: under :data:`HEADERS`, every operator and every method.
        conditions: on a sample, which generated code checks at run time; a line for each.
        problem: what stands against compiling the spec as it is; None if nothing does.
    """

    rows: tuple[tuple[str, ...], ...]
    conditions: tuple[str, ...]
    problem: SifrcError | None


def find_abilities(model: Model, progress: Callable[[str, float], None] | None = None) -> Abilities:
    """Try every operator and every method, and what the spec asks for.

    Layers that repeat do not change what is possible: a deep network is tried without most of them.

    Args:
        model: of the spec.
        progress: called with what is tried and the share that is done.
    """
    from sifrc.catalogue.registry import declared_by, existing_operators, is_built_in, operator_sets
    from sifrc.derive.derived import Derived
    from sifrc.methods.registry import METHODS
    from sifrc.model import build_model
    from sifrc.report.lines import condition_lines
    from sifrc.spec.condense import condense
    from sifrc.verify.capped import capped

    whole, alike = model, None
    if len(model.spec.layers) > _DEEP:
        # Sizes are of no more consequence, and layers of different sizes look alike without them.
        condensed = condense(capped(model.spec, _UNITS))
        model, alike = build_model(condensed.spec), condensed.alike
    spec, derived = model.spec, Derived(model)
    known = tuple(name for name in spec.target.operators if _is_operator(name))
    outside = tuple(name for name in known if not is_built_in(name))
    every = (*existing_operators(spec), *outside)
    asked = {*outside, *(declared.name for declared in declared_by(known, operator_sets(known), spec))}
    chosen = None if spec.method is None else spec.method.name
    tries = (*every, *METHODS)

    def say(name: str) -> None:
        if progress is not None:
            progress(f"checking: {name}", tries.index(name) / len(tries))

    say(every[0])
    # Mostly everything is possible: then one plan says so.
    conditions, problem = _try(derived, every, spec.method)
    together = problem is None
    problem = None if together and known == spec.target.operators else _try_requested(derived)
    rows = []
    for name in every:
        say(name)
        reason = None if together else _try(derived, (name,), None)[1]
        rows.append(_row("operator", name, reason, name in asked))
    for name in METHODS:
        say(name)
        if together and name == chosen:
            rows.append(_row("method", name, None, True))
            continue
        more, reason = _try(derived, (), spec.method if name == chosen else MethodSpec(name))
        conditions += tuple(condition for condition in more if condition not in conditions)
        rows.append(_row("method", name, reason, name == chosen))
    rows += _kinds(derived)
    if alike is not None:
        conditions = tuple(_of_all_layers(conditions, model, whole, alike))
    lines = tuple(condition_lines(conditions, status=False))
    return Abilities(tuple(rows), lines, _backend_problem(model) or problem)


def _of_all_layers(
    conditions: tuple[Condition, ...], model: Model, whole: Model, alike: Mapping[str, tuple[str, ...]]
) -> Iterator[Condition]:
    """The conditions of the layers that are left, for those that they stand for too."""
    numbers = {name: c.index for c in whole.constraints for name in c.layers}
    for condition in conditions:
        if condition.layer is None:
            yield condition
            continue
        own = model.constraints[condition.layer - 1]
        for number in sorted({numbers[name] for name in alike[own.layers[0]]}):
            text = condition.text.replace(f"[{condition.layer}]", f"[{number}]")
            yield Condition(text, number, condition.status)


def _kinds(derived: Derived) -> list[tuple[str, ...]]:
    """Kinds of curvature: the presets, and those of the spec."""
    from sifrc.derive.curvature.kinds import KINDS, kind_of

    own = {kind.name: kind_of(kind) for kind in derived.model.spec.curvature}
    rows = []
    for name, kind in {**KINDS, **own}.items():
        reason: SifrcError | None = None
        try:
            derived.curvature.blocks(kind)
            _ = derived.spectral  # λ of the objective, where it has them
        except SifrcError as error:
            reason = error
        rows.append(_row("curvature", name, reason, name in own))
    return rows


def _is_operator(name: str) -> bool:
    """Whether a name is known; an unknown one is the problem of :func:`requested_problem`."""
    from sifrc.catalogue.registry import operator_sets

    try:
        operator_sets((name,))
    except MethodError:
        return False
    return True


def _row(kind: str, name: str, reason: SifrcError | None, requested: bool) -> tuple[str, ...]:
    possible = "yes" if reason is None else "no"
    return kind, name, possible, "yes" if requested else "", "" if reason is None else reason.message


def _try(
    derived: Derived, operators: tuple[str, ...], method: MethodSpec | None
) -> tuple[tuple[Condition, ...], SifrcError | None]:
    """Conditions at run time, and why it is impossible; None if it is not."""
    from sifrc.methods.planning import make_plan

    model = derived.model
    target = replace(model.spec.target, operators=operators)
    tried = replace(model, spec=replace(model.spec, target=target, method=method))
    try:
        planned = make_plan(tried, known=derived)
    except SifrcError as error:
        return (), error
    return tuple(c for c in planned.conditions if c.status == "run time"), None


def _try_requested(derived: Derived) -> SifrcError | None:
    from sifrc.methods.planning import make_plan

    try:
        make_plan(derived.model, known=derived)
    except SifrcError as error:
        return error
    return None


def _backend_problem(model: Model) -> SifrcError | None:
    from sifrc.backends import check_options, find_backend

    spec = model.spec
    try:
        backend = find_backend(spec.target.backend, spec.target.location)
        check_options(backend, spec.target.options, spec.target.option_locations)
    except SifrcError as error:
        return error
    if spec.dtype in backend.dtypes:
        return None
    return BackendError(
        f"backend '{backend.name}' has no dtype {spec.dtype}",
        location=spec.target.location,
        hint=f"dtypes: {' '.join(backend.dtypes)}",
    )
