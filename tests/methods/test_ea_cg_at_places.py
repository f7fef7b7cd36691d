"""Steps of ``ea_cg`` where weights act at several places: dense algebra on the factors, and losses that fall.

The factors themselves are held to autograd in ``tests/backends/test_sharing.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from newton_blocks import (
    BACKENDS,
    Run,
    averaged_factors,
    close,
    kfi,
    module,
    network,
    point_of,
    solved,
    steps,
)
from newton_blocks import _called as called

from sifrc.errors import DerivationError, MethodError
from sifrc.verify.points import Point

RATE, ALPHA = 0.1, 0.2
CONVERGED = {"cg_iterations": 100.0, "cg_tolerance": 1e-12}

CONVOLUTIONS: list[dict[str, Any]] = [
    {"name": "c1", "type": "conv", "channels": 3, "kernel": 2, "activation": "tanh"},
    {"name": "pool", "type": "pool", "function": "max", "kernel": 2},
    {"name": "c2", "type": "conv", "channels": 2, "kernel": [1, 2], "bias": False, "activation": "softplus"},
    {"name": "flat", "type": "flatten"},
    {"name": "out", "type": "dense", "units": 3},
]
TOKENS: list[dict[str, Any]] = [
    {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
    {"name": "fc2", "type": "dense", "units": 3},
]
NETWORKS: dict[str, tuple[list[int], list[dict[str, Any]]]] = {
    "convolutions": ([2, 5, 6], CONVOLUTIONS),
    "tokens": ([3, 2], TOKENS),
}
GRID = (
    ("ggn", "ea_cg", "auto", "expand"),
    ("ggn", "ea_cg", "second", "reduce"),
    ("fisher", "cg", "auto", "reduce"),
    ("fisher", "kfi", "auto", "expand"),
    ("empirical_fisher", "kfi", "auto", "reduce"),
    ("ggn", "kfi", "mean", "expand"),
    ("ggn", "exact", "second", "expand"),
    ("hessian", "exact", "mean", "reduce"),
    ("pch1", "ea_cg", "auto", "expand"),
    ("pch2", "cg", "second", "reduce"),
    ("kfra", "kfi", "auto", "expand"),
)


def spec_of(name: str, method: dict[str, Any], **more: Any) -> dict[str, Any]:
    size, layers = NETWORKS[name]
    data = network(method, layers=layers, operators=("gradient", "curvature_factors"), **more)
    data["network"]["input"] = {"name": "image", "size": size}
    return data


def numbers(solver: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"lr": RATE, "momentum": 0.0, "alpha": ALPHA, **more}
    return found if solver in ("kfi", "exact") else {**CONVERGED, **found}


def expected(made: Any, params: Any, point: Point, solver: str, **choices: Any) -> dict[str, Any]:
    """The directions, from the factors that the module gives; weights as matrices on the way."""
    pairs = called(made, "curvature_factors", params, point, **choices)
    factors = {layer: (np.asarray(pair.moment), np.asarray(pair.block)) for layer, pair in pairs.items()}
    return directions(made, params, point, solver, factors)


def directions(made: Any, params: Any, point: Point, solver: str, factors: Any) -> dict[str, Any]:
    slopes = {k: np.asarray(v) for k, v in called(made, "gradient", params, point).items()}
    flat = {k: v.reshape(len(v), -1) if k.endswith("weight") else v for k, v in slopes.items()}
    found = (kfi if solver == "kfi" else solved)(factors, flat, ALPHA)
    return {name: value.reshape(slopes[name].shape) for name, value in found.items()}


def moves(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {name: (before[name] - after[name]) / RATE for name in before}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("kind", "solver", "moment", "sharing"), GRID)
def test_a_step_solves_the_damped_equations(
    kind: str, solver: str, moment: str, sharing: str, name: str, backend: str
) -> None:
    """((1 − α) B ⊗ A + α I) d = g of every weight, ((1 − α) B + α I) d = g of every bias, or EA-CG(12)."""
    method = {"kind": kind, "solver": solver, "moment": moment, "sharing": sharing}
    data = spec_of(name, method, curvature=[kind])
    _, point = point_of(data, batch=4)
    made = module(data, backend)
    before, after = steps(Run(made, point.params, **numbers(solver)), [(point.inputs, point.targets)])
    chosen = moment if moment != "auto" else ("mean" if solver == "ea_cg" else "second")
    wanted = expected(made, before, point, solver, kind=kind, moment=chosen, sharing=sharing)
    close(moves(before, after), wanted, 1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_moving_averages_are_of_the_shared_factors(backend: str) -> None:
    method = {"kind": "ggn", "solver": "cg", "sharing": "reduce", "decay": 0.7}
    data = spec_of("convolutions", method, curvature=["ggn"])
    _, point = point_of(data, batch=4)
    made = module(data, backend)
    batch = (point.inputs, point.targets)
    found = steps(Run(made, point.params, **numbers("cg", decay=0.7)), [batch] * 2)
    history = []
    for params in found[:2]:
        pairs = called(made, "curvature_factors", params, point, kind="ggn", sharing="reduce")
        history.append({k: (np.asarray(pair.moment), np.asarray(pair.block)) for k, pair in pairs.items()})
    wanted = directions(made, found[1], point, "cg", averaged_factors(history, 0.7))
    close(moves(found[1], found[2]), wanted, 1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["sampled_fisher", "ggn"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_falls(name: str, kind: str, backend: str) -> None:
    method = {"kind": kind, "solver": "ea_cg", "learning_rate": 0.1}
    data = spec_of(name, method, state=0.0)
    _, point = point_of(data, batch=16)
    run = Run(module(data, backend), point.params, lr=0.1)
    losses = [run.step(point.inputs, point.targets) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_large_state_is_refused_with_a_kind_that_would_do() -> None:
    """The default kind has matrices over states."""
    data = spec_of("convolutions", {})
    data["network"]["input"]["size"] = [3, 32, 32]
    with pytest.raises(
        DerivationError, match="kind 'pch1' has a matrix over the state of layer 'c1'"
    ) as caught:
        module(data, "torch")
    assert "sampled_fisher" in str(caught.value.hint)
    with pytest.raises(MethodError, match="option 'sharing' cannot be 'both'"):
        module(spec_of("tokens", {"sharing": "both"}), "torch")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_of_which_nothing_is_known_is_checked_where_the_output_owns_nothing(backend: str) -> None:
    """Its block is that of the output's state, whichever layer makes it."""
    layers = [
        {"name": "c1", "type": "conv", "channels": 2, "kernel": 2, "activation": "tanh"},
        {"name": "flat", "type": "flatten"},
    ]
    loss = {"expression": "sum(where(y > 30, -(y - t)**2/2, (y - t)**2/2))"}
    data = network({"kind": "ggn", "solver": "cg"}, layers=layers, loss=loss, state=0.0)
    data["network"]["input"] = {"name": "image", "size": [1, 3, 3]}
    _, point = point_of(data, batch=4)
    run = Run(module(data, backend), point.params, lr=0.01)
    first = run.step(point.inputs, point.targets)
    assert run.step(point.inputs, point.targets) < first
