"""Which operators and kinds of curvature verification looks at, and their records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sifrc.catalogue.context import Context, available_kinds
from sifrc.catalogue.record import Operator
from sifrc.catalogue.registry import operator_sets
from sifrc.derive.curvature.kinds import KINDS, Kind, kind_of
from sifrc.derive.derived import Derived
from sifrc.errors import DerivationError, MethodError, VerificationError, words_of
from sifrc.model import build_model
from sifrc.spec.types import Spec
from sifrc.verify.capped import capped

__all__ = ["Looked", "described", "looked_at", "reason"]

_SMALL = 4
_LONGEST = 300
"""Letters of a reason."""


@dataclass(frozen=True)
class Looked:
    """What is looked at.

    Args:
        records: of the operators, in the order of the table.
        kinds: of curvature, by name.
        refused: operators that do not exist for the model, and why.
        failed: operators that should exist and break, and how.
    """

    records: tuple[Operator, ...]
    kinds: Mapping[str, Kind]
    refused: Mapping[str, str]
    failed: Mapping[str, str]

    def has(self, name: str) -> bool:
        """Whether an operator is looked at."""
        return any(record.name == name for record in self.records)


def looked_at(spec: Spec, names: Iterable[str], module: Any = None) -> Looked:
    """The records of some operators, for the network with small layers.

    Args:
        spec: the network.
        names: of operators.
        module: whose kinds of curvature are taken, if it has some.
    """
    wanted = {*names}
    derived = Derived(build_model(capped(spec, _SMALL)))
    refused: dict[str, str] = {}
    failed: dict[str, str] = {}
    sets = operator_sets(spec.target.operators)
    declared = [one for each in sets for one in each.operators if one.name in wanted]
    context, kinds = Context(derived), dict[str, Kind]()
    if any(one.uses_kinds for one in declared):
        of_kinds = [one.name for one in declared if one.uses_kinds]
        try:
            # Shared parameters have no blocks.
            _ = list(derived.curvature.parameters("samples"))
            found = available_kinds(derived, kinds_of(spec, module).values())
            context, kinds = Context(derived, found), {kind.name: kind for kind, _ in found}
        except DerivationError as error:
            refused |= dict.fromkeys(of_kinds, error.message)
        except Exception as error:
            failed |= dict.fromkeys(of_kinds, reason(error))
    records = []
    for one in declared:
        if one.name in refused or one.name in failed:
            continue
        try:
            record = one.build(one, context)
            if one.name == "newton_direction":
                _ = derived.exact_newton
        except (DerivationError, MethodError) as error:
            refused[one.name] = error.message
        except Exception as error:
            failed[one.name] = reason(error)
        else:
            records.append(record)
    return Looked(tuple(records), kinds, refused, failed)


def reason(error: Exception) -> str:
    """What an exception says, in one line."""
    return " ".join(words_of(error).split())[:_LONGEST]


def kinds_of(spec: Spec, module: Any = None) -> Mapping[str, Kind]:
    """The kinds that a spec lists or a module has, as the spec and the presets say what they are.

    Raises:
        VerificationError: the module has one that neither knows, or lacks one that the spec lists.
    """
    own = {entry.name: kind_of(entry) for entry in spec.curvature}
    names = getattr(module, "_KINDS", None)
    if names is None:
        return own
    missing = [name for name in own if name not in names]
    if missing:
        raise VerificationError(f"the module lacks kinds that the spec lists: {', '.join(missing)}")
    known = {**KINDS, **own}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise VerificationError(f"the module has kinds that the spec does not know: {', '.join(unknown)}")
    return {name: known[name] for name in names}


def described(kinds: Iterable[Kind]) -> str:
    """Their names, for a note."""
    return "kinds " + ", ".join(kind.name for kind in kinds)
