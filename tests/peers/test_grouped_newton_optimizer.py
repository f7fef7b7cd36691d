"""The whole optimizer against the authors' ``NewtonSummary`` (GN3 Algorithm 4), twenty steps in float64.

In the first test both are in the same state before every step, so that each step is compared by itself.
What differs between the two by intent is listed in docs/grouped_newton.md.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest
import torch
from cubic_problems import Problem, make, model_value
from grouped_peer import PARTITIONS, SIZES, TENSORS, Network, document, needs_peer, peer_module
from torch import nn

from sifrc.cache import entry_name, module_from_cache
from sifrc.compiler import Request, compile_spec
from sifrc.ir.arithmetic import NUMPY
from sifrc.spec import build_spec

pytestmark = needs_peer

Array = npt.NDArray[np.float64]
Batch = tuple[torch.Tensor, torch.Tensor]
STEPS, BATCH, CURVATURE_BATCH, FALL = 20, 8, 20, 7
TOLERANCE = 1e-8

DEFAULTS: Mapping[str, Any] = {
    "learning_rate": 0.1,
    "momentum": 0.9,
    "rate_momentum": 0.5,
    "internal_damping": 10.0,
    "period": 1,
    "positive": True,
    "direction": "momentum",
    "regularization": "cubic",
    "interactions": "full",
    "ridge": 1e-3,
}
"""Options of ours; that of ``period`` here is 1."""
VARIANTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "canonical": ("canonical", {}),
    "canonical, every fourth step": ("canonical", {"period": 4}),
    "canonical, no momentum": ("canonical", {"direction": "gradient", "rate_momentum": 0.0}),
    "canonical, strong cubic term": ("canonical", {"internal_damping": 300.0, "period": 3}),
    "canonical, signed": ("canonical", {"positive": False, "period": 2}),
    "canonical, Adam": ("canonical", {"direction": "adam", "period": 2}),
    "canonical, diagonal": ("canonical", {"interactions": "diagonal"}),
    "weights-biases": ("weights-biases", {}),
    "weights-biases, every third step": ("weights-biases", {"period": 3}),
    "weights-biases, no momentum": ("weights-biases", {"direction": "gradient", "period": 2}),
    "weights-biases, ridge": ("weights-biases", {"regularization": "ridge", "ridge": 0.1}),
    "trivial": ("trivial", {}),
    "trivial, every fifth step": ("trivial", {"period": 5, "momentum": 0.5}),
    "trivial, no regularisation": ("trivial", {"regularization": "none", "learning_rate": 0.02}),
}


class Theirs:
    """``NewtonSummary`` on the network, driven as in their training loop.

    Args:
        network: to be trained.
        partition: of ``PARTITIONS``.
        options: those of our method.
        curvature: batches for the summaries, in their order.
    """

    def __init__(
        self, network: Network, partition: str, options: Mapping[str, Any], curvature: list[Batch]
    ) -> None:
        self.network = network
        self.params = dict(network.named_parameters())
        self.order = [name for names in PARTITIONS[partition] for name in names]
        o = self.o = options
        # Directions are matched with parameters by position, so the updater has the order of the groups.
        ordered = [self.params[name] for name in self.order]
        if o["direction"] == "adam":
            self.updater = peer_module("optimizers").AdamUpdate(ordered, lr=1.0)
        else:
            momentum = o["momentum"] if o["direction"] == "momentum" else 0.0
            self.updater = peer_module("optimizers").SGDUpdate(
                ordered, lr=1.0, momentum=momentum, dampening=momentum
            )
        self.optimizer = peer_module("newton_summary").NewtonSummary(
            [{"params": [self.params[name] for name in names]} for names in PARTITIONS[partition]],
            lambda x, y: nn.functional.cross_entropy(network(x), y),
            curvature,
            self.updater,
            loader_pre_hook=lambda x, y: (x, y),
            damping=o["learning_rate"],
            period_hg=o["period"],
            mom_lrs=o["rate_momentum"],
            ridge=o["ridge"],
            dct_nesterov={"use": o["regularization"] == "cubic", "damping_int": o["internal_damping"]},
            noregul=o["regularization"] == "none",
            remove_negative=o["positive"],
            diagonal=o["interactions"] == "diagonal",
        )

    @property
    def rates(self) -> Array:
        """Averaged rates."""
        return np.asarray(self.optimizer.curr_lrs)

    def step(self, batch: Batch) -> tuple[float, Array | None]:
        """The objective before the step, and the rates found with the cubic term, if they were."""
        logs = self.optimizer.logs
        before = len(logs["lrs"])
        self.optimizer.zero_grad()
        objective = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        objective.backward()
        self.optimizer.step()
        if len(logs["lrs"]) == before or self.o["regularization"] != "cubic":
            return float(objective.detach()), None
        assert logs["nesterov.found"][-1], "their search for the rates has failed: nothing to compare with"
        return float(objective.detach()), np.asarray(logs["nesterov.lrs"][-1])

    def memory(self, key: str) -> dict[str, Array]:
        """What the updater remembers, by the names of the tensors; empty if nothing."""
        states = {name: self.updater.state[self.params[name]] for name in TENSORS}
        return {name: state[key].detach().numpy() for name, state in states.items() if key in state}


class Ours:
    """A generated module on a network or arrays of its own, which begin as theirs."""

    def __init__(self, made: ModuleType, theirs: Theirs) -> None:
        self.made, self.torch, self.o = made, hasattr(made, "torch"), theirs.o
        self.network = Network()
        self.arrays = {n: v.detach().numpy().copy() for n, v in theirs.params.items()}
        self.optimizer = made.Optimizer(self.network) if self.torch else made.State(self.arrays)
        self._take_parameters(theirs)

    @property
    def params(self) -> Mapping[str, Array]:
        if not self.torch:
            return self.arrays
        return {n: v.detach().numpy() for n, v in self.network.named_parameters()}

    def rates(self, name: str) -> Array:
        """``rates``, the averaged ones, or ``rates_found``."""
        if self.torch:
            return np.asarray(self.optimizer.state[next(self.network.parameters())][name])
        return np.asarray(getattr(self.optimizer.memory, name))

    def step(self, batch: Batch, curvature: Batch) -> float:
        """The objective before the step."""
        if self.torch:
            return float(self.optimizer.step(*batch, curvature=curvature))
        first, second = ([part.numpy() for part in pair] for pair in (batch, curvature))
        return float(self.made.step(self.arrays, self.optimizer, *first, curvature=second))

    def lower(self, factor: float) -> None:
        """A smaller learning rate."""
        if self.torch:
            self.optimizer.param_groups[0]["lr"] *= factor
        else:
            self.optimizer.lr *= factor

    def adopt(self, theirs: Theirs) -> None:
        """Their parameters, averages, learning rate and count of steps; not before the first step."""
        self._take_parameters(theirs)
        count, period = theirs.optimizer.step_counter, self.o["period"]
        shared: dict[str, Any] = {"begun": 1.0, "rates": theirs.rates, "rates_average": theirs.rates}
        tensors: dict[str, Mapping[str, Array]] = {}
        if self.o["direction"] == "momentum":
            tensors["velocity"] = theirs.memory("momentum_buffer")
        elif self.o["direction"] == "adam":
            tensors["first_moment"] = theirs.memory("exp_avg")
            tensors["second_moment"] = theirs.memory("exp_avg_sq")
            # The weights of the moments, which they take from the count of steps.
            shared |= {"first_weight": 1 - 0.9**count, "second_weight": 1 - 0.999**count}
        numbers = {"lr": theirs.optimizer.param_groups[0]["damping"], "age": count % period or period}
        state = self.optimizer.state_dict()
        if self.torch:
            state["param_groups"][0]["lr"] = numbers["lr"]
            state["state"][0] |= {"age": torch.tensor(numbers["age"]), "steps": torch.tensor(count)}
        else:
            state |= numbers
            state["steps"] = count
        targets = state["state"][0] if self.torch else state
        for name, value in shared.items():
            targets[name][...] = torch.as_tensor(value, dtype=torch.float64) if self.torch else value
        for family, arrays in tensors.items():
            assert set(arrays) == set(TENSORS)
            for name, value in arrays.items():
                k, kind = int(name[2]), "weights" if name.endswith("weight") else "biases"
                if self.torch:
                    state["state"][2 * (k - 1)][f"{family}_{kind}"] = torch.tensor(value)
                else:
                    state[f"{family}_{kind}.{k}"] = value
        self.optimizer.load_state_dict(state)

    def _take_parameters(self, theirs: Theirs) -> None:
        self.network.load_state_dict(theirs.network.state_dict())
        for name, value in theirs.params.items():
            self.arrays[name][...] = value.detach().numpy()


@functools.cache
def _module(text: str, backend: str) -> ModuleType:
    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = True
    try:
        found = compile_spec(build_spec(json.loads(text)), Request(backend=backend)).text
        return module_from_cache(entry_name("peer", {"text": found}), lambda: found, None)
    finally:
        numba.config.DISABLE_JIT = before


def both(variant: str, backend: str) -> tuple[Ours, Theirs, list[Batch], list[Batch]]:
    """The two sides with equal parameters, batches of the steps, and batches of the summaries."""
    partition, given = VARIANTS[variant]
    options = {**DEFAULTS, **given}
    generator = torch.Generator().manual_seed(1)

    def batches(count: int, size: int) -> list[Batch]:
        return [
            (
                torch.randn(size, SIZES[0], dtype=torch.float64, generator=generator),
                torch.randint(SIZES[-1], (size,), generator=generator),
            )
            for _ in range(count)
        ]

    steps, curvature = batches(STEPS, BATCH), batches(STEPS, CURVATURE_BATCH)
    torch.manual_seed(0)
    theirs = Theirs(Network(), partition, options, curvature)
    method = {"name": "grouped_newton", **options}
    # Numba's functions are plain Python here.
    made = _module(json.dumps(document(partition, method=method)), backend)
    return Ours(made, theirs), theirs, steps, curvature


def near(found: Array, expected: Array, *scales: Array | None) -> None:
    """To 1e-8 of the largest entry of what is expected, and of what it was computed from."""
    size = max(float(np.abs(value).max()) for value in (expected, *scales) if value is not None)
    error = float(np.abs(found - expected).max())
    assert error <= TOLERANCE * size, (error / size, found, expected)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_twenty_steps_from_identical_states(variant: str, backend: str) -> None:
    """η as found, η averaged, objective and parameters after each step, to 1e-8; λ falls on the way."""
    ours, theirs, batches, curvature = both(variant, backend)
    period, keep, positive = (ours.o[key] for key in ("period", "rate_momentum", "positive"))
    for number, batch in enumerate(batches):
        if number == FALL:
            theirs.optimizer.damping_mul(0.5)
        if number:
            ours.adopt(theirs)
        before = theirs.rates if number else None
        objective, found = theirs.step(batch)
        value = ours.step(batch, curvature[number // period])
        assert abs(value - objective) <= TOLERANCE * objective
        if number % period == 0:
            own = ours.rates("rates_found")
            if found is not None:
                near(own, found)
            # What went into their average: the positive part of what they found.
            added = theirs.rates if before is None else (theirs.rates - keep * before) / (1 - keep)
            near(np.maximum(own, 0.0) if positive else own, added, before)
        near(ours.rates("rates"), theirs.rates)
        for name, expected in theirs.params.items():
            near(ours.params[name], expected.detach().numpy())


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_twenty_steps_on_their_own(variant: str, backend: str) -> None:
    """The same start, then no exchange: what they differ by is carried on and may grow."""
    ours, theirs, batches, curvature = both(variant, backend)
    for number, batch in enumerate(batches):
        if number == FALL:
            theirs.optimizer.damping_mul(0.5)
            ours.lower(0.5)
        theirs.step(batch)
        ours.step(batch, curvature[number // ours.o["period"]])
        near(ours.rates("rates"), theirs.rates)
        for name, expected in theirs.params.items():
            near(ours.params[name], expected.detach().numpy())


def rates_of_the_authors(problem: Problem) -> Array | None:
    """What their search finds; None where it gives up."""
    matrix, rhs, third = (torch.tensor(part) for part in (problem.matrix, problem.rhs, problem.third))
    found, logs = peer_module("nesterov").nesterov_lrs(
        matrix, rhs, third.abs().pow(1 / 3), damping_int=problem.strength
    )
    return found.numpy() if logs["found"] else None


@pytest.mark.parametrize(
    ("kind", "size"), [("definite", 1), ("definite", 6), ("indefinite", 2), ("indefinite", 6)]
)
def test_rates_of_cubic_models(kind: str, size: int) -> None:
    """GN3(10) with 50 random operands, groups of different scale.

    One group with negative curvature is left out: K + r vanishes exactly at r = |K|, where their search then
    begins a thousandth later, and gives up on roots in between.
    """
    for seed in range(50):
        problem = make(kind, size, seed, spread=1.0)
        theirs = rates_of_the_authors(problem)
        assert theirs is not None
        near(NUMPY.cubic_newton(*problem.operands, "refuse"), theirs)


@pytest.mark.parametrize("kind", ["near", "hard"])
def test_no_rates_of_theirs_are_lower_close_to_the_hard_case(kind: str) -> None:
    """Their search gives up there, or finds points where the model is as low or higher."""
    compared = 0
    for seed in range(200):
        problem = make(kind, 2 + seed % 5, seed)
        theirs = rates_of_the_authors(problem)
        if theirs is None:
            continue
        compared += 1
        lowest = model_value(problem, NUMPY.cubic_newton(*problem.operands, "refuse"))
        assert lowest <= model_value(problem, theirs) + 1e-13 * abs(lowest)
    assert compared
