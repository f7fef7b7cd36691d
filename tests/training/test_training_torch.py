"""Torch modules and the baselines in the loop."""

import numpy as np
import pytest
from training_helpers import stop_after

from sifrc.data import Dataset
from sifrc.errors import TrainingError
from sifrc.training import TrainingInterrupted, fit, make_trainable, train

torch = pytest.importorskip("torch")
baselines = pytest.importorskip("sifrc.training.baselines")

SETTINGS = {"epochs": 3, "batch": 7, "seed": 11, "progress": False}


def linear():
    """A network whose parameters have the fake modules' names, with dropout so that chance matters."""
    network = torch.nn.Sequential()
    network.add_module("fc1", torch.nn.Linear(5, 3, dtype=torch.float64))
    network.add_module("drop", torch.nn.Dropout(0.2))
    return network


def plain():
    network = torch.nn.Sequential()
    network.add_module("fc1", torch.nn.Linear(5, 3, dtype=torch.float64))
    return network


MAKERS = {
    "module": lambda fake: make_trainable(fake, "torch", hyperparameters={"lr": 0.02}),
    "sgd": lambda fake: baselines.sgd(plain, torch.nn.functional.cross_entropy, lr=0.1),
    "momentum": lambda fake: baselines.sgd(linear, torch.nn.functional.cross_entropy, lr=0.1, momentum=0.9),
    "adam": lambda fake: baselines.adam(linear, torch.nn.functional.cross_entropy, lr=0.01),
}


@pytest.mark.parametrize("name", MAKERS)
def test_stopped_and_resumed_run_is_bit_identical(tmp_path, fake_torch, toy, name):
    def make():
        torch.manual_seed(5)
        return MAKERS[name](fake_torch)

    history = fit(make(), toy, directory=tmp_path / "whole", **SETTINGS)
    assert history.last.test_loss < history.rows[0].test_loss
    with pytest.raises(TrainingInterrupted):
        fit(stop_after(make(), 5), toy, directory=tmp_path / "cut", checkpoint_every=0, **SETTINGS)
    torch.manual_seed(99)
    fit(MAKERS[name](fake_torch), toy, directory=tmp_path / "cut", resume=True, **SETTINGS)
    assert_same_state(tmp_path, name)


def assert_same_state(folder, name):
    """As for the Numba module, with the state of torch's optimizers flattened first."""
    from sifrc.training.checkpoint import load_checkpoint
    from sifrc.training.state import encode_state

    a, b = (load_checkpoint(folder / part / "checkpoint.npz") for part in ("whole", "cut"))
    for key, value in a.parameters.items():
        assert value.tobytes() == b.parameters[key].tobytes(), key
    (text, arrays), (other_text, others) = encode_state(a.state), encode_state(b.state)
    assert text == other_text
    assert len(arrays) > (1 if name == "sgd" else 2) - 1
    assert all(x.tobytes() == y.tobytes() and x.dtype == y.dtype for x, y in zip(arrays, others, strict=True))


def test_sgd_baseline_is_gradient_descent(toy):
    """One epoch against the update written out in NumPy, from given initial parameters."""
    start = {"fc1.weight": np.full((3, 5), 0.1), "fc1.bias": np.zeros(3)}
    rival = baselines.sgd(plain, torch.nn.functional.cross_entropy, lr=0.1, initial=start)
    order = np.arange(20)[::-1].copy()
    mean = rival.train_chunk(toy.train_inputs, toy.train_targets, order, 8)
    weight, bias, total = start["fc1.weight"].copy(), start["fc1.bias"].copy(), 0.0
    for chosen in (order[:8], order[8:16], order[16:]):
        x, t = toy.train_inputs[chosen], toy.train_targets[chosen]
        y = x @ weight.T + bias
        p = np.exp(y) / np.exp(y).sum(1, keepdims=True)
        total -= np.log(p[np.arange(len(t)), t]).sum()
        p[np.arange(len(t)), t] -= 1
        weight -= 0.1 * p.T @ x / len(t)
        bias -= 0.1 * p.mean(0)
    assert mean == pytest.approx(total / 20, rel=1e-12)
    np.testing.assert_allclose(rival.parameters()["fc1.weight"], weight, rtol=1e-11)
    np.testing.assert_allclose(rival.parameters()["fc1.bias"], bias, rtol=1e-11, atol=1e-15)


def test_both_backends_and_a_baseline_start_alike(fake_numba, fake_torch, toy):
    start = make_trainable(fake_numba, "numba", seed=3).parameters()
    trainables = (
        make_trainable(fake_numba, "numba", seed=4, initial=start),
        make_trainable(fake_torch, "torch", seed=5, initial=start),
        baselines.adam(plain, torch.nn.functional.cross_entropy, lr=0.01, initial=start),
    )
    losses = [trainable.loss(toy.test_inputs, toy.test_targets) for trainable in trainables]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-12)
    outputs = [trainable.predict(toy.test_inputs) for trainable in trainables]
    np.testing.assert_allclose(outputs, np.broadcast_to(outputs[0], (3, 200, 3)), rtol=1e-10, atol=1e-12)


def test_regularization_is_trained_and_not_reported():
    """With a loss of zero the weights shrink by lr times the slope of the penalty alone."""
    x, t = np.zeros((4, 5)), np.zeros((4, 3))
    rival = baselines.sgd(
        plain,
        lambda y, t: 0 * torch.nn.functional.mse_loss(y, t),
        lr=0.5,
        regularization=lambda model, inputs: model.fc1.weight.square().sum() / 2,
    )
    before = rival.parameters()["fc1.weight"]
    assert rival.train_chunk(x, t, np.arange(4), 4) == pytest.approx((before**2).sum() / 2)
    np.testing.assert_allclose(rival.parameters()["fc1.weight"], before / 2)
    assert rival.loss(x, t) == 0


def test_bfloat16_parameters_travel_through_a_checkpoint(tmp_path):
    """NumPy has no bfloat16; the state comes back in it, to the bit."""
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((40, 5)).astype("float32"), rng.standard_normal((40, 3)).astype("float32")
    data = Dataset("toy", "test", x, t, x, t)

    def make():
        network = torch.nn.Sequential()
        network.add_module("fc1", torch.nn.Linear(5, 3, dtype=torch.bfloat16))
        return baselines.adam(lambda: network, torch.nn.functional.mse_loss, lr=0.01, seed=1)

    settings = {"batch": 8, "progress": False}
    start = make().parameters()
    whole, first, second = make(), make(), make()
    for trainable in (whole, first, second):
        trainable.load_parameters(start)
    fit(whole, data, epochs=4, directory=tmp_path / "whole", **settings)
    fit(first, data, epochs=2, directory=tmp_path / "cut", **settings)
    fit(second, data, epochs=4, directory=tmp_path / "cut", resume=True, **settings)
    for key, value in whole.parameters().items():
        assert value.tobytes() == second.parameters()[key].tobytes()
        assert value.dtype == np.float32
    moment = next(iter(second._optimizer.state.values()))["exp_avg"]
    assert moment.dtype == torch.bfloat16


def test_schedule_and_refused_hyperparameters(tmp_path, fake_torch, toy):
    rate = {"schedule": lambda epoch: 0.5**epoch}
    trainable = make_trainable(fake_torch, "torch")
    fit(trainable, toy, **rate, **SETTINGS)
    assert trainable.learning_rate == 0.05 * 0.25
    with pytest.raises(TrainingError, match="lr: expected a positive number"):
        train(fake_torch, "torch", toy, hyperparameters={"lr": -1.0}, **SETTINGS)


def test_refuses_the_checkpoint_of_another_method(tmp_path, toy):
    loss = torch.nn.functional.cross_entropy
    fit(baselines.sgd(plain, loss, lr=0.1), toy, directory=tmp_path, **SETTINGS)
    with pytest.raises(TrainingError, match="another optimizer"):
        fit(baselines.adam(plain, loss, lr=0.1), toy, directory=tmp_path, resume=True, **SETTINGS)


def test_a_rival_evaluates_by_running_statistics():
    """It begins with those that it is given, and moves them by steps alone; so is dropout of steps alone."""

    def network():
        norm, thin, out = torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 2)
        return torch.nn.Sequential(norm, thin, out)

    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(2.0, 3.0, (8, 3)).astype(np.float32), np.arange(8) % 2
    state = network().state_dict()
    given = {name: value.numpy() for name, value in state.items() if value.is_floating_point()}
    given["0.running_mean"] = np.array([1.0, 2.0, 3.0], np.float32)
    rival = baselines.sgd(network, torch.nn.functional.cross_entropy, lr=0.1, initial=given)

    scaled = (inputs - given["0.running_mean"]) / np.sqrt(1 + 1e-5)
    outputs = scaled @ given["2.weight"].T + given["2.bias"]
    np.testing.assert_allclose(rival.predict(inputs), outputs, rtol=1e-5, atol=1e-6)
    expected = np.mean(np.log(np.exp(outputs).sum(1)) - outputs[np.arange(8), targets])
    assert rival.loss(inputs, targets) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(rival.parameters()["0.running_mean"], given["0.running_mean"])

    rival.train_chunk(inputs, targets, np.arange(8), batch=8)
    moved = 0.9 * given["0.running_mean"] + 0.1 * inputs.mean(0)
    np.testing.assert_allclose(rival.parameters()["0.running_mean"], moved, rtol=1e-5)
