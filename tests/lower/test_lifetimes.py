"""Arrays of a step that share their memory: no value changes, and no two that are needed together overlap."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
from cases import CASES, marked
from compiling import compile_once
from newton_blocks import network

from sifrc.cache import entry_name, module_from_cache
from sifrc.compiler import Request
from sifrc.lower.access import absolute, loads_of, targets_of, unrolled
from sifrc.lower.lifetimes import places
from sifrc.lower.lowering import Passes, lower
from sifrc.lower.program import Program
from sifrc.lower.statements import Kernel
from sifrc.methods.planning import make_plan
from sifrc.model import build_model
from sifrc.spec import Spec, build_spec

METHODS: dict[str, dict[str, Any]] = {
    "ea_cg": {"name": "ea_cg"},
    "ea_cg, kept for three steps": {"name": "ea_cg", "period": 3},
    "ea_cg, moving average": {"name": "ea_cg", "decay": 0.5, "kind": "ggn"},
    "kfi": {"name": "ea_cg", "solver": "kfi", "moment": "second", "kind": "fisher"},
    "mk": {"name": "mk"},
    "esn": {"name": "esn", "variant": "randomised", "precision": "direct", "period": 2},
}


def spec_of(method: dict[str, Any]) -> Spec:
    loss = "squared_error" if method["name"] in ("mk", "esn") else "cross_entropy"
    return build_spec(network(method, sizes=(6, 5, 4, 3), loss=loss, dtype="float64"))


def numba_module(spec: Spec, lifetimes: bool, patch: pytest.MonkeyPatch) -> ModuleType:
    """The module as Python, with the pass or without it."""
    patch.setattr(numba.config, "DISABLE_JIT", True)
    text = compile_once(spec, Request(backend="numba", passes=Passes(lifetimes=lifetimes))).text
    return module_from_cache(entry_name("lifetimes", {"text": text}), lambda: text, None)


def spoil(state: Any, batch: int) -> None:
    """Overwrite the memory that the arrays of a step share."""
    work = state.workspace(batch)
    array = next(value for value in work.__dict__["x"] if value.size)
    array.base[:] = np.nan


@pytest.mark.parametrize("method", METHODS)
def test_steps_are_the_same_to_the_bit(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several steps of two batch sizes, the shared memory spoiled in between."""
    spec = spec_of(METHODS[method])
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(11, 6))
    targets: Any = rng.integers(0, 3, 11) if spec.loss.targets == "classes" else rng.normal(size=(11, 3))
    results = []
    for lifetimes in (True, False):
        module = numba_module(spec, lifetimes, monkeypatch)
        assert hasattr(module, "_PLACES") == lifetimes
        params = module.init(0)
        state = module.State(params)
        losses = []
        for batch in (5, 11, 5, 11):
            losses.append(module.step(params, state, inputs[:batch], targets[:batch]))
            if lifetimes:
                spoil(state, batch)
        results.append((params, state.state_dict(), dict(enumerate(losses))))
    for mine, plain in zip(*results, strict=True):
        for name, value in plain.items():
            np.testing.assert_array_equal(mine[name], value, err_msg=name)


def program_of(spec: Spec) -> Program:
    return lower(make_plan(build_model(spec)).plan)


def overlaps(sizes: dict[int, int], starts: dict[int, int], lives: dict[int, tuple[int, int]]) -> list[Any]:
    """Pairs of places that lie in the same memory at the same time."""
    return [
        (one, other)
        for one in sizes
        for other in sizes
        if one < other
        and lives[one][0] <= lives[other][1]
        and lives[other][0] <= lives[one][1]
        and starts[one] < starts[other] + sizes[other]
        and starts[other] < starts[one] + sizes[one]
    ]


@pytest.mark.parametrize("method", METHODS)
def test_no_two_places_overlap(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For random sizes, and the memory is not larger than all arrays next to each other."""
    module = numba_module(spec_of(METHODS[method]), True, monkeypatch)
    rng = np.random.default_rng(0)
    lives = {
        place: (first, last)
        for found in module._PLACES.values()
        for place, first, last in (found.values() if isinstance(found, dict) else [found])
    }
    for _ in range(20):
        sizes = {place: int(rng.integers(1, 500)) for place in lives}
        starts, end = module._starts(sizes, lives)
        assert not overlaps(sizes, starts, lives)
        assert end <= sum(-(-size // 16) * 16 for size in sizes.values())
        assert end == max(starts[place] + size for place, size in sizes.items())


@pytest.mark.parametrize("name", marked(sorted(name for name in CASES if "shared" not in name)))
def test_a_place_holds_one_array_at_a_time(name: str) -> None:
    """What a step reads is what was written last to its place, and members of a place have one shape."""
    method: dict[str, Any] = {"name": "ea_cg", "kind": "hessian", "solver": "cg", "moment": "second"}
    if name == "places":  # has no factors to average
        method = {"name": "grouped_newton"}
    program = program_of(build_spec({**CASES[name], "method": method}))
    found = places(program)
    at = {member: number for number, place in enumerate(found) for member in place.members}
    assert len(at) == sum(len(place.members) for place in found)
    shapes = {(f.name, index): shape for f in program.families for index, shape in f.shapes}
    for place in found:
        assert len({shapes[member] for member in place.members}) == 1
    holds: dict[int, Any] = {}
    for function in (program.function(step, True) for step in program.step_batched):
        for statement, k in unrolled(function.body):
            own = {target.ref for target in targets_of(statement)}
            for load in loads_of(statement):
                member = absolute(load.ref, k)
                # What a kernel has just written itself, entry by entry, it may read.
                if member in at and not (isinstance(statement, Kernel) and load.ref in own):
                    assert holds.setdefault(at[member], member) == member, (function.name, member)
            for load in targets_of(statement):
                member = absolute(load.ref, k)
                if member in at:
                    holds[at[member]] = member
