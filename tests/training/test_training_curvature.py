"""Training by EA-CG: the method's memory through chunks, batches and checkpoints, on both backends."""

import json
from pathlib import Path

import numpy as np
import pytest
from training_helpers import plain_python, stop_after

import sifrc
from sifrc.data import Dataset
from sifrc.errors import TrainingError
from sifrc.training import TrainingInterrupted, fit, make_trainable
from sifrc.training.checkpoint import load_checkpoint
from sifrc.training.state import encode_state

SPEC = {
    "sifrc": 1,
    "name": "curved",
    "network": {
        "input": {"size": 5},
        "layers": [
            {"type": "dense", "units": 4, "activation": "sigmoid"},
            {"type": "dense", "units": 3},
        ],
    },
    "loss": "cross_entropy",
    "dtype": "float64",
}
SETTINGS = {"epochs": 2, "batch": 50, "seed": 11, "progress": False}

# The period is no divisor of the batches in a chunk, so that a checkpoint falls between two curvatures.
METHODS = {
    "ea_cg": {"alpha": 0.05, "cg_iterations": 5},
    "averaged": {"kind": "fisher", "period": 4, "decay": 0.8},
    "kfi": {"kind": "kfra", "solver": "kfi", "period": 4},
    "exact": {"kind": "empirical_fisher", "solver": "exact", "momentum": 0.5},
    "sampled": {"kind": "sampled_fisher", "solver": "cg", "seed": 5},
}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """A function from backend and options of the method to a module."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("modules")

    def build(backend, **options):
        with plain_python(backend):
            return sifrc.compile(SPEC, backend, "ea_cg", operators=(), cache=folder, **options)

    return build


@pytest.fixture
def some(toy):
    """Three chunks of an epoch (300, 300, 10); the last batch is a small one."""
    train = toy.train_inputs[:610], toy.train_targets[:610]
    return Dataset("some", "of the toy", *train, toy.test_inputs, toy.test_targets, classes=3)


@pytest.mark.filterwarnings("ignore:overflow encountered in scalar")  # meant: random numbers
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_stopped_and_resumed_run_is_bit_identical(tmp_path, make, some, backend, name):
    module = make(backend, **METHODS[name])
    history = fit(make_trainable(module, backend, seed=2), some, directory=tmp_path / "whole", **SETTINGS)
    assert history.last.test_loss < 0.8 * history.rows[0].test_loss
    with pytest.raises(TrainingInterrupted):
        first = stop_after(make_trainable(module, backend, seed=2), 4)
        fit(first, some, directory=tmp_path / "cut", checkpoint_every=0, **SETTINGS)
    second = make_trainable(module, backend, seed=2)
    fit(second, some, directory=tmp_path / "cut", resume=True, **SETTINGS)
    a, b = (load_checkpoint(tmp_path / part / "checkpoint.npz") for part in ("whole", "cut"))
    for key, value in a.parameters.items():
        assert value.tobytes() == b.parameters[key].tobytes(), key
    (text, arrays), (other, others) = encode_state(a.state), encode_state(b.state)
    assert text == other
    # Torch's random numbers, or nothing, and the momentum of four parameters.
    assert len(arrays) >= 4
    assert all(x.tobytes() == y.tobytes() for x, y in zip(arrays, others, strict=True))


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_hyperparameters_given_late_are_those_compiled_in(make, some, backend):
    """The same module with other numbers, and a module that was compiled with them."""
    values = {"alpha": 0.3, "momentum": 0.2, "cg_iterations": 2.0, "cg_tolerance": 0.1, "period": 2}
    late = make_trainable(make(backend), backend, hyperparameters={"lr": 0.4, **values})
    early = make_trainable(make(backend, learning_rate=0.4, **values), backend)
    usual = make_trainable(make(backend), backend)
    order = np.arange(200)
    for trainable in (late, early, usual):
        trainable.train_chunk(some.train_inputs, some.train_targets, order, 50)
    for key, value in late.parameters().items():
        np.testing.assert_array_equal(value, early.parameters()[key])
        assert np.abs(value - usual.parameters()[key]).max() > 1e-3
    assert late.learning_rate == 0.4
    with pytest.raises(TrainingError, match="alpha: expected"):
        make_trainable(make(backend), backend, hyperparameters={"alpha": float("nan")})


def test_backends_train_alike(make, some):
    """From the same parameters, to rounding: three batches, one of them small."""
    start = make_trainable(make("torch"), "torch", seed=3).parameters()
    found = {}
    for backend in ("torch", "numba"):
        trainable = make_trainable(make(backend), backend, initial=start)
        mean = trainable.train_chunk(some.train_inputs, some.train_targets, np.arange(120), 50)
        found[backend] = (mean, trainable.parameters())
    assert found["torch"][0] == pytest.approx(found["numba"][0], rel=1e-12)
    for key, value in found["torch"][1].items():
        np.testing.assert_allclose(value, found["numba"][1][key], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_refused_step_stops_the_run_with_its_checkpoint(tmp_path, make, some, backend):
    """An input that is not a number, in the fifth chunk: the run stops, and can be resumed."""
    trainable = make_trainable(make(backend), backend)
    usual, calls = trainable.train_chunk, []

    def train_chunk(inputs, *others):
        calls.append(1)
        return usual(np.where(len(calls) == 5, np.nan, inputs), *others)

    trainable.train_chunk = train_chunk
    with pytest.raises(TrainingError, match=r"epoch 2: .*objective of a sample") as caught:
        fit(trainable, some, directory=tmp_path, checkpoint_every=0, **SETTINGS)
    assert "saved in checkpoint.npz, after 1 epoch and 300 samples" in str(caught.value.hint)
    for value in load_checkpoint(tmp_path / "checkpoint.npz").parameters.values():
        assert np.isfinite(value).all()


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_data_that_cannot_be_evaluated_stops_before_the_first_step(tmp_path, make, some, backend):
    some.train_inputs[17] = np.nan
    with pytest.raises(TrainingError, match=r"stopped before the first step: .*(not finite|NaN)"):
        fit(make_trainable(make(backend), backend), some, directory=tmp_path, **SETTINGS)
    assert not list(tmp_path.iterdir())


def test_the_command_trains_and_resumes_with_options(tmp_path, monkeypatch, some):
    """One epoch and one more, against two at once; other options do not go on from its checkpoint."""
    pytest.importorskip("torch")
    from typer.testing import CliRunner

    from sifrc.cli.main import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIFRC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))  # which is YAML too
    parts = {"train_X": some.train_inputs, "train_y": some.train_targets}
    np.savez("some.npz", **parts, test_X=some.test_inputs, test_y=some.test_targets)

    def command(*arguments):
        options = ["--option", "kind=pch2", "--option", "cg_iterations=3", "--option", "period=4"]
        base = ["train", "spec.json", "--backend", "torch", "--method", "ea_cg", "--data", "some.npz"]
        return CliRunner().invoke(app, [*base, "--batch", "50", *options, *arguments])

    alpha = ("--option", "alpha=0.2")
    for folder, epochs, more in (("whole", "2", ()), ("parts", "1", ()), ("parts", "2", ("--resume",))):
        result = command(*alpha, "-o", folder, "--epochs", epochs, *more)
        assert result.exit_code == 0, result.output
    whole, parts = (load_checkpoint(Path(folder, "checkpoint.npz")) for folder in ("whole", "parts"))
    for key, value in whole.parameters.items():
        assert value.tobytes() == parts.parameters[key].tobytes(), key
    refused = command("--option", "alpha=0.3", "-o", "parts", "--epochs", "3", "--resume")
    assert refused.exit_code != 0 and "another spec" in refused.stderr
    outside = command("--option", "alpha=2", "-o", "parts", "--epochs", "1")
    assert outside.exit_code != 0 and "from 0.0 to 1.0" in outside.stderr
