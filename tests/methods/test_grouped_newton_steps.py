"""Grouped Newton against GN3 Algorithm 4 written out with nested derivatives of the forward pass.

The oracle has its own momentum, averages and model of the step; its minimiser is a general optimiser, or a
linear solve without the cubic term. Nothing of the compiler is used but the spec and the forward pass.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from itertools import product
from types import ModuleType
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest
import scipy.optimize
import torch
from compiling import compile_once

import sifrc
from sifrc.cache import entry_name, module_from_cache
from sifrc.compiler import Request, compile_spec
from sifrc.errors import MethodError
from sifrc.ir.arithmetic import NUMPY
from sifrc.spec import Spec, build_spec
from sifrc.verify.oracles.forward_torch import ForwardTorch
from sifrc.verify.points import random_point

Array = npt.NDArray[Any]
Params = dict[str, Array]
Batch = tuple[Array, Array]
DEFAULTS: dict[str, Any] = {
    "learning_rate": 0.1,
    "momentum": 0.9,
    "rate_momentum": 0.5,
    "internal_damping": 10.0,
    "period": 10,
    "direction": "momentum",
    "regularization": "cubic",
    "interactions": "full",
    "positive": True,
    "ridge": 1e-3,
    "clip": 0.0,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
}
GROUPS = {
    "canonical": {f"fc{k}.{kind}": [f"fc{k}.{kind}"] for k in (1, 2, 3) for kind in ("weight", "bias")},
    "trivial": {"all": [f"fc{k}.{kind}" for k in (1, 2, 3) for kind in ("weight", "bias")]},
    "weights-biases": {kind: [f"fc{k}.{kind}" for k in (1, 2, 3)] for kind in ("weight", "bias")},
}


def network(partition: str = "canonical", activation: str = "tanh", **method: Any) -> dict[str, Any]:
    return {
        "sifrc": 1,
        "name": "grouped",
        "network": {
            "input": {"name": "image", "size": 6},
            "layers": [
                {"name": "fc1", "type": "dense", "units": 5, "activation": activation},
                {"name": "fc2", "type": "dense", "units": 4, "activation": activation},
                {"name": "fc3", "type": "dense", "units": 3},
            ],
        },
        "loss": "cross_entropy",
        "dtype": "float64",
        "partition": partition,
        "method": {"name": "grouped_newton", **method},
    }


@functools.cache
def _module(text: str, backend: str) -> ModuleType:
    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = True
    try:
        found = compile_once(build_spec(json.loads(text)), Request(backend=backend)).text
        return module_from_cache(entry_name("grouped", {"text": found}), lambda: found, None)
    finally:
        numba.config.DISABLE_JIT = before


def module(data: Mapping[str, Any], backend: str) -> ModuleType:
    """The generated module; Numba's functions are plain Python."""
    return _module(json.dumps(data), backend)


def batches(seed: int, count: int, size: int) -> list[Batch]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(size, 6)), rng.integers(0, 3, size)) for _ in range(count)]


def start(spec: Spec) -> Params:
    return {name: np.array(value, float) for name, value in random_point(spec, 0, 5).params.items()}


def minimiser(g: Array, h: Array, third: Array, strength: float) -> Array:
    """The lowest point of GN3 (36) that a general optimiser finds from many starts."""
    weights = np.abs(third) ** (1 / 3)

    def value(eta: Array) -> float:
        return float(-eta @ g + eta @ h @ eta / 2 + strength / 6 * np.linalg.norm(weights * eta) ** 3)

    def slope(eta: Array) -> Array:
        size = np.linalg.norm(weights * eta)
        return np.asarray(-g + h @ eta + strength / 2 * size * weights**2 * eta)

    # In units where the cubic term is round the problem is well scaled.
    rng = np.random.default_rng(0)
    found = []
    for scale in (0.0, 1e-2, 1e-1, 1.0, 10.0):
        begin = scale * rng.normal(size=len(g))
        result = scipy.optimize.minimize(
            lambda z: value(z / weights),
            begin,
            jac=lambda z: slope(z / weights) / weights,
            method="BFGS",
            options={"gtol": 1e-14, "maxiter": 10_000},
        )
        found.append((result.fun, result.x / weights))
    best = min(found, key=lambda item: item[0])[1]
    for _ in range(20):  # Newton's method to rounding
        size = np.linalg.norm(weights * best)
        outer = np.outer(weights**2 * best, weights**2 * best) / max(size, 1e-300)
        curvature = h + strength / 2 * (size * np.diag(weights**2) + outer)
        best = best - np.linalg.solve(curvature, slope(best))
    return np.asarray(best)


class Oracle:
    """GN3 Algorithm 4.

    Args:
        spec: of the network.
        groups: name -> tensors.
        options: of the method.
    """

    def __init__(self, spec: Spec, groups: Mapping[str, list[str]], options: Mapping[str, Any]) -> None:
        self.forward = ForwardTorch(spec)
        self.owner = {tensor: s for s, tensors in enumerate(groups.values()) for tensor in tensors}
        self.size = len(groups)
        self.o = {**DEFAULTS, **options}
        self.params = {name: torch.tensor(value) for name, value in start(spec).items()}
        self.average: dict[str, torch.Tensor] | None = None
        self.moments = [{n: torch.zeros_like(v) for n, v in self.params.items()} for _ in range(2)]
        self.rates: Array | None = None
        self.steps = 0

    def objective(self, batch: Batch) -> Any:
        return self.forward.differentiable(self.params, *(torch.tensor(part) for part in batch))

    def direction(self, gradient: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.o["direction"] == "gradient":
            return gradient
        if self.o["direction"] == "momentum":
            m = 0.0 if self.average is None else self.o["momentum"]
            old = gradient if self.average is None else self.average
            self.average = {n: m * old[n] + (1 - m) * g for n, g in gradient.items()}
            return self.average
        betas, count = (self.o["beta1"], self.o["beta2"]), self.steps + 1
        for moment, beta, power in zip(self.moments, betas, (1, 2), strict=True):
            for n, g in gradient.items():
                moment[n] = beta * moment[n] + (1 - beta) * g**power
        first, second = (
            {n: v / (1 - b**count) for n, v in m.items()} for m, b in zip(self.moments, betas, strict=True)
        )
        return {n: first[n] / (second[n].sqrt() + self.o["epsilon"]) for n in gradient}

    def found(self, batch: Batch, u: Mapping[str, torch.Tensor]) -> Array:
        objective = self.objective(batch)

        def along(eta: torch.Tensor) -> Any:
            return objective({n: v + eta[self.owner[n]] * u[n] for n, v in self.params.items()})

        zero = torch.zeros(self.size, dtype=torch.float64)
        slope = torch.func.grad(along)
        curved = torch.func.jacrev(slope)
        g, h = slope(zero).numpy(), curved(zero).numpy()
        third = np.einsum("sss->s", torch.func.jacrev(curved)(zero).numpy())
        if self.o["interactions"] == "diagonal":
            h = np.diag(np.diag(h))
        if self.o["regularization"] == "cubic":
            return minimiser(g, h, third, self.o["internal_damping"])
        damping = self.o["ridge"] if self.o["regularization"] == "ridge" else 0.0
        return np.asarray(np.linalg.solve(h + damping * np.eye(self.size), g))

    def step(self, batch: Batch, curvature: Batch | None) -> None:
        u = self.direction(torch.func.grad(self.objective(batch))(self.params))
        if self.steps % self.o["period"] == 0:
            rates = self.found(batch if curvature is None else curvature, u)
            rates = np.minimum(rates, self.o["clip"]) if self.o["clip"] else rates
            rates = np.maximum(rates, 0.0) if self.o["positive"] else rates
            m = self.o["rate_momentum"]
            self.rates = rates if self.rates is None else m * self.rates + (1 - m) * rates
        assert self.rates is not None
        moves = {n: self.o["learning_rate"] * float(self.rates[s]) * u[n] for n, s in self.owner.items()}
        self.params = {n: v - moves[n] for n, v in self.params.items()}
        self.steps += 1


class Run:
    """The optimizer of a generated module; arrays go in and out."""

    def __init__(self, made: ModuleType, params: Params) -> None:
        self.made, self.torch = made, hasattr(made, "torch")
        self.params = {name: value.copy() for name, value in params.items()}
        if self.torch:
            self.model = made.Network()
            self.model.load_state_dict({n: torch.tensor(v) for n, v in params.items()})
            self.optimizer = made.Optimizer(self.model)
        else:
            self.state = made.State(self.params)

    def step(self, batch: Batch, curvature: Batch | None) -> float:
        if not self.torch:
            return float(self.made.step(self.params, self.state, *batch, curvature=curvature))
        other = None if curvature is None else tuple(torch.tensor(part) for part in curvature)
        value = self.optimizer.step(*(torch.tensor(part) for part in batch), curvature=other)
        self.params = {n: v.detach().numpy() for n, v in self.model.state_dict().items()}
        return float(value)


def taken(period: int, separate: bool, count: int = 7) -> list[tuple[Batch, Batch | None]]:
    """The batches of some steps, and those of the curvature."""
    others = batches(1, count, 11)
    return [
        (batch, others[number // period] if separate else None)
        for number, batch in enumerate(batches(0, count, 8))
    ]


@functools.cache
def expected(text: str, separate: bool) -> list[dict[str, torch.Tensor]]:
    """The oracle's parameters after every step; the same for all backends."""
    data = json.loads(text)
    options = {k: v for k, v in data["method"].items() if k != "name"}
    oracle, found = Oracle(build_spec(data), GROUPS[data["partition"]], options), []
    for batch, curvature in taken(oracle.o["period"], separate):
        oracle.step(batch, curvature)
        found.append(dict(oracle.params))
    return found


def agree(data: dict[str, Any], backend: str, separate: bool, tolerance: float) -> None:
    run = Run(module(data, backend), start(build_spec(data)))
    wanted = expected(json.dumps(data), separate)
    for (batch, curvature), params in zip(taken(data["method"]["period"], separate), wanted, strict=True):
        run.step(batch, curvature)
        for name, value in params.items():
            np.testing.assert_allclose(
                run.params[name],
                value.numpy(),
                rtol=0,
                atol=tolerance * float(value.abs().max()),
                err_msg=name,
            )


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("canonical", {}),
    ("trivial", {}),
    ("weights-biases", {}),
    ("canonical", {"direction": "gradient"}),
    ("canonical", {"direction": "adam"}),
    ("weights-biases", {"interactions": "diagonal"}),
    ("weights-biases", {"regularization": "ridge"}),
    ("trivial", {"regularization": "none", "positive": False}),
    ("canonical", {"clip": 0.5}),
    ("canonical", {"internal_damping": 0.3, "learning_rate": 0.03}),
]


@pytest.mark.parametrize(
    ("variant", "backend", "separate"), product(range(len(VARIANTS)), ("numba", "torch"), (False, True))
)
def test_algorithm_4(variant: int, backend: str, separate: bool) -> None:
    """Seven steps, the summary every other or third one, on the batch of the step or one of its own."""
    partition, options = VARIANTS[variant]
    agree(network(partition, period=2 + variant % 2, **options), backend, separate, 1e-8)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_trivial_partition_without_cubic_term_is_cauchys_step(backend: str) -> None:
    """θ − (⟨g, g⟩ / ⟨g, H g⟩) g, GN3 App. C."""
    data = network(
        "trivial", direction="gradient", regularization="none", period=1, learning_rate=1.0, positive=False
    )
    spec, batch = build_spec(data), batches(0, 1, 8)[0]
    params = {n: torch.tensor(v) for n, v in start(spec).items()}
    objective = ForwardTorch(spec).differentiable(params, *(torch.tensor(part) for part in batch))
    slope, product_of = torch.func.jvp(
        torch.func.grad(objective), (params,), (torch.func.grad(objective)(params),)
    )
    rate = sum((g * g).sum() for g in slope.values()) / sum(
        (slope[n] * h).sum() for n, h in product_of.items()
    )
    run = Run(module(data, backend), start(spec))
    run.step(batch, None)
    for name, value in params.items():
        np.testing.assert_allclose(
            run.params[name], (value - rate * slope[name]).numpy(), rtol=1e-10, atol=1e-13
        )


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_discrete_partition_without_cubic_term_is_newtons_step(backend: str) -> None:
    """u ∘ H̄⁻¹ ḡ = H⁻¹ g, from the operator: every number is a group."""
    data = network("discrete") | {"method": None, "target": {"backend": backend, "operators": ["summary"]}}
    data = {key: value for key, value in data.items() if value is not None}
    spec, (inputs, targets) = build_spec(data), batches(0, 1, 40)[0]
    params = start(spec)
    tensors = {n: torch.tensor(v) for n, v in params.items()}
    objective = ForwardTorch(spec).differentiable(tensors, torch.tensor(inputs), torch.tensor(targets))
    sizes = [v.size for v in params.values()]

    def flat(vector: torch.Tensor) -> Any:
        parts = torch.split(vector, sizes)
        return objective({n: p.reshape(v.shape) for (n, v), p in zip(params.items(), parts, strict=True)})

    point = torch.cat([v.flatten() for v in tensors.values()])
    gradient, hessian = torch.func.grad(flat)(point).numpy(), torch.func.hessian(flat)(point).numpy()
    direction = {
        n: part.reshape(params[n].shape)
        for n, part in zip(params, np.split(gradient, np.cumsum(sizes)[:-1]), strict=True)
    }
    convert: Any = torch.tensor if backend == "torch" else (lambda value: value)
    found = module(data, backend).summary(
        {n: convert(v) for n, v in params.items()},
        convert(inputs),
        convert(targets),
        {n: convert(v) for n, v in direction.items()},
    )
    shift = 1e-3 * np.eye(len(gradient))  # cross-entropy leaves directions without curvature
    move = np.linalg.solve(np.asarray(found.H) + shift * np.outer(gradient, gradient), np.asarray(found.g))
    newton = np.linalg.solve(hessian + shift, gradient)
    np.testing.assert_allclose(gradient * move, newton, rtol=1e-6, atol=1e-9 * np.abs(newton).max())


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_scaling_the_groups_changes_nothing(backend: str) -> None:
    """GN3 App. E: directions α_s u_s give the same trajectory, twenty steps."""
    data = network(direction="gradient", period=1, positive=False)
    spec, made = build_spec(data), module(data, backend)
    summary = module(network() | {"target": {"backend": backend, "operators": ["summary"]}}, backend).summary
    scales = dict(zip(made.GROUPS, (3.0, -0.5, 0.2, 7.0, -2.0, 1.5), strict=True))
    run, plain = Run(made, start(spec)), start(spec)
    convert: Any = torch.tensor if backend == "torch" else (lambda value: value)
    averaged: Array | None = None
    for batch in batches(0, 20, 8):
        run.step(batch, None)
        arguments = [{n: convert(v) for n, v in plain.items()}, *(convert(part) for part in batch)]
        slope = summary(*arguments, arguments[0], order=1, gradient=True).gradient
        scaled = {n: np.asarray(slope[n]) * scales[n] for n in plain}
        found = summary(*arguments, {n: convert(v) for n, v in scaled.items()}, order=3)
        parts = [np.asarray(part) for part in (found.H, found.g, found.D3, 10.0)]
        rates = NUMPY.cubic_newton(*parts, "refuse")
        averaged = rates if averaged is None else 0.5 * averaged + 0.5 * rates
        by_name = dict(zip(found.groups, averaged, strict=True))
        plain = {n: v - 0.1 * by_name[n] * scaled[n] for n, v in plain.items()}
        for name, value in plain.items():
            np.testing.assert_allclose(run.params[name], value, rtol=0, atol=1e-8 * np.abs(value).max())


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_step_that_is_refused_names_the_group_and_changes_nothing(backend: str) -> None:
    """ReLU and squared error: D_s = 0 for one-tensor groups; with H̄ indefinite there is no minimum."""
    data = network(activation="relu", period=1) | {"loss": "squared_error"}
    spec = build_spec(data)
    rng = np.random.default_rng(0)
    for _ in range(50):
        batch = rng.normal(size=(4, 6)), 5.0 * rng.normal(size=(4, 3))
        params = {n: rng.normal(size=v.shape) for n, v in start(spec).items()}
        run = Run(module(data, backend), params)
        try:
            run.step(batch, None)
        except FloatingPointError as error:
            assert "group" in str(error)
            assert any(name in str(error) for name in GROUPS["canonical"])
            for name, value in params.items():
                np.testing.assert_array_equal(run.params[name], value)
            return
    pytest.fail("no step was refused")


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_not_a_number_is_refused(backend: str) -> None:
    """In the batch of the summary alone: the state keeps what it had."""
    data = network(period=1)
    spec = build_spec(data)
    run = Run(module(data, backend), start(spec))
    first, second = batches(0, 2, 8)
    run.step(first, None)
    before = {n: v.copy() for n, v in run.params.items()}
    kept = _state(run)
    broken = second[0].copy()
    broken[3, 2] = np.nan
    with pytest.raises(FloatingPointError, match="group"):
        run.step(second, (broken, second[1]))
    for name, value in before.items():
        np.testing.assert_array_equal(run.params[name], value)
    for name, value in _state(run).items():
        np.testing.assert_array_equal(value, kept[name], err_msg=name)
    run.step(second, None)


def _state(run: Run) -> dict[str, Array]:
    if not run.torch:
        return {n: np.array(v) for n, v in run.state.state_dict().items()}
    found: dict[str, Array] = {}
    for key, values in run.optimizer.state_dict()["state"].items():
        found |= {f"{key}.{n}": np.array(v) for n, v in values.items() if not isinstance(v, dict)}
    return found


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_the_whole_state_is_saved(backend: str) -> None:
    """A run that is stopped and resumed in the middle of a period goes on to the bit."""
    data = network(period=3)
    spec = build_spec(data)
    run, made = Run(module(data, backend), start(spec)), module(data, backend)
    steps = batches(0, 8, 8)
    for batch in steps[:4]:
        run.step(batch, None)
    other = Run(made, run.params)
    if run.torch:
        other.optimizer.load_state_dict(run.optimizer.state_dict())
    else:
        other.state.load_state_dict(run.state.state_dict())
    for batch in steps[4:]:
        run.step(batch, None)
        other.step(batch, None)
    for name, value in run.params.items():
        np.testing.assert_array_equal(other.params[name], value)


def test_epochs_take_curvature_batches_in_turn() -> None:
    """An epoch equals its steps, with a batch of the other order for each summary, and begins it anew."""
    data = network(period=2)
    spec, made = build_spec(data), module(data, "numba")
    inputs, targets = batches(2, 1, 60)[0]
    order, other = np.arange(40), np.arange(30, 60)[::-1].copy()
    params = start(spec)
    state = made.State(params)
    made.train_epoch(params, state, inputs, targets, order, 5, curvature_order=other, curvature_batch=12)
    run = Run(made, start(spec))
    places = [slice(0, 12), slice(12, 24), slice(0, 12), slice(12, 24)]
    for number in range(8):
        chosen = order[5 * number : 5 * number + 5]
        there = other[places[number // 2]]
        run.step((inputs[chosen], targets[chosen]), (inputs[there], targets[there]))
    for name, value in run.params.items():
        np.testing.assert_allclose(params[name], value, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("option", ["beta1", "beta2"])
def test_an_average_without_news_is_refused(option: str) -> None:
    """Its weight would be zero at the first step, and every step be refused."""
    with pytest.raises(MethodError, match=f"option '{option}' is 1") as caught:
        compile_spec(build_spec(network(direction="adam", **{option: 1.0})))
    assert "below 1.0" in str(caught.value.hint)


def test_the_discrete_partition_is_refused() -> None:
    with pytest.raises(MethodError, match="discrete"):
        compile_spec(build_spec(network("discrete")))


def test_rows_that_are_not_finite_are_told_apart() -> None:
    """One check for each group, with codes in their order."""
    made = module(network(period=1), "torch")
    rows = torch.tensor([[1.0, 2.0], [float("nan"), 1.0], [3.0, float("inf")], [0.0, 1.0]])
    checks = [(code, bool(holds)) for code, holds in made._rows_finite(7, rows)]
    assert checks == [(7, True), (8, False), (9, False), (10, True)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("direction", ["momentum", "gradient", "adam"])
def test_a_group_that_changes_nothing_does_not_move_the_others_astray(direction: str, dtype: str) -> None:
    """A bias before batch norm: its gradient is rounding error, and so is all that would bend it."""
    layers = [
        {"name": "a", "type": "dense", "units": 5},
        {"name": "n", "type": "batch_norm", "activation": "tanh"},
        {"name": "b", "type": "dense", "units": 3},
    ]
    data = {"sifrc": 1, "name": "still", "loss": "cross_entropy", "dtype": dtype, "network": {
        "input": {"size": 4}, "layers": layers}}  # fmt: skip
    method = {"method": {"name": "grouped_newton", "direction": direction}}
    module: Any = sifrc.compile(data | method)
    network = module.Network(seed=0)
    before = network.get_parameter("a.bias").detach().clone()
    optimizer = module.Optimizer(network)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=generator, dtype=before.dtype)
    found = [float(optimizer.step(x, torch.arange(30) % 3)) for _ in range(60)]
    assert found[-1] < 0.9 * found[0] and max(found) < 1.1 * found[0], found
    moved = float((network.get_parameter("a.bias").detach() - before).abs().max())
    assert moved <= (1e-3 if direction == "adam" else 1e-5)
