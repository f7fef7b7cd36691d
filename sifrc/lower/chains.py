"""Chains: the functions of a program that run one after the other, for an operator or for a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from sifrc.catalogue.record import Operator, members_of
from sifrc.lower.program import Program

__all__ = ["Chain", "Key", "chains", "operator_chains"]

Key: TypeAlias = tuple[str, bool]
"""A function by its name and whether it is batched."""


@dataclass(frozen=True)
class Chain:
    """Functions in the order in which they run.

    Args:
        name: of the operator, or ``step``.
        functions: by name and form.
        given: families that a caller gives besides parameters and data: those of the vector.
        results: families that are returned.
    """

    name: str
    functions: tuple[Key, ...]
    given: tuple[str, ...] = ()
    results: tuple[str, ...] = ()


def chains(program: Program) -> Iterator[Chain]:
    """Every chain of the module that a backend prints."""
    for operator in program.operators:
        yield from operator_chains(operator)
    if program.step_batched:
        yield Chain("step", _keys(program.step_batched))
    if program.step_single:
        yield Chain("step", _keys(program.step_single, False))
    if program.stages:
        # What runs once more computes what it computed before.
        whole = dict.fromkeys(name for stage in program.stages for name in (*stage.each, *stage.once))
        yield Chain("accumulated", _keys(tuple(whole)))
    if program.curvature_batch:
        periodic = tuple(name for name in program.step_batched if name in program.periodic)
        # The step goes around it: what it has computed by then is there.
        rest = [program.function(name, True) for name in program.step_batched if name not in periodic]
        given = tuple(family for function in rest for family in function.writes)
        yield Chain("refresh", _keys((*program.curvature_batch, *periodic)), given, program.kept)


def operator_chains(operator: Operator) -> Iterator[Chain]:
    """What an operator runs: its beginning alone where it has kinds or switches, and each of its cases."""
    given = () if operator.vector is None else operator.vector.families
    also = tuple(family for family, _ in members_of(operator.also))
    for kind, start in operator.starts():
        first = _keys(start, operator.batched)
        if kind is not None:
            yield Chain(operator.name, first, (), also)
        for switch in operator.switches:
            results = (*also, *(family for family, _ in members_of((switch.result,))))
            keys = (*first, *_keys(switch.functions, operator.batched))
            yield Chain(operator.name, keys, given, results)
        for case in operator.fitting(kind):
            results = (*also, *(family for family, _ in members_of(case.results)))
            yield Chain(operator.name, (*first, *_keys(case.functions, operator.batched)), given, results)


def _keys(names: tuple[str, ...], batched: bool = True) -> tuple[Key, ...]:
    return tuple((name, batched) for name in names)
