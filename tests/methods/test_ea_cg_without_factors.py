"""Steps of ``ea_cg`` in networks with norms, embeddings, attention and channels in groups.

Directions are held to dense algebra on the factors and diagonals of the module, which
``tests/backends/test_factors_beside_others.py`` holds to autograd.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from newton_blocks import BACKENDS, Run, close, kfi, module, network, point_of, solved, steps
from newton_blocks import _called as called

from sifrc.errors import DerivationError, MethodError
from sifrc.verify.points import Point

RATE, ALPHA = 0.1, 0.2
CONVERGED = {"cg_iterations": 100.0, "cg_tolerance": 1e-12}
OPERATORS = ("gradient", "curvature_factors", "diagonal")

TRANSFORMER: list[dict[str, Any]] = [
    {"name": "wte", "type": "embedding", "units": 4},
    {"name": "wpe", "type": "positions"},
    {"name": "n1", "type": "layer_norm"},
    {"name": "at", "type": "attention", "heads": 2, "causal": True},
    {"name": "res", "type": "add", "inputs": ["wpe", "at"]},
    {"name": "n2", "type": "rms_norm"},
    {"name": "head", "type": "dense", "units": 3},
]
BLOCK: list[dict[str, Any]] = [
    {"name": "wide", "type": "conv", "channels": 6, "kernel": 1, "bias": False},
    {"name": "n1", "type": "group_norm", "groups": 3, "activation": "tanh"},
    {"name": "depth", "type": "conv", "channels": 6, "kernel": 2, "groups": 6},
    {"name": "pairs", "type": "conv", "channels": 4, "kernel": [2, 1], "groups": 2, "activation": "softplus"},
    {"name": "flat", "type": "flatten"},
    {"name": "out", "type": "dense", "units": 3},
]
VECTORS: list[dict[str, Any]] = [
    {"name": "fc1", "type": "dense", "units": 5, "activation": "tanh"},
    {"name": "n1", "type": "layer_norm"},
    {"name": "fc2", "type": "dense", "units": 3},
]
NETWORKS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "transformer": ({"size": 3, "classes": 5}, TRANSFORMER),
    "block": ({"size": [4, 4, 3]}, BLOCK),
    "vectors": ({"size": 4}, VECTORS),
}
GROUPS = {"depth": 6, "pairs": 2}
GRID = (
    ("ggn", "ea_cg", "auto", "expand"),
    ("fisher", "cg", "second", "reduce"),
    ("empirical_fisher", "kfi", "second", "expand"),
    ("ggn", "kfi", "mean", "reduce"),
    ("fisher", "exact", "second", "expand"),
    ("ggn", "exact", "mean", "expand"),
)


def spec_of(name: str, method: dict[str, Any], **more: Any) -> dict[str, Any]:
    source, layers = NETWORKS[name]
    data = network(method, layers=layers, operators=OPERATORS, state=0.0, **more)
    data["network"]["input"] = {"name": "x", **source}
    return data


def alone(name: str, solver: str, moment: str) -> list[str]:
    """Layers that have diagonals: those without factors, and whose factors a solver does not take."""
    found = ["wpe", "n1", "n2"]
    found += [*GROUPS] if solver in ("kfi", "exact") else []
    found += ["wte"] if solver == "exact" and moment == "second" else []
    return [layer["name"] for layer in NETWORKS[name][1] if layer["name"] in found]


def expected(
    made: Any, params: Any, point: Point, solver: str, moment: str, **choices: Any
) -> dict[str, Any]:
    """The directions, layer by layer and group by group."""
    name = next(key for key, (_, layers) in NETWORKS.items() if layers[0]["name"] + ".weight" in params)
    diagonals = alone(name, solver, moment)
    if name == "vectors":
        choices.pop("sharing")
    pairs = called(made, "curvature_factors", params, point, moment=moment, **choices)
    entries = called(made, "diagonal", params, point, kind=choices["kind"])
    slopes = {key: np.asarray(value) for key, value in called(made, "gradient", params, point).items()}
    found = {
        key: value / ((1 - ALPHA) * np.asarray(entries[key]) + ALPHA)
        for key, value in slopes.items()
        if key.rpartition(".")[0] in diagonals
    }
    for layer, pair in pairs.items():
        if layer in diagonals:
            continue
        columns, rows = np.asarray(pair.moment), np.asarray(pair.block)
        turned = layer == "wte"
        if turned and moment == "second":
            columns = np.diag(columns)
        count = GROUPS.get(layer, 1)
        columns, rows = (value if count > 1 else value[None] for value in (columns, rows))
        weight, bias = slopes[f"{layer}.weight"], slopes.get(f"{layer}.bias")
        matrix = weight.T if turned else weight.reshape(len(weight), -1)
        for group in range(count):
            own = slice(group * len(matrix) // count, (group + 1) * len(matrix) // count)
            given = {"g.weight": matrix[own]} | ({} if bias is None else {"g.bias": bias[own]})
            solve = kfi if solver == "kfi" else solved
            for key, value in solve({"g": (columns[group], rows[group])}, given, ALPHA).items():
                slot = key.rpartition(".")[2]
                found.setdefault(f"{layer}.{slot}", np.zeros_like(matrix if slot == "weight" else bias))[
                    own
                ] = value
        if turned:
            found[f"{layer}.weight"] = found[f"{layer}.weight"].T
        found[f"{layer}.weight"] = found[f"{layer}.weight"].reshape(weight.shape)
    return found


def run_of(made: Any, point: Point, solver: str, **more: Any) -> Run:
    numbers: dict[str, Any] = {"lr": RATE, "momentum": 0.0, "alpha": ALPHA, **more}
    return Run(made, point.params, **(numbers if solver in ("kfi", "exact") else {**CONVERGED, **numbers}))


def moves(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {name: (before[name] - after[name]) / RATE for name in before}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("kind", "solver", "moment", "sharing"), GRID)
def test_a_step_solves_the_damped_equations(
    kind: str, solver: str, moment: str, sharing: str, name: str
) -> None:
    """Of weights with factors as everywhere, group by group; ((1 − α) d + α) D = G of all others."""
    method = {"kind": kind, "solver": solver, "moment": moment, "sharing": sharing}
    data = spec_of(name, method, curvature=[kind])
    _, point = point_of(data, batch=4)
    made = module(data, "torch")
    before, after = steps(run_of(made, point, solver), [(point.inputs, point.targets)])
    chosen = "mean" if moment == "auto" else moment
    close(
        moves(before, after), expected(made, before, point, solver, chosen, kind=kind, sharing=sharing), 1e-7
    )


@pytest.mark.usefixtures("jit_off")
@pytest.mark.parametrize("solver", ["ea_cg", "kfi"])
@pytest.mark.parametrize("name", NETWORKS)
def test_backends_take_the_same_steps(name: str, solver: str) -> None:
    method = {"kind": "ggn", "solver": solver, "decay": 0.5, "period": 2}
    data = spec_of(name, method, curvature=["ggn"])
    _, point = point_of(data, batch=4)
    batch = (point.inputs, point.targets)
    found = [
        steps(run_of(module(data, backend), point, solver, decay=0.5), [batch] * 3)[-1]
        for backend in BACKENDS
    ]
    close(found[0], found[1], 1e-9)


@pytest.mark.parametrize("name", ["transformer", "block"])
def test_diagonals_have_moving_averages(name: str) -> None:
    """Of weight one: after two steps (decay · (1 − decay) · d₁ + (1 − decay) · d₂) / (1 − decay²)."""
    data = spec_of(name, {"kind": "ggn", "solver": "cg", "decay": 0.7}, curvature=["ggn"])
    _, point = point_of(data, batch=4)
    made = module(data, "torch")
    found = steps(run_of(made, point, "cg", decay=0.7), [(point.inputs, point.targets)] * 2)
    first, second = (called(made, "diagonal", params, point, kind="ggn") for params in found[:2])
    slopes, moved = called(made, "gradient", found[1], point), moves(found[1], found[2])
    for layer in alone(name, "cg", "second"):
        key = f"{layer}.weight"
        average = (0.7 * np.asarray(first[key]) + np.asarray(second[key])) / 1.7
        wanted = np.asarray(slopes[key]) / ((1 - ALPHA) * average + ALPHA)
        close({key: moved[key]}, {key: wanted}, 1e-8)


@pytest.mark.parametrize("kind", ["sampled_fisher", "ggn"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_falls(name: str, kind: str) -> None:
    data = spec_of(name, {"kind": kind, "solver": "cg", "alpha": 0.2, "decay": 0.9})
    _, point = point_of(data, batch=16)
    run = Run(module(data, "torch"), point.params, lr=0.05)
    losses = [run.step(point.inputs, point.targets) for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "kind"), [("cg", "ggn"), ("kfi", "sampled_fisher")])
def test_a_transformer_learns_to_copy(solver: str, kind: str) -> None:
    """The token before, at every place, in 300 steps on fresh data: to nearly no loss."""
    layers: list[dict[str, Any]] = [
        {"name": "wte", "type": "embedding", "units": 16},
        {"name": "wpe", "type": "positions"},
        {"name": "n1", "type": "layer_norm"},
        {"name": "at", "type": "attention", "heads": 2, "causal": True},
        {"name": "mixed", "type": "add", "inputs": ["wpe", "at"]},
        {"name": "n2", "type": "layer_norm"},
        {"name": "up", "type": "dense", "units": 32, "activation": "gelu"},
        {"name": "down", "type": "dense", "units": 16},
        {"name": "whole", "type": "add", "inputs": ["mixed", "down"]},
        {"name": "n3", "type": "layer_norm"},
        {"name": "head", "type": "dense", "units": 8},
    ]
    method = {"kind": kind, "solver": solver, "decay": 0.9, "alpha": 0.03}
    data = network(method, layers=layers, operators=("gradient",), state=0.0, curvature=[kind])
    data["network"]["input"] = {"name": "x", "size": 8, "classes": 8}
    _, point = point_of(data, batch=2)
    run = Run(module(data, "torch"), point.params, lr=0.03)
    generator = np.random.default_rng(0)
    losses = []
    for _ in range(300):
        tokens = generator.integers(0, 8, size=(32, 8))
        losses.append(run.step(tokens, np.concatenate([tokens[:, :1], tokens[:, :-1]], 1)))
    assert losses[0] > 1.9
    assert max(losses[-20:]) < 0.3


# -- what is refused


@pytest.mark.parametrize(
    ("name", "solver", "reason"),
    [
        ("transformer", "cg", "'wpe' has no Kronecker factors: it is no matrix whose rows multiply"),
        ("vectors", "cg", "'n1' has no Kronecker factors: it is no matrix"),
        ("block", "kfi", "'n1' has no Kronecker factors"),
    ],
)
def test_others_can_be_an_error(name: str, solver: str, reason: str) -> None:
    """Which parameter, why, and what would do."""
    data = spec_of(name, {"kind": "ggn", "solver": solver, "others": "error"}, curvature=["ggn"])
    with pytest.raises(DerivationError, match=reason) as caught:
        module(data, "torch")
    assert "others: diagonal" in str(caught.value.hint)


def test_factors_of_groups_that_a_solver_does_not_take_are_named() -> None:
    layers = [layer for layer in BLOCK if layer["type"] != "group_norm"]
    data = network({"kind": "ggn", "solver": "kfi", "others": "error"}, layers=layers, state=0.0)
    data["network"]["input"] = {"name": "x", "size": [4, 4, 3]}
    with pytest.raises(DerivationError, match="'depth' has no Kronecker factors: none for solver 'kfi'"):
        module(data, "torch")
    data["method"]["solver"] = "cg"
    assert module(data, "torch")


def test_indefinite_diagonals_are_not_divided_by() -> None:
    data = spec_of("vectors", {"kind": "hessian", "solver": "exact"}, curvature=["hessian"])
    with pytest.raises(
        MethodError, match="'hessian' is indefinite, and the parameters of layer 'n1'"
    ) as caught:
        module(data, "torch")
    assert "ggn" in str(caught.value.hint)
    with pytest.raises(MethodError, match="option 'others' cannot be 'none'"):
        module(spec_of("vectors", {"others": "none", "kind": "ggn"}), "torch")
