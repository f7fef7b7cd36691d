"""``add_param_group``: the next step is that of an optimizer which had all the groups from the start."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import sifrc

T = torch.arange(24) % 3
METHODS: dict[str, dict[str, Any]] = {
    "ea_cg": {"momentum": 0.0, "period": 2},
    "ea_cg, factored": {"method": "ea_cg", "momentum": 0.0, "solver": "kfi", "decay": 0.7},
    "grouped_newton": {"period": 3, "positive": False},
    "grouped_newton, adam": {"method": "grouped_newton", "direction": "adam", "positive": False},
    "grouped_newton, cubic": {"method": "grouped_newton", "regularization": "cubic", "internal_damping": 0.1},
}
"""Methods of networks with frozen layers, with what they keep from one step to the next."""


def model_of(frozen: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    if frozen:
        model[:3].requires_grad_(False)
    return model


def batch(seed: int = 1) -> torch.Tensor:
    return torch.randn(24, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made(model: nn.Module, case: str = "ea_cg", **more: Any) -> Any:
    options = {"method": case, "lr": 0.1, **METHODS.get(case, {}), **more}
    return sifrc.optimizer(model, "cross_entropy", example=(batch(), T), **options)


def trained(case: str = "ea_cg", steps: int = 2, **more: Any) -> tuple[nn.Sequential, Any]:
    """A model whose last layer was trained for some steps."""
    model = model_of()
    optimizer = made(model, case, **more)
    for seed in range(steps):
        optimizer.step(batch(seed), T)
    return model, optimizer


def unfrozen(model: nn.Sequential, optimizer: Any, layer: int, **numbers: Any) -> None:
    model[layer].requires_grad_(True)
    optimizer.add_param_group({"params": model[layer].parameters(), **numbers})


def snapshot(model: nn.Module, optimizer: Any) -> Any:
    """All that a refusal must leave as it is."""
    state = {
        id(key): {name: value.clone() for name, value in own.items()} for key, own in optimizer.state.items()
    }
    groups = [{**group, "params": [id(each) for each in group["params"]]} for group in optimizer.param_groups]
    values = [value.detach().clone() for value in model.parameters()]
    return type(optimizer), state, groups, dict(optimizer.defaults), values


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def equal(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("case", METHODS)
def test_the_next_steps_are_those_of_an_optimizer_with_all_groups(case: str) -> None:
    """Layer after layer is unfrozen; nothing that would differ is carried in these methods."""
    model, optimizer = trained(case)
    groups = optimizer.param_groups
    for layer, rate in ((2, 0.03), (0, 0.01)):
        unfrozen(model, optimizer, layer, lr=rate)
        other = copy.deepcopy(model)
        rates = {4: 0.1, 2: 0.03, 0: 0.01}
        wanted = made(
            other,
            case,
            groups=[
                {"params": other[k].parameters(), "lr": rates[k]}
                for k in rates
                if other[k].weight.requires_grad
            ],
        )
        before = copy.deepcopy(model[layer].weight)
        for seed in (5, 6, 7):
            assert torch.equal(optimizer.step(batch(seed), T), wanted.step(batch(seed), T))
        assert equal(model, other)
        assert not torch.equal(before, model[layer].weight)
    assert optimizer.param_groups is groups
    assert [group["lr"] for group in groups] == [0.1, 0.03, 0.01]
    assert int(optimizer._count("steps")) == 8


def test_momentum_of_a_parameter_goes_on() -> None:
    """V ← momentum·V + D: the old V, and D of the larger network by a step without momentum."""
    model, optimizer = trained(momentum=0.5, cg_iterations=60, cg_tolerance=1e-14)
    own = model[4].weight
    velocity = optimizer.state[own]["velocity_weights"].clone()
    assert float(velocity.abs().max()) > 0
    unfrozen(model, optimizer, 0, lr=0.2)
    start, other = copy.deepcopy(model), copy.deepcopy(model)
    made(other, cg_iterations=60, cg_tolerance=1e-14, lr=1.0).step(batch(7), T)
    optimizer.step(batch(7), T)
    for layer, rate, kept in ((4, 0.1, velocity), (0, 0.2, torch.zeros(6, 4, dtype=torch.float64))):
        direction = start[layer].weight - other[layer].weight
        expected = start[layer].weight - rate * (0.5 * kept + direction)
        torch.testing.assert_close(model[layer].weight, expected, rtol=1e-10, atol=1e-12)


def test_numbers_of_a_new_group() -> None:
    """A rate by default is that of the start; what is one for all is what the others have by now."""
    model, optimizer = trained()
    optimizer.param_groups[0].update(lr=0.7, alpha=0.3)
    unfrozen(model, optimizer, 2)
    unfrozen(model, optimizer, 0, weight_decay=0.5)
    first, second, third = optimizer.param_groups
    assert (first["lr"], second["lr"], third["lr"]) == (0.7, 0.1, 0.1)
    assert (first["alpha"], second["alpha"], third["alpha"]) == (0.3, 0.3, 0.3)
    assert (first["weight_decay"], second["weight_decay"], third["weight_decay"]) == (0.0, 0.0, 0.5)
    other = copy.deepcopy(model)
    wanted = made(other, alpha=0.3)
    start = copy.deepcopy(model[0].weight)
    optimizer.step(batch(), T)
    wanted.step(batch(), T)
    expected = other[0].weight - 0.1 * 0.5 * start
    torch.testing.assert_close(model[0].weight, expected, rtol=1e-12, atol=1e-14)


def test_layers_that_groups_had_left_out() -> None:
    """What is in no group at the start is added by its name, and its decay with it."""
    model = model_of(frozen=False)
    optimizer = made(model, groups=[{"params": ["4.*"], "lr": 0.1}])
    optimizer.add_param_group({"params": "2.*", "lr": 0.02})
    other = model_of(frozen=False)
    wanted = made(other, groups=[{"params": ["4.*"], "lr": 0.1}, {"params": ["2.*"], "lr": 0.02}])
    assert type(optimizer) is type(wanted)
    assert torch.equal(optimizer.step(batch(), T), wanted.step(batch(), T))
    assert equal(model, other)


def test_states_copies_and_pickles() -> None:
    """Of the optimizer as it is then; the state goes into one that had the groups from the start."""
    model, optimizer = trained(momentum=0.5)
    unfrozen(model, optimizer, 2, lr=0.02)
    optimizer.step(batch(3), T)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = copy.deepcopy(model)
    groups = [{"params": ["4.*"]}, {"params": ["2.*"], "lr": 0.5}]
    resumed = made(other, momentum=0.5, groups=groups)
    resumed.load_state_dict(state)
    copies = [
        (other, resumed),
        copy.deepcopy((model, optimizer)),
        pickle.loads(pickle.dumps((model, optimizer))),
    ]
    for seed in (4, 5):
        wanted = optimizer.step(batch(seed), T)
        assert all(torch.equal(own.step(batch(seed), T), wanted) for _, own in copies)
    assert all(equal(model, own) for own, _ in copies)
    optimizer.load_state_dict(state)
    small = made(model_of())
    with pytest.raises(ValueError, match="other groups"):
        small.load_state_dict(state)
    with pytest.raises(ValueError, match="not a copy"):
        copies[1][1].add_param_group({"params": copies[1][0][0].parameters()})


@pytest.mark.parametrize("name", ["StepLR", "LambdaLR"])
def test_schedulers_go_on_as_with_torch(name: str) -> None:
    """One that has a rate of the start for each group refuses one more, with torch's own optimizers too."""
    found = []
    for kind in ("ours", "torch"):
        model = model_of()
        optimizer: Any = made(model) if kind == "ours" else torch.optim.SGD(model[4].parameters(), lr=0.1)
        scheduler: Any = (
            lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
            if name == "StepLR"
            else lr_scheduler.LambdaLR(optimizer, lambda n: 0.5**n)
        )

        def step(optimizer: Any = optimizer, kind: str = kind) -> None:
            optimizer.step(batch(), T) if kind == "ours" else optimizer.step()

        step()
        scheduler.step()
        unfrozen(model, optimizer, 2, lr=0.04)
        step()
        try:
            scheduler.step()
        except ValueError as error:
            found.append(str(error))
        else:
            found.append([group["lr"] for group in optimizer.param_groups])
    assert found[0] == found[1]


def test_habits_of_loops_go_on() -> None:
    """Hooks of the caller, the batch that was seen last, and a step that a scheduler has wrapped."""
    model = model_of()
    criterion, x, calls = nn.CrossEntropyLoss(), batch(), []
    optimizer: Any = sifrc.optimizer(model, criterion, method="ea_cg", example=(x, T), momentum=0.0)
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    scheduler = lr_scheduler.StepLR(optimizer, 100)
    criterion(model(batch(3)), T)
    unfrozen(model, optimizer, 2)
    other = copy.deepcopy(model)
    wanted = made(other, lr=optimizer.param_groups[0]["lr"], period=1)
    assert torch.equal(optimizer.step(), wanted.step(batch(3), T))
    scheduler.step()
    assert equal(model, other)
    assert calls == [1]


def test_a_model_that_has_moved_to_another_dtype() -> None:
    model, optimizer = trained()
    model.float()
    unfrozen(model, optimizer, 2)
    before = copy.deepcopy(model[2].weight)
    optimizer.step(batch().float(), T)
    assert model[2].weight.dtype == torch.float32
    assert not torch.equal(before, model[2].weight)


def thawed(model: nn.Sequential, *layers: int) -> nn.Sequential:
    for layer in layers:
        model[layer].requires_grad_(True)
    return model


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "no dict": (lambda m: list(thawed(m, 2)[2].parameters()), sifrc.MethodError, "a group is a dict with"),
    "no params": (lambda m: {"lr": 0.1}, sifrc.MethodError, "a group is a dict with params"),
    "empty": (lambda m: {"params": []}, sifrc.MethodError, "no group has a parameter"),
    "foreign": (
        lambda m: {"params": [nn.Parameter(torch.zeros(2))]},
        sifrc.MethodError,
        "is no parameter of the model",
    ),
    "unknown name": (lambda m: {"params": "head.*"}, sifrc.MethodError, r"'head\.\*' is no parameter"),
    "frozen": (
        lambda m: {"params": m[2].parameters()},
        sifrc.MethodError,
        r"'2\.weight' is in a group and froz",
    ),
    "there": (
        lambda m: {"params": m[4].bias},
        sifrc.MethodError,
        r"'4\.bias' is in a group of this optimizer",
    ),
    "in part": (
        lambda m: {"params": [thawed(m, 2)[2].weight]},
        sifrc.ModuleImportError,
        "some tensors of layer_2 are trained and some are frozen",
    ),
    "no such number": (
        lambda m: {"params": thawed(m, 2)[2].parameters(), "nesterov_factor": 0.1},
        ValueError,
        "has no nesterov_factor",
    ),
    "out of range": (
        lambda m: {"params": thawed(m, 2)[2].parameters(), "lr": -1.0},
        ValueError,
        "lr: expected",
    ),
    "one for all": (
        lambda m: {"params": thawed(m, 2)[2].parameters(), "alpha": 0.9},
        ValueError,
        "alpha: expected one number for all groups",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(case: str) -> None:
    given, kind, message = REFUSED[case]
    model, optimizer = trained(momentum=0.5)
    before = snapshot(model, optimizer)
    with pytest.raises(kind, match=message):
        optimizer.add_param_group(given(model))
    assert same(snapshot(model, optimizer), before)
    optimizer.step(batch(), T)


def test_no_group_in_a_block_of_steps() -> None:
    model, optimizer = trained()
    with optimizer.accumulate():
        optimizer.step(batch(), T)
        with pytest.raises(RuntimeError, match="in a block of accumulate"):
            unfrozen(model, optimizer, 2)
    unfrozen(model, optimizer, 2)
    optimizer.step(batch(), T)


@pytest.mark.parametrize("method", ["mk", "esn"])
def test_directions_of_chains_have_all_their_layers_from_the_start(method: str) -> None:
    """A closed form for the whole chain: a frozen layer is refused at the start, so none is left to add."""
    spec = sifrc.from_torch(model_of(), batch(), "cross_entropy", regularization={"state": 1e-2})
    with pytest.raises(sifrc.SifrcError, match="chains of dense layers"):
        sifrc.compile(spec, "torch", method)


def test_buffers_wrappers_and_terms_of_the_objective() -> None:
    """Batch norm in training, behind DataParallel, with an ℓ₂ term and decay."""

    def build() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()

    options: Any = {"method": "grouped_newton", "l2": {"*.weight": 0.1}, "weight_decay": 0.2, "lr": 0.05}
    model, other = build(), build()
    model[:2].requires_grad_(False)
    optimizer: Any = sifrc.optimizer(nn.DataParallel(model), "cross_entropy", example=(batch(), T), **options)
    model.requires_grad_(True)
    optimizer.add_param_group({"params": ["0.*", "1.*"], "lr": 0.01})
    assert float(model[1].num_batches_tracked) == 0
    groups = [{"params": ["3.*"]}, {"params": ["0.*", "1.*"], "lr": 0.01}]
    wanted: Any = sifrc.optimizer(other, "cross_entropy", example=(batch(), T), groups=groups, **options)
    for seed in (3, 4):
        assert torch.equal(optimizer.step(batch(seed), T), wanted.step(batch(seed), T))
    assert equal(model, other)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), other.buffers(), strict=True))
    assert float(model[1].num_batches_tracked) == 2


def test_a_network_that_the_method_does_not_take() -> None:
    """A partition that names the tensors of the smaller network is none of the larger one."""
    model = model_of()
    optimizer = made(model, "grouped_newton", partition=[["layer_4.weight"], ["layer_4.bias"]])
    optimizer.step(batch(), T)
    before = snapshot(model, optimizer)
    with pytest.raises(sifrc.SifrcError, match="layer_2"):
        unfrozen(model, optimizer, 2)
    assert same(snapshot(model, optimizer), before)
