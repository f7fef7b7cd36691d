"""Conjugate gradients in generated modules: the iterates, where they end, what is reported, what is refused.

The reference is the textbook algorithm in NumPy on every block; Numba modules run with the JIT off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from newton_blocks import (
    BACKENDS,
    Run,
    close,
    compiled,
    data,
    factors,
    gradient,
    kfi,
    module,
    network,
    point_of,
    search,
    solved,
    steps,
)

from sifrc.derive.curvature.kinds import KINDS
from sifrc.verify.points import Point

WIDE = network({"solver": "ea_cg"}, sizes=(6, 13, 4), activation="tanh")
"""Blocks of 13 and 4: conjugate gradients need up to 14 iterations."""
EXACT_LIMIT = 13
ALPHA = 1e-3
"""Little damping: the residuals above rounding for all 12 iterations."""


def moved(run: Run, point: Point) -> dict[str, Any]:
    """The direction of the next step; lr is 1 and there is no momentum."""
    before, after = steps(run, [(point.inputs, point.targets)])
    return {name: before[name] - after[name] for name in before}


def numbers(limit: float, tolerance: float = 0.0, alpha: float = ALPHA) -> dict[str, float]:
    return {"lr": 1.0, "momentum": 0.0, "alpha": alpha, "cg_iterations": limit, "cg_tolerance": tolerance}


def reports(run: Run, params: dict[str, Any]) -> dict[str, tuple[int, float]]:
    """Iterations and remaining residual of every parameter, from the optimizer's state."""
    found = {}
    for k, layer in enumerate(dict.fromkeys(name.partition(".")[0] for name in params), start=1):
        for part, prefix in (("weight", ""), ("bias", "bias_")):
            if f"{layer}.{part}" in params:
                count, rest = run.memory(f"{prefix}iterations", k), run.memory(f"{prefix}remaining", k)
                assert float(count) == int(count)
                found[f"{layer}.{part}"] = int(count), float(rest)
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("moment", ["mean", "second"])
def test_every_iterate_is_that_of_the_textbook_with_and_without_the_structure_pass(
    moment: str, backend: str
) -> None:
    """0 to 12 iterations, no tolerance: coordinates of n + 1 numbers, whole matrices, and NumPy agree."""
    spec_data = {**WIDE, "method": {"name": "ea_cg", "moment": moment}}
    spec, point = point_of(spec_data, batch=30)
    made = [module(spec_data, backend, structure=structure) for structure in (True, False)]
    factor, g = factors(spec, point.params, point, KINDS["pch1"], moment), gradient(spec, point.params, point)
    compared = 0
    for limit in range(EXACT_LIMIT):
        expected = search(factor, g, ALPHA, limit, 0.0)
        runs = [Run(one, point.params, **numbers(float(limit))) for one in made]
        both = [moved(run, point) for run in runs]
        close(both[0], both[1], 1e-9, f"passes, {limit}")
        close(both[0], {name: value.solution for name, value in expected.items()}, 1e-9, f"NumPy, {limit}")
        for run in runs:
            for name, (count, rest) in reports(run, g).items():
                assert count <= limit
                if rest > 1e-9:  # not converged to rounding
                    assert count == limit == expected[name].iterations
                    assert rest == pytest.approx(expected[name].remaining, rel=1e-5)
                    compared += limit > 0
    assert compared >= 2 * EXACT_LIMIT


def test_the_pass_makes_the_difference_that_is_tested() -> None:
    """With it the search runs on vectors, without it on whole matrices."""
    with_pass, without = (compiled(WIDE, "torch", structure).text for structure in (True, False))
    assert "direction_along" in with_pass and "direction_along" not in without
    second = compiled({**WIDE, "method": {"name": "ea_cg", "moment": "second"}}, "torch").text
    assert "direction_along" not in second


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_exact_solutions_do_not_depend_on_the_structure_pass(alpha: float, backend: str) -> None:
    """A rank-one moment by eigenvalues, in coordinates and whole; α = 1 is gradient descent."""
    spec_data = {**WIDE, "method": {"name": "ea_cg", "moment": "mean", "solver": "exact"}}
    spec, point = point_of(spec_data)
    g = gradient(spec, point.params, point)
    expected = solved(factors(spec, point.params, point, KINDS["pch1"], "mean"), g, alpha)
    for structure in (True, False):
        run = Run(
            module(spec_data, backend, structure=structure), point.params, lr=1.0, momentum=0.0, alpha=alpha
        )
        found = moved(run, point)
        close(found, expected, 1e-9)
        if alpha == 1.0:
            close(found, g, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("structure", [True, False])
def test_tolerance_and_limit_end_the_search_and_the_reports_are_true(structure: bool, backend: str) -> None:
    """The first iterate whose residual is small enough; the residual is that of the returned direction."""
    spec, point = point_of(WIDE, batch=30)
    made = module(WIDE, backend, structure=structure)
    factor, g = factors(spec, point.params, point, KINDS["pch1"], "mean"), gradient(spec, point.params, point)
    ended = set()
    for tolerance in (0.5, 0.1, 1e-2, 1e-4):
        for limit in (3, 40):
            expected = search(factor, g, ALPHA, limit, tolerance)
            run = Run(made, point.params, **numbers(float(limit), tolerance))
            found = moved(run, point)
            close(found, {name: value.solution for name, value in expected.items()}, 1e-8)
            for name, (count, rest) in reports(run, g).items():
                assert count == expected[name].iterations <= limit
                assert rest <= tolerance or count == limit
                m, block = factor[name.partition(".")[0]]
                image = (
                    block @ found[name] @ np.outer(m, m) if name.endswith("weight") else block @ found[name]
                )
                residual = g[name] - (1 - ALPHA) * image - ALPHA * found[name]
                assert rest == pytest.approx(np.linalg.norm(residual) / np.linalg.norm(g[name]), rel=1e-6)
                ended.add(rest <= tolerance)
    assert ended == {True, False}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("solver", ["ea_cg", "cg", "exact", "kfi"])
def test_a_zero_right_side_is_a_step_of_zero(solver: str, backend: str) -> None:
    """Targets are the outputs: no gradient, no iteration, nothing left over, α = 0.2 and 0 for the search."""
    spec_data = network({"solver": solver}, loss="squared_error", state=0.0)
    _, point = point_of(spec_data)
    made = module(spec_data, backend)
    for alpha in (0.2, 0.0) if solver in ("ea_cg", "cg") else (0.2,):
        run = Run(made, point.params, lr=1.0, alpha=alpha)
        params, inputs = (
            (run.model.state_dict(), run.given(point.inputs)) if run.torch else (run.own, point.inputs)
        )
        outputs = np.asarray(made.predict(params, inputs))
        found = moved(run, Point(point.params, point.inputs, outputs, {}))
        close(found, {name: np.zeros_like(value) for name, value in found.items()}, 0.0)
        if solver in ("ea_cg", "cg"):
            assert set(reports(run, point.params).values()) == {(0, 0.0)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("solver", ["ea_cg", "exact", "kfi"])
@pytest.mark.parametrize("structure", [True, False])
def test_inputs_with_mean_zero(structure: bool, solver: str, backend: str) -> None:
    """m = 0 for the first layer: α D = G there; with the factored inverse π = 1, EA-CG(13)."""
    spec_data = network({"solver": solver, "moment": "mean"})
    spec, point = point_of(spec_data, batch=1)
    inputs, targets = np.concatenate([point.inputs, -point.inputs]), np.tile(point.targets, 2)
    point = Point(point.params, inputs, targets, {})
    assert not inputs.mean(axis=0).any()
    extra = {"cg_iterations": 50.0, "cg_tolerance": 1e-13} if solver == "ea_cg" else {}
    run = Run(
        module(spec_data, backend, structure=structure),
        point.params,
        lr=1.0,
        momentum=0.0,
        alpha=0.2,
        **extra,
    )
    g, factor = gradient(spec, point.params, point), factors(spec, point.params, point, KINDS["pch1"], "mean")
    expected = (kfi if solver == "kfi" else solved)(factor, g, 0.2)
    found = moved(run, point)
    close(found, expected, 1e-9)
    if solver != "kfi":
        close({"D": found["fc1.weight"]}, {"D": g["fc1.weight"] / 0.2}, 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("solver", ["ea_cg", "cg"])
@pytest.mark.parametrize("structure", [True, False])
def test_singular_blocks_without_damping_stay_finite(structure: bool, solver: str, backend: str) -> None:
    """α = 0, a softmax, few samples: no NaN at up to 20 iterations, and the first ones are CG's."""
    for limit, found, expected in undamped(solver, structure, backend, (0, 1, 2, 5, 20)):
        assert all(np.isfinite(value).all() for value in found.values())
        if limit < 2:
            close(found, {name: value.solution for name, value in expected.items()}, 1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("solver", ["ea_cg", "cg"])
def test_singular_blocks_without_damping_do_not_blow_up(solver: str, backend: str) -> None:
    """A direction of curvature zero to rounding ends the search, as one of negative curvature does.

    In exact arithmetic that is after as many iterations as the operator has rank; no later one is made.
    """
    ranks = {"fc1.weight": 4, "fc1.bias": 4, "fc2.weight": 2, "fc2.bias": 2}
    if solver == "cg":  # two samples make a second moment of rank two
        ranks |= {"fc1.weight": 8, "fc2.weight": 4}
    longest = dict.fromkeys(ranks, 0.0)
    for limit, found, expected in undamped(solver, True, backend, (*range(1, 9), 20, 60)):
        for name, value in found.items():
            if limit <= ranks[name]:
                longest[name] = max(longest[name], np.abs(expected[name].solution).max())
            assert np.abs(value).max() < 10 * longest[name], (limit, name)


def undamped(solver: str, structure: bool, backend: str, limits: tuple[int, ...]) -> Any:
    """(limit, direction, textbook) of steps without damping; blocks have no full rank."""
    spec_data = network({"solver": solver, "kind": "ggn"}, state=0.0)
    spec, point = point_of(spec_data, batch=2)  # fewer samples than inputs
    made = module(spec_data, backend, structure=structure)
    g = gradient(spec, point.params, point)
    factor = factors(spec, point.params, point, KINDS["ggn"], "mean" if solver == "ea_cg" else "second")
    for limit in limits:
        run = Run(made, point.params, **numbers(float(limit), 1e-3, 0.0))
        found = moved(run, point)
        assert all(np.isfinite(rest) and count <= limit for count, rest in reports(run, g).values())
        yield limit, found, search(factor, g, 0.0, limit, 1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("solver", ["ea_cg", "cg"])
def test_negative_curvature_ends_the_search(solver: str, backend: str) -> None:
    """The Hessian of a loss that is not convex: the textbook iterates up to there, fewer than the limit."""
    spec_data = network({"kind": "hessian", "solver": solver}, loss="bounded", state=0.0)
    made = module(spec_data, backend)
    note = "Conjugate gradients end at a direction of negative curvature."
    assert note in compiled(spec_data, backend).planned.notes
    text = (made.Optimizer if backend == "torch" else made.State).__doc__
    assert note in " ".join(text.split())
    early = 0
    for seed in range(3):
        spec, point = point_of(spec_data, seed=seed)
        g = gradient(spec, point.params, point)
        factor = factors(
            spec, point.params, point, KINDS["hessian"], "mean" if solver == "ea_cg" else "second"
        )
        expected = search(factor, g, 1e-3, 15, 1e-6)
        run = Run(made, point.params, **numbers(15.0, 1e-6, 1e-3))
        found = moved(run, point)
        close(found, {name: value.solution for name, value in expected.items()}, 1e-6, f"seed {seed}")
        for name, (count, rest) in reports(run, g).items():
            assert count == expected[name].iterations
            early += count < 15 and rest > 1e-6
    assert early > 2
    definite = network({"kind": "pch1", "solver": solver}, loss="bounded")
    assert note not in compiled(definite, backend).planned.notes


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("solver", ["ea_cg", "exact", "kfi"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_refused(value: float, solver: str, backend: str) -> None:
    """An error, parameters and state to the bit as before, and good steps afterwards."""
    spec_data = network({"solver": solver})
    spec, point = point_of(spec_data)
    batches = data(spec, range(3))
    run = Run(module(spec_data, backend), point.params)
    twin = Run(module(spec_data, backend), point.params)
    run.step(*batches[0])
    twin.step(*batches[0])
    saved = run.saved()
    own = dict(run.model.named_parameters()) if run.torch else run.own
    weight = own["fc2.weight"].data if run.torch else own["fc2.weight"]
    kept = float(weight[1, 2])
    weight[1, 2] = value
    before = run.params
    with pytest.raises(FloatingPointError, match=r"objective|fc2"):
        run.step(*batches[1])
    np.testing.assert_equal(run.params, before)
    np.testing.assert_equal(run.saved(), saved)
    weight[1, 2] = kept
    run.step(*batches[2])
    twin.step(*batches[2])
    np.testing.assert_equal(run.params, twin.params)


ODD = {"expression": "x + exp(-1/x**2)"}
"""Zero at zero, where its derivatives as they are written, 2 x⁻³ exp(−x⁻²), are not numbers."""


def dead(spec_data: dict[str, Any], layer: str) -> Point:
    """Parameters with pre-activations of zero at a layer; the objective stays finite."""
    _, point = point_of(spec_data)
    params = {name: 0 * v if name.startswith(f"{layer}.") else v for name, v in point.params.items()}
    return Point(params, point.inputs, point.targets, {})


def refused(run: Run, point: Point, match: str) -> None:
    """A step is refused with a text, and changes nothing."""
    before, saved = run.params, run.saved()
    with pytest.raises(FloatingPointError, match=match):
        run.step(point.inputs, point.targets)
    np.testing.assert_equal(run.params, before)
    if saved:  # the state of a torch optimizer begins at its first step
        np.testing.assert_equal(run.saved(), saved)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["ggn", "pch1"])
@pytest.mark.parametrize("layer", ["fc1", "fc2"])
def test_factors_that_are_not_finite_name_their_layer(layer: str, kind: str, backend: str) -> None:
    """The block of this layer is the first that is not a number; the kept blocks stay as they were."""
    layers = [
        {"name": "fc1", "type": "dense", "units": 4, "activation": ODD if layer == "fc1" else "tanh"},
        {"name": "fc2", "type": "dense", "units": 3, "activation": ODD if layer == "fc2" else "tanh"},
        {"name": "fc3", "type": "dense", "units": 2},
    ]
    spec_data = network({"kind": kind}, layers=layers, loss="squared_error")
    point = dead(spec_data, layer)
    text = rf"{layer}: .*blocks|blocks .*'{layer}'"
    refused(Run(module(spec_data, backend), point.params), point, text)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layer", ["fc3", "fc4"])
def test_factors_that_are_not_finite_name_their_layer_behind_a_skip(layer: str, backend: str) -> None:
    """Layers with parameters and states are numbered differently there."""
    layers = [
        {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
        {"name": "fc2", "type": "dense", "units": 4, "activation": "tanh"},
        {"name": "sum1", "type": "add", "inputs": ["fc1", "fc2"]},
        {"name": "fc3", "type": "dense", "units": 3, "activation": ODD if layer == "fc3" else "tanh"},
        {"name": "fc4", "type": "dense", "units": 2, **({"activation": ODD} if layer == "fc4" else {})},
    ]
    spec_data = network({"kind": "ggn"}, layers=layers, loss="squared_error")
    point = dead(spec_data, layer)
    refused(Run(module(spec_data, backend), point.params), point, rf"{layer}: .*blocks|blocks .*'{layer}'")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("solver", ["ea_cg", "cg", "exact", "kfi"])
@pytest.mark.parametrize("k", [1, 2])
def test_kept_factors_with_nan_are_refused_at_every_step(k: int, solver: str, backend: str) -> None:
    """Within a period nothing computes them again: the direction of the layer is refused."""
    spec_data = network({"solver": solver, "period": 5})
    _, point = point_of(spec_data)
    run = Run(module(spec_data, backend), point.params)
    run.step(point.inputs, point.targets)
    if run.torch:
        weight = dict(run.model.named_parameters())[f"fc{k}.weight"]
        run.optimizer.state[weight]["mean_block"][0, 0] = float("nan")
    else:
        run.state.memory.mean_block[k][0, 0] = np.nan
    refused(run, point, rf"fc{k}")
    refused(run, point, "direction")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_refused_refresh_leaves_the_state(backend: str) -> None:
    """NaN in the batch of a refresh: steps afterwards are those without it."""
    spec_data = network({"solver": "ea_cg", "period": 3})
    spec, point = point_of(spec_data)
    runs = [Run(module(spec_data, backend), point.params) for _ in range(2)]
    batches = data(spec, range(4))
    for run in runs:
        run.step(*batches[0])
    inputs = batches[1][0].copy()
    inputs[0, 0] = np.nan
    saved = runs[0].saved()
    with pytest.raises(FloatingPointError, match="fc"):
        runs[0].refresh(inputs, batches[1][1])
    np.testing.assert_equal(runs[0].saved(), saved)
    for run in runs:
        run.step(*batches[2])
    np.testing.assert_equal(runs[0].params, runs[1].params)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_search_does_not_depend_on_the_scale_of_the_operator(scale: float) -> None:
    """A well-conditioned system is solved, however large the numbers are that it is written in."""
    made = module(network({"name": "ea_cg"}), "torch")
    generator = np.random.default_rng(2)
    factor = generator.standard_normal((5, 5))
    matrix, rhs = (
        torch.from_numpy(factor @ factor.T + 2 * np.eye(5)),
        torch.from_numpy(generator.standard_normal(5)),
    )
    search = made._Search((rhs,), 50, 1e-12)
    while search.wanted:
        search.advance(tuple(scale * matrix @ direction for direction in search.directions))
    np.testing.assert_allclose(scale * search.solutions[0], np.linalg.solve(matrix, rhs), rtol=1e-9)
