"""Parameters of ``sifrc.optimizer`` by their names: groups, what is in none, and ℓ₂ terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from sifrc.errors import MethodError
from sifrc.spec.suggest import shortened

if TYPE_CHECKING:
    import torch

    from sifrc.spec.types import Spec

__all__ = ["grouped", "penalized"]


def grouped(
    module: torch.nn.Module, groups: Iterable[Any]
) -> tuple[list[dict[str, Any]], dict[str, torch.nn.Parameter]]:
    """Groups with their parameters, and these by their names.

    Args:
        module: without what torch wraps around one.
        groups: dicts as torch has them; ``params`` are tensors, pairs of name and tensor, names, or patterns
            of names such as ``"head.*"``. Parameters alone, as ``model.head.parameters()``, are one group.

    Raises:
        MethodError: something is no parameter of the module, frozen, or in two groups.
    """
    import torch

    listed = [groups] if isinstance(groups, Mapping | str) else list(groups)
    if not any(isinstance(group, Mapping) for group in listed):
        listed = [{"params": listed}]
    known = dict(module.named_parameters())
    found: list[dict[str, Any]] = []
    taken: dict[str, torch.nn.Parameter] = {}
    for group in listed:
        if not isinstance(group, Mapping) or "params" not in group:
            raise MethodError(
                f"a group is a dict with params, not {shortened(repr(group))}",
                hint='groups=[{"params": ["head.*"], "lr": 0.1}]',
            )
        given = group["params"]
        entries = [given] if isinstance(given, str | torch.Tensor) else list(given)
        names = _names(entries, known)
        pairs = any(isinstance(each, tuple) for each in entries)
        members: list[Any] = entries if pairs else [known[name] for name in names]
        for name in names:
            if name in taken:
                raise MethodError(f"'{name}' is in more than one group", hint="each parameter has one")
            if not known[name].requires_grad:
                raise MethodError(
                    f"'{name}' is in a group and frozen", hint="requires_grad=True, or in no group"
                )
            taken[name] = known[name]
        found.append({**group, "params": members})
    if not taken:
        raise MethodError("no group has a parameter", hint='groups=[{"params": ["head.*"], "lr": 0.1}]')
    return found, taken


def penalized(spec: Spec, numbers: float | Mapping[str, float]) -> Spec:
    """The spec with an ℓ₂ term in its objective.

    Args:
        spec: of a module.
        numbers: λ of all parameters, or λ by names of the module's parameters, or patterns of them.

    Raises:
        MethodError: no parameter is called so, or a number is negative.
    """
    from sifrc.spec.partition import tensor_names

    own = {name: spec.names.get(name, name) for name in tensor_names(spec.layers)}
    found: dict[str, float] = {}
    for pattern, value in (numbers if isinstance(numbers, Mapping) else {"*": numbers}).items():
        fits = [name for name, given in own.items() if fnmatchcase(given, pattern)]
        if not fits:
            raise MethodError(
                f"l2: no parameter that is trained is called '{shortened(pattern)}'",
                hint=f"parameters: {', '.join(own.values())}",
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e300:
            raise MethodError(f"l2 cannot be {value!r}", hint="a number from zero on")
        found |= dict.fromkeys(fits, float(value))
    terms = tuple((name, found[name]) for name in own if found.get(name))
    return replace(spec, regularization=replace(spec.regularization, parameters=terms))


def _names(given: list[Any], known: Mapping[str, torch.nn.Parameter]) -> list[str]:
    """The names of the parameters of a group, each once."""
    found: dict[str, None] = {}
    for each in given:
        value = each[1] if isinstance(each, tuple) and len(each) == 2 else each
        if isinstance(value, str):
            fits = [name for name in known if fnmatchcase(name, value)]
        else:
            fits = [name for name, own in known.items() if own is value]
        if not fits:
            what = (
                f"'{shortened(value)}'" if isinstance(value, str) else f"a {type(value).__name__} of a group"
            )
            listed = list(known)
            more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
            raise MethodError(
                f"{what} is no parameter of the model", hint=f"parameters: {', '.join(listed[:8])}{more}"
            )
        found |= dict.fromkeys(fits)
    return list(found)
