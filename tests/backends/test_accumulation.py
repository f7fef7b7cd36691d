"""Steps over several batches are those of all their samples, for every method, and nothing else changes."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import sifrc
from sifrc.derive.system import Equation, System
from sifrc.ir import Input, Role
from sifrc.ir.build import apply, einsum, inner, total
from sifrc.methods.base import LEARNING_RATE, Method, MethodOption, StepPlan, descend
from sifrc.methods.plan import MemorySpec
from sifrc.scalar import QUOTIENT

SIZES = (2, 5, 1, 4)
METHODS: dict[str, dict[str, Any]] = {
    "mk": {"name": "mk"},
    "exact": {"name": "esn", "variant": "exact"},
    "rank one": {"name": "esn"},
    "direct": {"name": "esn", "precision": "direct", "form": "sylvester", "period": 2},
    "means of a recursion": {"name": "ea_cg", "period": 2},
    "factors": {"name": "ea_cg", "kind": "fisher", "solver": "kfi", "decay": 0.5},
    "draws": {"name": "ea_cg", "kind": "sampled_fisher", "seed": 3},
    "grouped": {"name": "grouped_newton", "period": 2},
    "adam": {"name": "grouped_newton", "direction": "adam", "period": 1},
}
LOSSES: dict[str, Any] = {
    "weighted": {"function": "cross_entropy", "class_weights": [1, 2, 0.5]},
    "left out": {"function": "cross_entropy", "ignore_index": 2},
    "sum": {"function": "cross_entropy", "reduction": "sum"},
}


@cache
def module_of(
    method: str, loss: str = "", dtype: str = "float64", dropout: bool = False, units: int = 5
) -> ModuleType:
    """A network 4 → 5 → 5 → 3."""
    layers: list[dict[str, Any]] = [{"name": "fa", "type": "dense", "units": units, "activation": "tanh"}]
    layers += [{"name": "drop", "type": "dropout", "probability": 0.4}] if dropout else []
    layers += [
        {"name": "fb", "type": "dense", "units": 5, "activation": "softplus"},
        {"name": "fc", "type": "dense", "units": 3},
    ]
    found = METHODS.get(method, {"name": method})
    spec = {
        "sifrc": 1,
        "name": "accumulated",
        "dtype": dtype,
        "loss": LOSSES.get(loss, {"function": "cross_entropy"}),
        "network": {"input": {"name": "image", "size": 4}, "layers": layers},
        "regularization": {"state": 0.1 if found["name"] in ("mk", "esn") else "none"},
        "method": found,
    }
    return sifrc.compile(sifrc.build_spec(spec), "torch")


def batch_of(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    targets = torch.randint(3, (12,), generator=generator)
    targets[2:7] = 2  # all of the second batch
    return torch.randn(12, 4, generator=generator, dtype=torch.float64).to(dtype), targets


def in_parts(inputs: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(inputs.split(SIZES), targets.split(SIZES), strict=True))


def values_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Parameters and state."""
    entries = [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
    return [value.detach().double().clone() for value in (*network.parameters(), *entries)]


def farthest(one: list[Tensor], other: list[Tensor]) -> float:
    pairs = zip(one, other, strict=True)
    return max(float((a - b).abs().max() / (1.0 + b.abs().max())) for a, b in pairs)


@pytest.mark.parametrize(
    ("method", "loss", "dropout"),
    [
        *((method, "", False) for method in METHODS),
        ("grouped", "weighted", False),
        ("grouped", "left out", False),
        ("factors", "sum", False),
        ("grouped", "", True),
    ],
)
def test_the_step_is_that_of_all_samples(method: str, loss: str, dropout: bool) -> None:
    """As a list and as a block, for three steps, state and objective with it."""
    module = module_of(method, loss, dropout=dropout)
    networks = [module.Network(1) for _ in range(3)]
    whole, listed, blocked = (module.Optimizer(network) for network in networks)
    inputs, targets = batch_of()
    start = values_of(networks[0], whole)
    for _ in range(3):
        objective = whole.step(inputs, targets)
        torch.testing.assert_close(listed.step(in_parts(inputs, targets)), objective)
        with blocked.accumulate() as block:
            for part in in_parts(inputs, targets):
                blocked.step(*part)
        torch.testing.assert_close(block.objective, objective)
        assert block.samples == 12 and not block.batches
        expected = values_of(networks[0], whole)
        for network, optimizer in zip(networks[1:], (listed, blocked), strict=True):
            assert farthest(values_of(network, optimizer), expected) < 1e-12
        inputs, targets = inputs.flip(0), targets.flip(0)
    assert farthest(start, expected) > 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_dtypes(dtype: str) -> None:
    module, kind = module_of("grouped", dtype=dtype), getattr(torch, dtype)
    one, other = module.Network(1), module.Network(1)
    inputs, targets = batch_of(kind)
    module.Optimizer(one).step(inputs, targets)
    module.Optimizer(other).step(in_parts(inputs, targets))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_periodic_part_on_a_batch_of_its_own() -> None:
    module = module_of("adam")
    one, other = module.Network(1), module.Network(1)
    first, second = module.Optimizer(one), module.Optimizer(other)
    inputs, targets = batch_of()
    own = inputs[:3] + 1.0, targets[:3]
    for _ in range(2):
        first.step(inputs, targets, curvature=own)
        second.step(in_parts(inputs, targets), curvature=own)
    assert farthest(values_of(other, second), values_of(one, first)) < 1e-12


def test_functions_give_batches_and_objectives_are_of_their_own() -> None:
    module = module_of("grouped", "weighted")
    network = module.Network(1)
    optimizer = module.Optimizer(network)
    parameters = {name: value.detach().clone() for name, value in network.named_parameters()}
    parts = in_parts(*batch_of())
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1, 2, 0.5], dtype=torch.float64))
    with optimizer.accumulate():
        found = [optimizer.step(lambda part=part: part) for part in parts]
    for objective, (inputs, targets) in zip(found, parts, strict=True):
        torch.testing.assert_close(objective, criterion(module.predict(parameters, inputs), targets))


@pytest.mark.parametrize("method", ["rank one", "grouped"])
def test_an_exception_drops_what_was_accumulated(method: str) -> None:
    module = module_of(method)
    network = module.Network(1)
    optimizer = module.Optimizer(network)
    inputs, targets = batch_of()
    optimizer.step(inputs, targets)
    before = values_of(network, optimizer)
    with pytest.raises(KeyError), optimizer.accumulate():
        optimizer.step(inputs, targets)
        assert farthest(values_of(network, optimizer), before) == 0.0
        raise KeyError
    with pytest.raises(FloatingPointError, match="nothing was changed"):
        optimizer.step([(inputs, targets), (inputs * float("inf"), targets)])
    with pytest.raises(TypeError, match="batch 2 of the list"):
        optimizer.step([(inputs, targets), inputs])
    with pytest.raises(ValueError, match="at least one batch"):
        optimizer.step([])
    with optimizer.accumulate():
        pass
    assert farthest(values_of(network, optimizer), before) == 0.0
    twin = module.Network(1)
    other = module.Optimizer(twin)
    for _ in range(2):
        other.step(inputs, targets)
    optimizer.step(inputs, targets)
    assert farthest(values_of(network, optimizer), values_of(twin, other)) == 0.0


def test_a_batch_that_is_refused_does_not_count_where_the_block_goes_on() -> None:
    module = module_of("rank one")
    one, other = module.Network(1), module.Network(1)
    inputs, targets = batch_of()
    first, second = module.Optimizer(one), module.Optimizer(other)
    first.step(inputs, targets)
    with second.accumulate():
        for part in (*in_parts(inputs, targets), (inputs * float("nan"), targets)):
            try:
                second.step(*part)
            except FloatingPointError:
                continue
    assert farthest(values_of(other, second), values_of(one, first)) < 1e-12


def test_batches_may_be_overwritten_in_a_block() -> None:
    """As a loader does that uses its memory again."""
    module = module_of("adam")
    one, other = module.Network(1), module.Network(1)
    inputs, targets = batch_of()
    first, second = module.Optimizer(one), module.Optimizer(other)
    first.step(inputs, targets)
    memory, labels = torch.empty(6, 4, dtype=torch.float64), torch.empty(6, dtype=torch.int64)
    with second.accumulate():
        for half in (slice(0, 6), slice(6, 12)):
            second.step(memory.copy_(inputs[half]), labels.copy_(targets[half]))
    assert farthest(values_of(other, second), values_of(one, first)) < 1e-12


def test_blocks_within_blocks_and_parameters_that_change() -> None:
    module = module_of("rank one")
    network = module.Network(1)
    optimizer = module.Optimizer(network)
    batch = batch_of()
    with pytest.raises(RuntimeError, match="within each other"), optimizer.accumulate():
        optimizer.step([batch])
    with pytest.raises(RuntimeError, match="changed within the block"), optimizer.accumulate():
        optimizer.step(*batch)
        network.load_state_dict(network.state_dict())
    assert bool(optimizer.step([batch, batch]).isfinite())


def test_frozen_parameters_stay() -> None:
    module = module_of("rank one")
    one, other = module.Network(1), module.Network(1)
    for network in (one, other):
        network.get_parameter("fb.weight").requires_grad_(False)
    first, second = module.Optimizer(one), module.Optimizer(other)
    inputs, targets = batch_of()
    first.step(inputs, targets)
    second.step(in_parts(inputs, targets))
    assert farthest(values_of(other, second), values_of(one, first)) < 1e-12
    assert torch.equal(other.get_parameter("fb.weight"), module.Network(1).get_parameter("fb.weight"))


class _Largest(TorchDispatchMode):
    """Entries of the largest tensor that is made."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor):
            self.entries = max(self.entries, found.numel())
        return found


@pytest.mark.parametrize("method", ["rank one", "factors", "grouped"])
def test_no_array_is_of_all_samples(method: str) -> None:
    module = module_of(method, units=64)
    inputs = torch.randn(1000, 4, dtype=torch.float64)
    targets = torch.arange(1000) % 3
    entries = []
    for batches in ([(inputs, targets)], list(zip(inputs.split(50), targets.split(50), strict=True))):
        optimizer = module.Optimizer(module.Network(1))
        with _Largest() as watch:
            optimizer.step(batches)
        entries.append(watch.entries)
    assert entries[0] >= 64_000 and entries[1] <= entries[0] // 8


def test_steps_that_cannot_be_taken_in_parts() -> None:
    """Samples act on each other in batch norm; a recursion takes one sample after the other."""
    layers = [
        {"name": "fa", "type": "dense", "units": 5},
        {"name": "norm", "type": "batch_norm"},
        {"name": "fb", "type": "dense", "units": 3},
    ]
    network = {"input": {"name": "image", "size": 4}, "layers": layers}
    spec = {"sifrc": 1, "name": "n", "network": network, "loss": "cross_entropy", "dtype": "float64"}
    module = sifrc.compile(sifrc.build_spec({**spec, "method": {"name": "grouped_newton"}}), "torch")
    optimizer = module.Optimizer(module.Network())
    batch = batch_of()
    for use in (optimizer.accumulate, lambda: optimizer.step([batch, batch])):
        with pytest.raises(ValueError, match="batch norm while training"):
            use()
    assert bool(optimizer.step(*batch).isfinite())
    chain = {"input": {"name": "image", "size": 4}, "layers": [layers[0], layers[2]]}
    method = {"name": "esn", "precision": "recursive"}
    spec |= {"network": chain, "regularization": {"state": 0.1}, "method": method}
    recursive = sifrc.compile(sifrc.build_spec(spec), "torch")
    with pytest.raises(ValueError, match="one sample"):
        recursive.Optimizer(recursive.Network()).accumulate()


class Normalised(Method):
    """V ← V/2 + gradient, θ ← θ − lr·V/‖V‖²: not linear in a mean that the same system makes."""

    name = "normalised"
    title = "Normalised heavy ball"
    paper = "none"
    options = (MethodOption("learning_rate", 0.1, "step size", lower=0.0, hyperparameter=True),)
    coupled = False

    def step(self, derived: Any, chosen: Any) -> StepPlan:
        first = derived.first
        equations, directions, memory = [], {}, {}
        for layer in derived.model.parameters:
            for family, symbol in zip(("VW", "Vβ"), layer.symbols, strict=True):
                slope = first.short(first.gradients[symbol])
                if self.coupled:
                    own = Input("a" + family, layer.index, symbol.axes, Role.ADJOINT)
                    equations.append(Equation(own, slope, layer.index, "none"))
                    mean = Input("m" + family, layer.index, symbol.axes, Role.DIRECTION)
                    equations.append(Equation(mean, own, layer.index, "none"))
                    like = Input("l" + family, layer.index, (), Role.ADJOINT)
                    equations.append(Equation(like, inner(own, mean), layer.index, "none"))
                    slope = einsum([(like, ()), (own, symbol.axes)], symbol.axes)
                kept = Input(family, layer.index, symbol.axes, Role.DIRECTION)
                memory[family] = MemorySpec(family, "velocity")
                moved = total([kept, slope], symbol.axes)
                equations.append(Equation(kept, moved, layer.index, "none"))
                size = einsum([(inner(kept, kept), ())], symbol.axes)
                directions[symbol] = apply(QUOTIENT, kept, size)
        assert LEARNING_RATE.name == "lr"
        update = System("update", "Step", (*equations, *descend(derived, directions)))
        return StepPlan(((update, ("forward", "adjoint")),), tuple(memory.values()), single=False)


class Coupled(Normalised):
    """The same along the slopes of samples weighted by how they fit their mean."""

    name = "coupled"
    coupled = True


def test_a_method_from_outside_is_taken_apart_where_it_has_to_be() -> None:
    """What is no weighted mean is made of the means; what depends on its own means within is refused."""
    module = module_of(f"{__name__}:Normalised")
    one, other = module.Network(1), module.Network(1)
    first, second = module.Optimizer(one), module.Optimizer(other)
    inputs, targets = batch_of()
    for _ in range(2):
        first.step(inputs, targets)
        second.step(in_parts(inputs, targets))
    assert farthest(values_of(other, second), values_of(one, first)) < 1e-12
    coupled = module_of(f"{__name__}:Coupled")
    optimizer = coupled.Optimizer(coupled.Network(1))
    assert bool(optimizer.step(inputs, targets).isfinite())
    with pytest.raises(ValueError, match="depend on means"):
        optimizer.step(in_parts(inputs, targets))
