"""The Torch optimizer of ``ea_cg``: state, copies, schedulers, closures, dtypes."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from newton_blocks import data, module, network, point_of

METHODS: dict[str, dict[str, Any]] = {
    "ea_cg": {"solver": "ea_cg", "period": 3},
    "cg averaged": {"solver": "cg", "decay": 0.5, "period": 2},
    "kfi": {"solver": "kfi", "kind": "fisher"},
    "exact": {"solver": "exact", "kind": "hessian", "alpha": 0.5},
    "sampled": {"solver": "ea_cg", "kind": "sampled_fisher", "period": 2},
}


def build(name: str, dtype: str = "float64", batch: int = 8) -> tuple[Any, list[tuple[Any, Any]]]:
    """Module, and batches in its dtype."""
    spec_data = network(METHODS[name], sizes=(5, 4, 4, 3), dtype=dtype)
    made = module(spec_data, "torch")
    spec, _ = point_of(spec_data)
    kind = getattr(torch, dtype)
    pairs = data(spec, range(12), batch)
    return made, [(torch.from_numpy(x).to(kind), torch.from_numpy(np.array(t))) for x, t in pairs]


def run(optimizer: Any, batches: list[Any]) -> list[torch.Tensor]:
    return [optimizer.step(*batch) for batch in batches]


def same_state(mine: Any, theirs: Any) -> None:
    """To the bit, dtypes too."""
    assert type(mine) is type(theirs)
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            same_state(value, theirs[key])
    elif isinstance(mine, torch.Tensor):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    elif isinstance(mine, list):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            same_state(one, other)
    else:
        assert mine == theirs


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_a_saved_state_goes_on_to_the_same_bits(name: str, dtype: str) -> None:
    """state_dict → torch.save → load, in the middle of a period; and a deep copy with the model."""
    made, batches = build(name, dtype)
    model = made.Network()
    optimizer = made.Optimizer(model, lr=1e-2)
    optimizer.refresh(*batches[11])
    run(optimizer, batches[:4])
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file)
    other = made.Network(seed=9)
    other.load_state_dict(saved["model"])
    resumed = made.Optimizer(other, lr=0.5, alpha=0.9)
    resumed.load_state_dict(saved["optimizer"])
    same_state(resumed.state_dict(), optimizer.state_dict())
    copied, twin = copy.deepcopy((model, optimizer))
    before = [parameter.detach().clone() for parameter in copied.parameters()]
    objectives = [run(each, batches[4:9]) for each in (optimizer, resumed)]
    assert all(torch.equal(a, b) for a, b in zip(before, copied.parameters(), strict=True))  # its own memory
    objectives.append(run(twin, batches[4:9]))
    assert objectives[0] == objectives[1] == objectives[2]
    for network_ in (other, copied):
        for mine, theirs in zip(model.parameters(), network_.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    same_state(resumed.state_dict(), optimizer.state_dict())
    same_state(twin.state_dict(), optimizer.state_dict())


@pytest.mark.parametrize("name", ["ea_cg", "cg averaged"])
def test_a_loaded_state_is_a_copy(name: str) -> None:
    """Steps of one optimizer do not reach into what was saved or loaded elsewhere."""
    made, batches = build(name)
    model = made.Network()
    optimizer = made.Optimizer(model)
    run(optimizer, batches[:2])
    other = made.Optimizer(made.Network())
    other.load_state_dict(optimizer.state_dict())
    kept = copy.deepcopy(other.state_dict())
    run(optimizer, batches[2:6])
    optimizer.refresh(*batches[7])
    same_state(other.state_dict(), kept)


@pytest.mark.parametrize("name", ["ea_cg", "kfi"])
def test_the_rate_of_a_scheduler_is_that_of_the_step(name: str) -> None:
    """Two optimizers from one point: halved lr, halved first move; momentum keeps directions, not moves."""
    made, batches = build(name)
    moves = []
    for lr in (0.1, 0.05):
        model = made.Network()
        before = model.fc1.weight.detach().clone()
        made.Optimizer(model, lr=lr).step(*batches[0])
        moves.append(before - model.fc1.weight.detach())
    torch.testing.assert_close(moves[1], moves[0] / 2, rtol=1e-9, atol=1e-14)
    model, plain = made.Network(), made.Network()
    optimizer, other = made.Optimizer(model, lr=0.1), made.Optimizer(plain, lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    for number, batch in enumerate(batches[:6]):
        other.param_groups[0]["lr"] = 0.1 * 0.5 ** (number // 2)
        optimizer.step(*batch)
        other.step(*batch)
        scheduler.step()
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)


def test_other_numbers_change_from_step_to_step_too() -> None:
    """α, the limit and the tolerance are read at every step."""
    made, batches = build("ea_cg")
    model = made.Network()
    optimizer = made.Optimizer(model, momentum=0.0)
    group = optimizer.param_groups[0]
    counts = []
    for limit in (1.0, 2.0, 0.0):
        group["cg_iterations"], group["cg_tolerance"] = limit, 0.0
        before = model.fc2.weight.detach().clone()
        optimizer.step(*batches[0])
        counts.append(float(optimizer.state[model.fc2.weight]["iterations"]))
    assert counts == [1.0, 2.0, 0.0]
    assert torch.equal(before, model.fc2.weight)  # no iteration, no move
    group["alpha"], group["lr"] = 1.0, 0.1
    group["cg_iterations"] = 5.0
    params = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    value = _objective(params, *batches[1])
    expected = torch.autograd.grad(value, list(params.values()))
    returned = optimizer.step(*batches[1])
    torch.testing.assert_close(returned, value.detach(), rtol=1e-12, atol=0.0)
    for (name, old), slope in zip(params.items(), expected, strict=True):  # α = 1 is gradient descent
        new = dict(model.named_parameters())[name].detach()
        torch.testing.assert_close(old.detach() - new, 0.1 * slope, rtol=1e-9, atol=1e-13)


def _objective(params: dict[str, Any], inputs: Any, targets: Any) -> Any:
    """Of the network of this file, written by hand."""
    x, penalty = inputs, 0.0
    for name in ("fc1", "fc2"):
        x = torch.tanh(x @ params[f"{name}.weight"].T + params[f"{name}.bias"])
        penalty = penalty + 0.15 * (x**2).sum(1).mean()
    output = x @ params["fc3.weight"].T + params["fc3.bias"]
    return torch.nn.functional.cross_entropy(output, targets) + penalty


@pytest.mark.parametrize("name", METHODS)
def test_a_closure_is_its_batch(name: str) -> None:
    """step(closure) does what step(inputs, targets) does, calls it once, and touches no gradient."""
    made, batches = build(name)
    first, second = made.Network(), made.Network()
    one, other = made.Optimizer(first), made.Optimizer(second)
    calls = []
    for batch in batches[:3]:

        def closure(batch: Any = batch) -> Any:
            calls.append(1)
            return batch

        assert torch.equal(one.step(closure), other.step(*batch))
    assert len(calls) == 3
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, theirs) and mine.grad is None


@pytest.mark.parametrize("name", [name for name in METHODS if name != "sampled"])
def test_lower_precision_follows_float64(name: str) -> None:
    """One step from the same numbers: float32 to rounding; bfloat16 rounds the result of float32 once."""
    made, batches = build(name)
    start = {key: value.bfloat16() for key, value in made.Network().state_dict().items()}
    inputs, targets = batches[0][0].bfloat16(), batches[0][1]
    found = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model = made.Network(dtype=dtype)
        model.load_state_dict({key: value.to(dtype) for key, value in start.items()})
        optimizer = made.Optimizer(model, lr=0.2, momentum=0.0)
        optimizer.step(inputs.to(dtype), targets)
        found[dtype] = {key: value.double() for key, value in model.state_dict().items()}
        least = torch.float64 if dtype == torch.float64 else torch.float32
        for key, value in (entry for state in optimizer.state.values() for entry in state.items()):
            assert value.dtype == (torch.int64 if key in ("steps", "age") else least)
    for key, exact in found[torch.float64].items():
        scale = float((exact - start[key].double()).abs().max())
        assert 0 < float((found[torch.float32][key] - exact).abs().max()) < 2e-4 * scale
        assert torch.equal(found[torch.bfloat16][key], found[torch.float32][key].bfloat16().double())


def test_training_reduces_the_objective() -> None:
    """A hundred steps at the defaults, momentum too; the regularisation keeps it from zero."""
    made, _ = build("ea_cg")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    targets = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
    optimizer = made.Optimizer(made.Network(), lr=0.05)
    values = [float(optimizer.step(inputs, targets)) for _ in range(100)]
    assert values[-1] < values[0] - 0.3
