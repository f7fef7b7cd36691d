"""Steps of ``ea_cg`` in generated modules of both backends against dense algebra in NumPy.

Blocks come twice: from the module's own ``curvature_factors``, and from torch.func and dense algebra. Numba
modules run with the JIT off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from curvature_oracle import Oracle, means
from newton_blocks import (
    BACKENDS,
    Run,
    averaged_factors,
    close,
    data,
    factors,
    gradient,
    kfi,
    module,
    network,
    own_factors,
    own_gradient,
    point_of,
    solved,
    start,
    steps,
)

from sifrc.derive.curvature.kinds import KINDS, Kind, kind_of
from sifrc.spec import build_spec

RATE = 0.1
ALPHA = 0.2
CONVERGED = {"cg_iterations": 100.0, "cg_tolerance": 1e-12}
GRID = (
    *(
        ("pch1", solver, moment)
        for solver in ("ea_cg", "cg", "kfi", "exact")
        for moment in ("second", "mean")
    ),
    ("pch2", "kfi", "auto"),
    ("hessian", "exact", "second"),
    ("hessian", "exact", "mean"),
    ("ggn", "ea_cg", "auto"),
    ("fisher", "cg", "auto"),
    ("empirical_fisher", "kfi", "second"),
    ("kfra", "ea_cg", "second"),
)
"""Kinds, solvers and moments: every one of each, every solver with both moments."""


def moment_of(solver: str, moment: str) -> str:
    """What ``auto`` stands for."""
    return moment if moment != "auto" else ("mean" if solver == "ea_cg" else "second")


def numbers(solver: str, **more: Any) -> dict[str, Any]:
    """Hyperparameters of a step without momentum that converges."""
    found: dict[str, Any] = {"lr": RATE, "momentum": 0.0, "alpha": ALPHA, **more}
    return found if solver in ("kfi", "exact") else {**CONVERGED, **found}


def moves(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """(θ − θ⁺) / lr."""
    return {name: (before[name] - after[name]) / RATE for name in before}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "solver", "moment"), GRID)
def test_a_step_solves_the_damped_block_equations(kind: str, solver: str, moment: str, backend: str) -> None:
    """((1 − α) H ⊗ A + α I) d = g, dense, with A = E[x xᵀ] or m mᵀ; EA-CG(12, 13) for ``kfi``."""
    method = {"kind": kind, "solver": solver, "moment": moment}
    spec_data = network(
        method, curvature=[kind], activation="softplus", operators=("gradient", "curvature_factors")
    )
    made = module(spec_data, backend)
    spec, point = point_of(spec_data)
    before, after = steps(Run(made, point.params, **numbers(solver)), [(point.inputs, point.targets)])
    solve = kfi if solver == "kfi" else solved
    name = moment_of(solver, moment)
    own = own_factors(made, before, point, kind, name)
    close(moves(before, after), solve(own, own_gradient(made, before, point), ALPHA), 1e-8, "own factors")
    independent = factors(spec, before, point, KINDS[kind], name)
    close(moves(before, after), solve(independent, gradient(spec, before, point), ALPHA), 1e-8, "oracle")


SKIP = [
    {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
    {"name": "fc2", "type": "dense", "units": 4, "activation": "softplus", "bias": False},
    {"name": "sum1", "type": "add", "inputs": ["fc1", "fc2"]},
    {"name": "fc3", "type": "dense", "units": 3, "activation": "tanh"},
    {"name": "fc4", "type": "dense", "units": 2},
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "solver"), [("hessian", "exact"), ("pch1", "ea_cg"), ("ggn", "kfi")])
def test_a_graph_with_a_skip_and_a_layer_without_bias(kind: str, solver: str, backend: str) -> None:
    """The same equations where numbers of layers and of states differ, for a loss of one's own."""
    spec_data = network(
        {"kind": kind, "solver": solver},
        layers=SKIP,
        loss={"expression": "sum((y - t)**4)/4 + sum(exp(y - t))"},
    )
    spec, point = point_of(spec_data)
    run = Run(module(spec_data, backend), point.params, **numbers(solver))
    before, after = steps(run, [(point.inputs, point.targets)])
    factor = factors(spec, before, point, KINDS[kind], moment_of(solver, "auto"))
    solve = kfi if solver == "kfi" else solved
    close(moves(before, after), solve(factor, gradient(spec, before, point), ALPHA))


OWN: tuple[Any, ...] = (
    ({"name": "pch2_positive", "kind": "pch2", "output": "positive"}, "ea_cg"),
    ({"name": "each", "kind": "pch1", "expectation": False}, "kfi"),
    ({"name": "mean_ggn", "kind": "ggn", "expectation": True, "output": "absolute"}, "cg"),
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("entry", "solver"), OWN)
def test_kinds_of_the_specs_list(entry: dict[str, Any], solver: str, backend: str) -> None:
    """A name of ``curvature:`` with its rewrites, on a loss that is not convex, EA-CG(14)."""
    spec_data = network({"kind": entry["name"], "solver": solver}, curvature=[entry], loss="bounded")
    spec, point = point_of(spec_data, seed=3)
    run = Run(module(spec_data, backend), point.params, **numbers(solver))
    before, after = steps(run, [(point.inputs, point.targets)])
    factor = factors(spec, before, point, kind_of(spec.curvature[0]), moment_of(solver, "auto"))
    solve = kfi if solver == "kfi" else solved
    close(moves(before, after), solve(factor, gradient(spec, before, point), ALPHA))


def test_a_name_of_the_list_goes_before_a_preset_of_another_kind() -> None:
    """Rewrites matter: clipped and kept residuals give other steps (the test above can fail)."""
    found = []
    for entry in ({"name": "mine", "kind": "pch1"}, {"name": "mine", "kind": "pch2"}):
        spec_data = network({"kind": "mine", "solver": "exact"}, curvature=[entry])
        _, point = point_of(spec_data)
        run = Run(module(spec_data, "torch"), point.params, **numbers("exact"))
        found.append(steps(run, [(point.inputs, point.targets)])[1])
    assert np.abs(found[0]["fc1.weight"] - found[1]["fc1.weight"]).max() > 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sum_over_the_batch_moves_as_the_mean(backend: str) -> None:
    """``reduction: sum`` multiplies what functions return, the objective of a step too, and not the step."""
    found = []
    for reduction in ("mean", "sum"):
        loss = {"function": "squared_error", "reduction": reduction}
        spec_data = network({"solver": "exact"}, loss=loss)
        _, point = point_of(spec_data)
        run = Run(module(spec_data, backend), point.params, **numbers("exact"))
        value = run.step(point.inputs, point.targets)
        found.append((value, run.params))
    assert found[1][0] == pytest.approx(len(point.inputs) * found[0][0], rel=1e-13)
    close(found[1][1], found[0][1], 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("solver", ["ea_cg", "kfi"])
def test_momentum_adds_up_over_steps(solver: str, backend: str) -> None:
    """V ← μ V + D, θ ← θ − lr V, with a direction of its own at every step and batch."""
    spec_data = network({"solver": solver})
    spec, point = point_of(spec_data)
    batches = data(spec, range(10, 14))
    run = Run(module(spec_data, backend), point.params, **numbers(solver, momentum=0.7))
    params, velocity = start(point), dict.fromkeys(point.params, 0.0)
    solve = kfi if solver == "kfi" else solved
    for found, (inputs, targets) in zip(steps(run, batches)[1:], batches, strict=True):
        batch = type(point)(params, inputs, targets, {})
        factor = factors(spec, params, batch, KINDS["pch1"], moment_of(solver, "auto"))
        d = solve(factor, gradient(spec, params, batch), ALPHA)
        velocity = {name: 0.7 * velocity[name] + d[name] for name in d}
        params = {name: params[name] - RATE * velocity[name] for name in d}
        close(found, params, 1e-8)
    close({"V": run.memory("velocity_weights", 2)}, {"V": velocity["fc2.weight"]})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("decay", [0.0, 0.6])
def test_period_refresh_and_moving_averages(decay: float, backend: str) -> None:
    """Factors from steps 1, 4 and a refresh; averages weigh them ρ^age over the sum of the weights.

    The gradient is always that of the step's own batch.
    """
    spec_data = network({"solver": "exact", "decay": decay, "period": 3, "kind": "fisher"})
    spec, point = point_of(spec_data)
    batches = data(spec, range(20, 29))
    others = data(spec, range(40, 42), batch=11)
    run = Run(module(spec_data, backend), point.params, lr=RATE, momentum=0.0, alpha=ALPHA)
    params: dict[str, Any] = start(point)
    history: list[Any] = []

    def take(inputs: Any, targets: Any) -> None:
        batch = type(point)(params, inputs, targets, {})
        history.append(factors(spec, params, batch, KINDS["fisher"], "second"))

    for number, (inputs, targets) in enumerate(batches):
        if number == 5:  # in the middle of a period, which begins anew
            run.refresh(*others[0])
            take(*others[0])
        if number in (0, 3, 8):
            take(inputs, targets)
        factor = averaged_factors(history, decay) if decay else history[-1]
        batch = type(point)(params, inputs, targets, {})
        d = solved(factor, gradient(spec, params, batch), ALPHA)
        run.step(inputs, targets)
        params = {name: params[name] - RATE * d[name] for name in d}
        close(run.params, params, 1e-8, f"step {number}")
    assert len(history) == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_refresh_before_the_first_step(backend: str) -> None:
    """The first step uses the curvature of the refresh, and the parameters do not move in it."""
    spec_data = network({"solver": "ea_cg"})
    spec, point = point_of(spec_data)
    ((inputs, targets),) = data(spec, range(50, 51), batch=9)
    run = Run(module(spec_data, backend), point.params, **numbers("ea_cg"))
    run.refresh(inputs, targets)
    close(run.params, point.params, 0.0)
    before, after = steps(run, [(point.inputs, point.targets)])
    other = type(point)(before, inputs, targets, {})
    factor = factors(spec, before, other, KINDS["pch1"], "mean")
    close(moves(before, after), solved(factor, gradient(spec, before, point), ALPHA))


SAMPLED = network({"kind": "sampled_fisher", "solver": "exact"}, sizes=(3, 3, 2))


def sampled(backend: str, **numbers_: Any) -> tuple[Any, Run]:
    """Sampled Fisher on 40 samples and two classes."""
    _, point = point_of(SAMPLED, batch=40)
    return point, Run(module(SAMPLED, backend), point.params, momentum=0.0, **numbers_)


def block_of(run: Run) -> Any:
    """The block of the output that the last curvature found."""
    return [value for key, value in run.saved().items() if "mean_block" in key][-1]


def drawn_blocks(backend: str, seed: int, count: int) -> list[Any]:
    """Blocks of some steps that do not move."""
    point, run = sampled(backend, lr=0.0, seed=seed)
    found = []
    for _ in range(count):
        run.step(point.inputs, point.targets)
        found.append(block_of(run))
    return found


# Integers that wrap are silent in compiled code only.
quiet = pytest.mark.filterwarnings("ignore:overflow")


@quiet
@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_of_a_seed_can_be_repeated_and_steps_differ(backend: str) -> None:
    """A new optimizer with the same seed draws the same; the next step at the same point does not."""
    first, again = drawn_blocks(backend, 1, 3), drawn_blocks(backend, 1, 3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[1], first[2])


@quiet
@pytest.mark.parametrize("backend", BACKENDS)
def test_another_seed_draws_something_else(backend: str) -> None:
    """The option ``seed`` decides."""
    blocks = [drawn_blocks(backend, seed, 1)[0] for seed in (0, 1, 2, 7)]
    assert all(not np.array_equal(blocks[0], other) for other in blocks[1:])


@quiet
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_refresh_after_a_step_draws_anew(backend: str) -> None:
    """Refreshed blocks of one batch at one point are independent draws, as those of steps are."""
    point, run = sampled(backend, lr=0.0, seed=1)
    found = []
    for _ in range(2):
        run.refresh(point.inputs, point.targets)
        found.append(block_of(run))
        run.step(point.inputs, point.targets)
    assert not np.array_equal(found[0], found[1])


@quiet
@pytest.mark.parametrize("backend", BACKENDS)
def test_sampled_blocks_are_those_of_drawn_targets_and_unbiased(backend: str) -> None:
    """The mean over 200 steps at one point is the Fisher block, to five standard errors."""
    point, _ = sampled(backend)
    oracle = Oracle(build_spec(SAMPLED), point)
    found = np.array(drawn_blocks(backend, 5, 200))
    expected, error = oracle.fisher()["fc2"], found.std(axis=0) / np.sqrt(len(found))
    assert error.max() < 0.05 * expected.max()
    assert (np.abs(found.mean(axis=0) - expected) < 5 * error).all()
    # One sample and two classes: the block is the outer product at one of two targets.
    _, point = point_of(SAMPLED, batch=1)
    run = Run(module(SAMPLED, backend), point.params, momentum=0.0, lr=0.0)
    oracle = Oracle(build_spec(SAMPLED), point)
    either = [oracle.at(target[None])["fc2"] for target in torch.eye(2, dtype=torch.float64)]
    seen = set()
    for _ in range(40):
        run.step(point.inputs, point.targets)
        errors = [np.abs(block_of(run) - block).max() for block in either]
        assert min(errors) < 1e-12
        seen.add(int(np.argmin(errors)))
    assert seen == {0, 1}


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_sample_is_newton_on_each_block(backend: str) -> None:
    """One sample, α small: PCH with a convex loss and affine layers is the Hessian, whose blocks invert."""
    spec_data = network(
        {"solver": "exact"}, sizes=(1, 1, 1), activation="identity", loss="squared_error", state=0.0
    )
    spec, point = point_of(spec_data, batch=1)
    run = Run(module(spec_data, backend), point.params, lr=1.0, momentum=0.0, alpha=1e-12)
    before, after = steps(run, [(point.inputs, point.targets)])
    dense = Oracle(spec, point).dense()
    g = gradient(spec, before, point)
    moved = {name: before[name] - after[name] for name in before}
    close(moved, {name: g[name] / dense[name].reshape(g[name].shape) for name in g}, 1e-6)


def test_the_oracle_of_this_file_agrees_with_torch_func_where_a_kind_is_exact() -> None:
    """Mean of torch.func's per-sample blocks: ``hessian`` of the objective, ``ggn`` of the loss."""
    spec, point = point_of(network(activation="softplus"))
    oracle = Oracle(spec, point)
    for kind, exact in (("hessian", oracle.exact()), ("ggn", oracle.gauss_newton())):
        found = factors(spec, point.params, point, KINDS[kind], "second")
        close({name: block for name, (_, block) in found.items()}, means(exact), 1e-10)
    assert isinstance(KINDS["ggn"], Kind)
