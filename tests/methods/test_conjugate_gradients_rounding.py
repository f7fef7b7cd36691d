"""Where conjugate gradients end on singular systems without a solution, whatever the last bits are.

The block of the first layer of two linear ones is Vᵀ V, V its second weight, of a known rank; the mean of the
inputs makes a moment of rank one, and the gradient has a part that no direction can take away. In exact
arithmetic the search ends after as many iterations as V has singular values, at a direction of curvature
zero; in floating point that curvature is rounding, and larger or smaller from one machine to the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from newton_blocks import BACKENDS, Run, module, steps, textbook

from sifrc.ir.arithmetic import NUMPY
from sifrc.ir.quantity import Storage
from sifrc.lower.interpret import Machine, run_functions
from sifrc.lower.lowering import Passes, lower
from sifrc.methods.planning import make_plan
from sifrc.model import build_model
from sifrc.spec import build_spec

INPUTS, HIDDEN, BATCH = 4, 5, 6
SINGULAR = {"float32": (1.0, 0.2), "float64": (1.0, 0.45, 0.1, 1e-3)}
"""The last one makes a step that is long, so that rounding comes out large after it."""
RANKS = {dtype: len(values) for dtype, values in SINGULAR.items()}
NUMBERS = {"lr": 1.0, "momentum": 0.0, "alpha": 0.0, "cg_iterations": 30.0, "cg_tolerance": 0.0}
TRIALS = 25


def network(dtype: str, solver: str) -> dict[str, Any]:
    return {
        "sifrc": 1,
        "name": "singular",
        "network": {
            "input": {"name": "image", "size": INPUTS},
            "layers": [
                {"name": "fc1", "type": "dense", "units": HIDDEN, "bias": False},
                {"name": "fc2", "type": "dense", "units": RANKS[dtype], "bias": False},
            ],
        },
        "loss": "squared_error",
        "dtype": dtype,
        "method": {"name": "ea_cg", "solver": solver, "kind": "ggn", "moment": "mean"},
    }


def problem(dtype: str, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Parameters, inputs and targets: one problem, turned at random and changed in its last bits."""
    fixed, rng = np.random.default_rng(1), np.random.default_rng(100 + seed)
    rank = RANKS[dtype]
    turns = [np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (INPUTS, HIDDEN, rank)]
    first, inputs = fixed.normal(size=(HIDDEN, INPUTS)), fixed.normal(size=(BATCH, INPUTS)) + 1.0
    second = np.eye(rank, HIDDEN) * np.array(SINGULAR[dtype])[:, None]
    targets = fixed.normal(size=(BATCH, rank))
    params = {"fc1.weight": turns[1] @ first @ turns[0].T, "fc2.weight": turns[2] @ second @ turns[1].T}
    eps = np.finfo(dtype).eps

    def changed(values: np.ndarray) -> np.ndarray:
        return np.asarray(values * (1 + eps * rng.integers(-1, 2, values.shape))).astype(dtype)

    moved = {name: changed(value) for name, value in params.items()}
    return moved, changed(inputs @ turns[0].T), changed(targets @ turns[2].T)


def expected(params: dict[str, np.ndarray], inputs: np.ndarray, targets: np.ndarray, rank: int) -> np.ndarray:
    """The iterate of the textbook after as many iterations as the block has eigenvalues, in float64."""
    w, v = (params[f"fc{k}.weight"].astype(float) for k in (1, 2))
    x = inputs.astype(float)
    slope = (x @ w.T @ v.T - targets) @ v
    mean = x.mean(axis=0)
    found = textbook(lambda p: v.T @ v @ p @ np.outer(mean, mean), slope.T @ x / BATCH, rank, 0.0)
    assert found.iterations == rank
    return np.asarray(found.solution)


def interpreted(data: dict[str, Any], given: Any, structure: bool) -> tuple[int, np.ndarray]:
    """Iterations for the first weight, and its direction, by the interpreter."""
    params, inputs, targets = given
    plan = make_plan(build_model(build_spec(data))).plan
    program = lower(plan, Passes(structure=structure))
    values: dict[Any, Any] = {("x", 0): inputs, ("t", None): targets, ("mean", None): 1.0 / BATCH}
    values |= {("W", k): params[f"fc{k}.weight"].copy() for k in (1, 2)}
    values |= {
        (name, None): np.array(NUMBERS.get(name, start))
        for name, start in ((h.name, h.default) for h in program.hyperparameters)
    }
    for family in program.families:
        if family.storage is Storage.MEMORY:
            values |= {(family.name, k): np.zeros([n or 1 for n in shape]) for k, shape in family.shapes}
    machine = Machine(program, values, NUMPY)
    run_functions(machine, [program.function(name, True) for name in program.step_batched])
    return int(machine.arrays["D#", 1]), machine.arrays["D", 1]


@pytest.mark.parametrize("structure", [True, False])
@pytest.mark.parametrize(
    ("where", "dtype"),
    [("interpreter", "float64"), *((b, d) for b in BACKENDS for d in ("float32", "float64"))],
)
def test_the_search_ends_where_exact_arithmetic_does(where: str, dtype: str, structure: bool) -> None:
    """Over turned problems with other last bits: iterations, and the direction, of bounded length."""
    data, rank = network(dtype, "ea_cg"), RANKS[dtype]
    for seed in range(TRIALS):
        params, inputs, targets = given = problem(dtype, seed)
        if where == "interpreter":
            count, found = interpreted(data, given, structure)
        else:
            run = Run(module(data, where, structure=structure), params, **NUMBERS)
            before, after = steps(run, [(inputs, targets)])
            count, found = int(run.memory("iterations", 1)), (before["fc1.weight"] - after["fc1.weight"])
        right = expected(params, inputs, targets, rank)
        assert count == rank, seed
        error = np.linalg.norm(found - right) / np.linalg.norm(right)
        # The last step is as long as the residual over a curvature that is a small part of the first one.
        assert error < (1e-3 if dtype == "float32" else 1e-2), (seed, error)


@pytest.mark.parametrize("where", BACKENDS)
def test_damped_systems_are_solved_to_their_end(where: str) -> None:
    """Damping of 1e-6 of the largest eigenvalue is no rounding: the search goes on to a small residual."""
    data = network("float64", "ea_cg")
    for seed in range(5):
        params, inputs, targets = problem("float64", seed)
        run = Run(module(data, where), params, **{**NUMBERS, "alpha": 1e-6, "cg_tolerance": 1e-8})
        before, after = steps(run, [(inputs, targets)])
        assert float(run.memory("remaining", 1)) <= 1e-8
        assert int(run.memory("iterations", 1)) >= RANKS["float64"] + 1
        assert np.isfinite(before["fc1.weight"] - after["fc1.weight"]).all()
