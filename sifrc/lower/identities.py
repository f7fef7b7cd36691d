"""One name, one quantity: what must hold of the symbols of a module.

Phases share arrays by the names of their symbols. Two quantities under one name would overwrite each
other without a word, so the lowering refuses them: an error of the deriving code, never of a spec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sifrc.catalogue.phase import Phase
from sifrc.ir import Expr, Input

__all__ = ["IdentityError", "check_codes", "check_identities"]


class IdentityError(RuntimeError):
    """Two quantities have one name."""


def check_identities(phases: Sequence[Phase], in_place: frozenset[str]) -> None:
    """Every symbol has one definition among phases that run together.

    Args:
        phases: of a plan, each with the names of those that run before it.
        in_place: families that are overwritten on purpose.

    Raises:
        IdentityError: a symbol is defined again, by another expression.
    """
    by_name = {phase.name: phase for phase in phases}
    for phase in phases:
        known: dict[Input, Expr] = {}
        for name in (*(name for name in phase.after if name in by_name), phase.name):
            for equation in by_name[name].system.equations:
                symbol, value = equation.symbol, equation.value
                if symbol.family not in in_place and known.setdefault(symbol, value) is not value:
                    raise IdentityError(
                        f"{symbol.name} of '{name}' has another definition before '{phase.name}'"
                    )


def check_codes(codes: Mapping[str, str]) -> None:
    """Every family has an identifier of its own.

    Args:
        codes: family -> identifier in generated code.

    Raises:
        IdentityError: two families are called alike.

    Example:
        >>> check_codes({"H": "block", "H̄": "block"})
        Traceback (most recent call last):
        ...
        sifrc.lower.identities.IdentityError: H̄ and H are both called 'block'
    """
    owners: dict[str, str] = {}
    for family, code in codes.items():
        if owners.setdefault(code, family) != family:
            raise IdentityError(f"{family} and {owners[code]} are both called '{code}'")
