"""Operators that do one thing whatever their arguments are, as printers see them."""

from __future__ import annotations

from dataclasses import dataclass

from sifrc.catalogue.record import Mean, Operator, Table
from sifrc.errors import BackendError
from sifrc.lower.program import Program

__all__ = ["Plain", "plain_operators"]


@dataclass(frozen=True)
class Plain:
    """An operator with one case, taken apart.

    Args:
        name, doc, source, batched, linearized: as in the record.
        prepare: functions that depend on parameters and data only.
        apply: functions that also depend on the vector.
        scalar: family of the number that is returned, or ''.
        tensors: families of the dict like the parameters that is returned, or ().
        vector: families of the vector, or ().
        scaled: whether the results grow with the batch where a loss is a sum over it.
    """

    name: str
    doc: str
    source: str
    batched: bool
    linearized: str
    prepare: tuple[str, ...]
    apply: tuple[str, ...]
    scalar: str
    tensors: tuple[str, ...]
    vector: tuple[str, ...]
    scaled: bool = True


def plain_operators(program: Program) -> tuple[Plain, ...]:
    """The operators of a program with one case.

    Raises:
        BackendError: a result that is neither a number nor like the parameters.
    """
    return tuple(_plain(operator) for operator in program.operators if operator.plain)


def _plain(operator: Operator) -> Plain:
    (case,) = operator.cases
    numbers = [result.family for result in case.results if isinstance(result, Mean)]
    tables = [r.families for r in case.results if isinstance(r, Table) and r.like_params]
    if len(numbers) > 1 or len(tables) > 1 or len(numbers) + len(tables) != len(case.results):
        raise BackendError(f"no printer for what '{operator.name}' returns")
    prepare, apply = operator.prepare, case.functions
    if operator.vector is None:
        prepare, apply = (*prepare, *apply), ()
    return Plain(
        operator.name,
        operator.doc,
        operator.source,
        operator.batched,
        operator.linearized,
        prepare,
        apply,
        numbers[0] if numbers else "",
        tables[0] if tables else (),
        () if operator.vector is None else operator.vector.families,
        case.scaled,
    )
