"""What products compute once for all vectors, what nothing reads, and the work of loops over steps."""

from __future__ import annotations

from typing import Any

import pytest

from sifrc.compiler import Request, compile_spec
from sifrc.ir.quantity import Storage
from sifrc.lower.access import absolute, loads_of, targets_of, unrolled
from sifrc.lower.chains import chains
from sifrc.lower.cost import cost_of
from sifrc.lower.program import Function, Program
from sifrc.lower.validate import validate
from sifrc.spec import build_spec

PRODUCTS = ("gradient", "hessian_vector_product", "gauss_newton_vector_product")


def program_of(kind: str, steps: int = 4, operators: tuple[str, ...] = PRODUCTS) -> Program:
    """A recurrent layer, and a dense one of each step."""
    data: dict[str, Any] = {
        "sifrc": 1,
        "name": "stepped",
        "dtype": "float64",
        "network": {
            "input": {"name": "series", "size": [steps, 3]},
            "layers": [{"name": "r", "type": kind, "units": 2}, {"name": "out", "type": "dense", "units": 3}],
        },
        "loss": "cross_entropy",
    }
    return compile_spec(build_spec(data), Request("torch", "none", operators)).source.program


def members(function: Function) -> tuple[set[tuple[str, int | None]], set[tuple[str, int | None]]]:
    """What a function reads and writes."""
    read = {absolute(load.ref, k) for s, k in unrolled(function.body) for load in loads_of(s)}
    return read, {absolute(load.ref, k) for s, k in unrolled(function.body) for load in targets_of(s)}


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_what_no_vector_changes_is_computed_once(kind: str) -> None:
    """Functions of the point read nothing of a vector, and those of a vector write nothing of the point."""
    program = program_of(kind)
    validate(program)
    for operator in program.operators:
        if operator.vector is None:
            continue
        prepared = [program.function(name, True) for name in operator.prepare]
        assert any(function.name.endswith("_point") for function in prepared)
        assert not any({*operator.vector.families} & {*function.reads} for function in prepared)
        made = set[str]().union(*(function.writes for function in prepared))
        for name in operator.cases[0].functions:
            assert not made & {*program.function(name, True).writes}


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_factors_of_the_loops_are_of_the_point(kind: str) -> None:
    program = program_of(kind)
    factors = {family.name for family in program.families if "~factor" in family.name}
    applied = {name for o in program.operators if o.vector for case in o.cases for name in case.functions}
    assert factors
    for name in applied:
        assert not factors & {*program.function(name, True).writes}


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_what_is_written_is_read(kind: str) -> None:
    """Adjoints that only Hessian products read are no part of a gradient."""
    program = program_of(kind)
    needed: dict[str, set[tuple[str, int | None]]] = {}
    for chain in chains(program):
        later: set[tuple[str, int | None]] = set()
        for name, batched in reversed(chain.functions):
            later |= members(program.function(name, batched))[0]
            needed[name] = needed.get(name, set()) | later
    results = {family for chain in chains(program) for family in chain.results}
    stepwise = ("now", "product", "before")
    last = max(k for k, _ in program.family("x").shapes if k is not None)
    for name, read in needed.items():
        for family, index in members(program.function(name, True))[1] - read:
            work = program.family(family).storage is Storage.WORK and family not in results
            assert (
                not work
                or index is None
                or (family, index) == ("x", last)
                or any(w in family for w in stepwise)
            )


def test_loops_count_each_of_their_steps() -> None:
    few, many = (program_of("gru", steps, ("gradient",)) for steps in (4, 8))
    found = []
    for program in (few, many):
        (operator,) = [each for each in program.operators if each.name == "gradient"]
        found.append(cost_of(program, tuple(program.function(n, True) for n in operator.functions())))
    assert found[1].per_sample == 2 * found[0].per_sample > 0
    assert found[0].per_sample > 4 * 2 * 6 * 2  # the product with the state before, there and back
