"""The generated ``torch.optim.Optimizer``: binding, steps, state, refusals."""

from __future__ import annotations

import copy
import io
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch_cases import data, difference, loaded, spec_text

METHODS = {
    "mk": "{name: mk}",
    "exact": "{name: esn, variant: exact}",
    "rank one": "{name: esn, variant: randomised, precision: rank_one}",
    "direct": "{name: esn, variant: randomised, precision: direct}",
    "recursive": "{name: esn, variant: randomised, precision: recursive}",
    "sylvester": "{name: esn, variant: randomised, precision: direct, form: sylvester, period: 3}",
}
ONE = ("exact", "recursive")


def build(name, folder, dtype="float64", operators="objective, gradient"):
    """Module, data and batch size."""
    module = loaded(
        spec_text("leaky_relu", "squared_error", method=METHODS[name], dtype=dtype, operators=operators),
        folder,
    )
    return module, data("squared_error", 48, getattr(torch, dtype)), 1 if name in ONE else 6


def run(optimizer, samples, batch, start, stop):
    """Some steps; their objectives."""
    inputs, targets = samples
    chunks = [slice(batch * i, batch * (i + 1)) for i in range(start, stop)]
    return [optimizer.step(inputs[chunk], targets[chunk]) for chunk in chunks]


def sequential(module):
    """A user's model without the spec's names."""
    layers = [nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)]
    parts = [part for layer in layers[:-1] for part in (layer, nn.LeakyReLU(0.01))]
    return nn.Sequential(*parts, layers[-1]).double()


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_state_dict_resumes_to_the_bit(name, dtype, tmp_path):
    """Saved, loaded into a new optimizer, and deep-copied: the same steps, state in its own dtype."""
    module, samples, batch = build(name, tmp_path, dtype)
    model = module.Network()
    optimizer = module.Optimizer(model, lr=1e-3)
    run(optimizer, samples, batch, 0, 4)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = module.Network(seed=9)
    other.load_state_dict(model.state_dict())
    resumed = module.Optimizer(other, lr=0.5)
    resumed.load_state_dict(torch.load(file))
    copied, twin = copy.deepcopy((model, optimizer))
    objectives = [run(each, samples, batch, 4, 8) for each in (optimizer, resumed, twin)]
    assert objectives[0] == objectives[1] == objectives[2]
    for network in (other, copied):
        for mine, theirs in zip(model.parameters(), network.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    least = torch.float64 if dtype == "float64" else torch.float32
    for mine, theirs in zip(optimizer.state.values(), resumed.state.values(), strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == theirs[key].dtype and torch.equal(value, theirs[key])
                assert value.dtype == (torch.int64 if key in ("steps", "age") else least)
            else:
                assert value == theirs[key]


@pytest.mark.parametrize("name", METHODS)
def test_not_finite_is_refused_and_changes_nothing(name, tmp_path):
    """NaN in the batch: an error that names layer and quantity, parameters and state as before."""
    module, samples, batch = build(name, tmp_path)
    model = module.Network()
    optimizer = module.Optimizer(model, lr=1e-3)
    run(optimizer, samples, batch, 0, 3)
    parameters, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    inputs, targets = samples[0][:batch].clone(), samples[1][:batch]
    inputs[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"network: .*nothing was changed"):
        optimizer.step(inputs, targets)
    assert all(torch.equal(value, parameters[key]) for key, value in model.state_dict().items())
    assert optimizer.state_dict()["param_groups"] == state["param_groups"]
    torch.testing.assert_close(optimizer.state_dict()["state"], state["state"], rtol=0.0, atol=0.0)


def test_exact_step_moves_along_the_newton_direction(tmp_path):
    """θ ← θ − lr·(N, η), with the lr of a scheduler at each step; the direction is checked elsewhere."""
    module, (inputs, targets), _ = build("exact", tmp_path, operators="objective, newton_direction")
    model = module.Network()
    optimizer = module.Optimizer(model, lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for step in range(3):
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        direction = module.newton_direction(before, inputs[step], targets[step])
        batch = inputs[step : step + 1], targets[step : step + 1]
        expected = module.objective(before, *batch)
        assert torch.allclose(optimizer.step(lambda batch=batch: batch), expected, rtol=1e-14)
        moved = {name: before[name] - value.detach() for name, value in model.named_parameters()}
        wanted = {name: 1e-3 * 0.5**step * value for name, value in direction.items()}
        assert difference(moved, wanted) < 1e-11
        scheduler.step()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_names_of_a_sequential_are_matched_in_order(tmp_path):
    """Without the spec's names, linear layers count; explicit names do the same."""
    module, samples, batch = build("rank one", tmp_path)
    first = sequential(module)
    second = copy.deepcopy(first)
    third = nn.ModuleDict({"body": copy.deepcopy(first)})
    third.forward = lambda inputs: third["body"](inputs)
    keys = dict(zip(["fc1", "fc2", "fc3", "out"], ["body.0", "body.2", "body.4", "body.6"], strict=True))
    own = module.Network()
    own.load_state_dict(dict(zip(module.SHAPES, first.state_dict().values(), strict=True)))
    made = [
        module.Optimizer(own),
        module.Optimizer(first),
        module.Optimizer(second, names={name: f"{i}.{name.split('.')[1]}" for name, i in _positions(module)}),
        module.Optimizer(third, names=keys),
    ]
    objectives = [run(optimizer, samples, batch, 0, 3) for optimizer in made]
    assert objectives[0] == objectives[1] == objectives[2] == objectives[3]
    assert torch.equal(first[0].weight, own.fc1.weight) and torch.equal(third["body"][6].bias, own.out.bias)


def _positions(module):
    layers = list(dict.fromkeys(name.split(".")[0] for name in module.SHAPES))
    return [(name, 2 * layers.index(name.split(".")[0])) for name in module.SHAPES]


def _extra(module):
    model = module.Network()
    model.more = nn.Linear(2, 2)
    return model


def _wide(module):
    model = module.Network()
    model.fc2 = nn.Linear(4, 7)
    return model


MODELS = {
    "extra parameter": (_extra, ValueError, "more.weight is unknown"),
    "shape": (
        _wide,
        ValueError,
        r"fc2.weight.*Expected: .*fc2.weight \(4, 4\).*Found: .*fc2.weight \(7, 4\)",
    ),
    "too few layers": (lambda m: nn.Sequential(nn.Linear(5, 3)), ValueError, "out.weight is missing"),
    "no module": (lambda m: [torch.zeros(2)], TypeError, "torch.nn.Module"),
    "half": (lambda m: m.Network().half(), TypeError, "float16"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_does_not_fit_is_explained(case, tmp_path):
    """One error that lists what was expected and what was found."""
    module, *_ = build("mk", tmp_path)
    make, kind, text = MODELS[case]
    with pytest.raises(kind, match=text):
        module.Optimizer(make(module))


def test_a_model_that_computes_something_else_is_refused_at_the_first_step(tmp_path):
    """Same parameters, another activation: the difference is in the error, nothing was changed."""
    module, (inputs, targets), _ = build("mk", tmp_path)
    model = sequential(module)
    model[1] = nn.Tanh()
    model.train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="outputs differ from those of sample_net by up to"):
        module.Optimizer(model).step(inputs, targets)
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class Rounded(nn.Module):
    """A model whose outputs differ by a part of the largest of them, as sums in another order would."""

    def __init__(self, module, part):
        super().__init__()
        self.inner, self.part = sequential(module), part

    def forward(self, inputs):
        outputs = self.inner(inputs)
        return outputs + self.part * outputs.detach().abs().max()


@pytest.mark.parametrize(("part", "accepted"), [(0.5, True), (2.0, False)])
def test_outputs_may_differ_by_rounding_of_the_largest(part, accepted, tmp_path):
    """Outputs of very different sizes: the tolerance is of their scale."""
    module, (inputs, targets), _ = build("mk", tmp_path)
    model = Rounded(module, part * module.TOLERANCES[torch.float64])
    with torch.no_grad():
        model.inner[-1].bias.copy_(torch.tensor([0.0, 1e6, -1e3]))
    optimizer, refused = module.Optimizer(model, lr=0.0), False
    try:
        optimizer.step(inputs[:6], targets[:6])
    except ValueError as error:
        refused = "outputs differ" in str(error)
    assert refused is not accepted


def test_numbers_and_groups_are_checked(tmp_path):
    """Hyperparameters are finite and not negative; every parameter has a group."""
    module, (inputs, _), _ = build("mk", tmp_path)
    model = module.Network()
    for value, kind in ((-1.0, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(kind, match="lr"):
            module.Optimizer(model, lr=value)
    with pytest.raises(ValueError, match="names: nobody"):
        module.Optimizer(model, names={"nobody": "fc1"})
    optimizer = module.Optimizer(model, damping=2.0)
    assert optimizer.param_groups[0]["damping"] == 2.0
    with pytest.raises(ValueError, match="every parameter that the step was derived for has a group"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    with pytest.raises(TypeError, match="inputs and targets"):
        optimizer.step(inputs)


def test_directions_are_solved_every_period(tmp_path):
    """Between two solves the kept direction moves on: its tensors change at steps 1, 4, 7 only."""
    module, samples, batch = build("sylvester", tmp_path)
    model = module.Network()
    optimizer = module.Optimizer(model, lr=1e-4)
    assert optimizer.param_groups[0]["period"] == 3
    seen = []
    for step in range(7):
        run(optimizer, samples, batch, step, step + 1)
        seen.append(optimizer.state[model.fc1.weight]["direction"].clone())
    changed = [not torch.equal(before, after) for before, after in pairwise(seen)]
    assert changed == [False, False, True, False, False, True]
