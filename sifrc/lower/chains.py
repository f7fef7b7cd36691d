"""Chains: the functions of a program that run one after the other, for an operator or for a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from sifrc.derive.shaped import DIRECTION
from sifrc.lower.arrays import OBJECTIVE
from sifrc.lower.program import Program
from sifrc.methods.curvature_plan import KindPlan

__all__ = ["Chain", "Key", "chains", "curvature_chains", "summary_chains", "with_extra"]

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
        names = (*operator.prepare, *operator.apply)
        results = (*([operator.scalar] if operator.scalar else []), *operator.tensors)
        yield Chain(operator.name, _keys(names, operator.batched), operator.vector, results)
    for curvature in program.curvature:
        for kind in program.kinds:
            start = _keys(with_extra(kind, curvature.extra))
            also = tuple(family for result in curvature.also for family, _ in result.members)
            yield Chain(curvature.name, start, (), also)
            for case in curvature.cases:
                if kind.form in case.forms:
                    results = (*also, *(family for result in case.results for family, _ in result.members))
                    yield Chain(curvature.name, (*start, *_keys(case.functions)), curvature.vector, results)
    for functions in summary_chains(program):
        yield Chain("summary", functions, DIRECTION.families, (OBJECTIVE,))
    if program.step_batched:
        yield Chain("step", _keys(program.step_batched))
    if program.step_single:
        yield Chain("step", _keys(program.step_single, False))
    if program.curvature_batch:
        periodic = tuple(name for name in program.step_batched if name in program.periodic)
        # The step goes around it: what it has computed by then is there.
        rest = [program.function(name, True) for name in program.step_batched if name not in periodic]
        given = tuple(family for function in rest for family in function.writes)
        yield Chain("refresh", _keys((*program.curvature_batch, *periodic)), given, program.kept)


def curvature_chains(program: Program) -> Iterator[tuple[Key, ...]]:
    """Functions, all batched, that the operators on curvature call one after the other."""
    for kind in program.kinds:
        for operator in program.curvature:
            start = _keys(with_extra(kind, operator.extra))
            yield start
            for case in operator.cases:
                if kind.form in case.forms:
                    yield (*start, *_keys(case.functions))


def with_extra(kind: KindPlan, extra: tuple[str, ...]) -> tuple[str, ...]:
    """Functions of a kind and extra ones, which need the back-propagation."""
    if not extra:
        return kind.functions
    *before, blocks = kind.functions
    adjoint = () if "adjoint" in before else ("adjoint",)
    return (*before, *adjoint, *extra, blocks)


def summary_chains(program: Program) -> Iterator[tuple[Key, ...]]:
    """Functions, all batched, that the operator on summaries calls one after the other."""
    operator = program.summary
    if operator is not None:
        base = _keys(operator.base)
        yield (*base, ("gradient", True))
        for names in (*((name,) for name in operator.orders), operator.whole):
            yield (*base, *_keys(names))


def _keys(names: tuple[str, ...], batched: bool = True) -> tuple[Key, ...]:
    return tuple((name, batched) for name in names)
