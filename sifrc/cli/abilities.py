"""Which operators and methods are possible for a model, and why others are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sifrc.errors import BackendError, MethodError, SifrcError
from sifrc.spec.types import MethodSpec

if TYPE_CHECKING:
    from sifrc.model import Model

__all__ = ["HEADERS", "Abilities", "find_abilities", "requested_problem"]

HEADERS = ("kind", "name", "possible", "requested", "reason")


@dataclass(frozen=True)
class Abilities:
    """What can be derived for a model.

    Args:
        rows: under :data:`HEADERS`, every operator and every method.
        conditions: on a sample, which generated code checks at run time.
    """

    rows: tuple[tuple[str, ...], ...]
    conditions: tuple[str, ...]


def find_abilities(model: Model) -> Abilities:
    """Try every operator and every method.

    Args:
        model: of the spec.
    """
    from sifrc.methods.operators import OPERATORS, resolve_operators
    from sifrc.methods.registry import METHODS

    spec = model.spec
    known = tuple(name for name in spec.target.operators if _is_operator(name))
    asked = {plan.name for plan in resolve_operators(known)}
    # Mostly all of them are possible, and trying them together derives what they share once.
    reasons: dict[str, str | None] = dict.fromkeys(OPERATORS)
    conditions, problem = _try(model, tuple(OPERATORS), None)
    if problem is not None:
        for name in OPERATORS:
            _, reasons[name] = _try(model, (name,), None)
    rows = [_row("operator", name, reason, name in asked) for name, reason in reasons.items()]
    for name in METHODS:
        chosen = spec.method is not None and spec.method.name == name
        more, reason = _try(model, (), spec.method if chosen else MethodSpec(name))
        conditions += tuple(condition for condition in more if condition not in conditions)
        rows.append(_row("method", name, reason, chosen))
    return Abilities(tuple(rows), conditions)


def _is_operator(name: str) -> bool:
    """Whether a name is known; an unknown one is the problem of :func:`requested_problem`."""
    from sifrc.methods.operators import resolve_operators

    try:
        resolve_operators((name,))
    except MethodError:
        return False
    return True


def _row(kind: str, name: str, reason: str | None, requested: bool) -> tuple[str, ...]:
    return kind, name, "yes" if reason is None else "no", "yes" if requested else "", reason or ""


def _try(
    model: Model, operators: tuple[str, ...], method: MethodSpec | None
) -> tuple[tuple[str, ...], str | None]:
    """Conditions at run time, and why it is impossible; None if it is not."""
    from sifrc.methods.planning import make_plan

    target = replace(model.spec.target, operators=operators)
    try:
        planned = make_plan(replace(model, spec=replace(model.spec, target=target, method=method)))
    except SifrcError as error:
        return (), error.message
    return tuple(c.text for c in planned.conditions if c.status == "run time"), None


def requested_problem(model: Model) -> SifrcError | None:
    """What stands against compiling the spec as it is; None if nothing does.

    Args:
        model: of the spec.
    """
    from sifrc.backends import check_options, find_backend
    from sifrc.methods.planning import make_plan

    spec = model.spec
    try:
        backend = find_backend(spec.target.backend, spec.target.location)
        check_options(backend, spec.target.options, spec.target.option_locations)
        if spec.dtype not in backend.dtypes:
            return BackendError(
                f"backend '{backend.name}' has no dtype {spec.dtype}",
                location=spec.target.location,
                hint=f"dtypes: {' '.join(backend.dtypes)}",
            )
        make_plan(model)
    except SifrcError as error:
        return error
    return None
