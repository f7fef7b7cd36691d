"""The loop against training written out by hand."""

import csv
import math
import time

import numpy as np
import pytest

from sifrc.data import Dataset
from sifrc.errors import TrainingError
from sifrc.training import History, fit, make_trainable, sample_order, train
from sifrc.training.checkpoint import load_checkpoint

QUIET = {"progress": False}


def test_run_is_the_steps_in_the_stated_order(tmp_path, fake_numba, toy):
    """Chunks change nothing: the oracle calls ``step`` batch by batch, ordered by PCG64([seed, epoch])."""
    history = train(fake_numba, "numba", toy, epochs=2, batch=7, seed=4, directory=tmp_path, **QUIET)
    params = fake_numba.init(4)
    state = fake_numba.State(params)
    for epoch in range(2):
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([4, epoch])))
        order = generator.permutation(1000)
        total = 0.0
        for start in range(0, 1000, 7):
            chosen = order[start : start + 7]
            x, t = toy.train_inputs[chosen], toy.train_targets[chosen]
            total += len(chosen) * fake_numba.step(params, state, x, t)
        row = history.rows[epoch + 1]
        assert row.train_objective == pytest.approx(total / 1000, rel=1e-13)
        assert row.test_loss == fake_numba.loss(params, toy.test_inputs, toy.test_targets)
        right = fake_numba.predict(params, toy.train_inputs).argmax(1) == toy.train_targets
        assert row.train_accuracy == right.sum() / 1000
    saved = load_checkpoint(tmp_path / "checkpoint.npz").parameters
    for key, value in params.items():
        assert saved[key].tobytes() == value.tobytes()


def test_learns_and_writes_what_it_measured(tmp_path, fake_numba, toy, draws):
    history = train(fake_numba, "numba", toy, epochs=3, directory=tmp_path / "deep" / "run", **QUIET)
    assert history.rows[0].epoch == 0
    assert history.rows[0].seconds == 0
    assert math.isnan(history.rows[0].train_objective)
    assert history.last.test_accuracy > 0.8 > history.rows[0].test_accuracy
    assert (np.diff(history.column("seconds")) > 0).all()
    with open(tmp_path / "deep" / "run" / "metrics.csv") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["test_loss"]) for line in lines] == [row.test_loss for row in history]
    assert lines[0]["train_objective"] == ""
    assert (tmp_path / "deep" / "run" / "training.png").read_bytes().startswith(b"\x89PNG")


def test_seconds_are_those_of_the_clock_given(fake_numba, toy):
    """A clock that moves by one at every look: one look before a chunk, one after, four chunks an epoch."""
    ticks = iter(range(1000))
    trainable = make_trainable(fake_numba, "numba")
    history = fit(trainable, toy, epochs=2, clock=lambda: float(next(ticks)), **QUIET)
    assert history.column("seconds").tolist() == [0.0, 4.0, 8.0]


def test_seconds_are_those_of_training(fake_numba, toy, monkeypatch):
    """Neither compilation nor evaluation counts: both sleep here, training does not."""
    trainable = make_trainable(fake_numba, "numba")
    usual, loss = fake_numba.train_epoch, trainable.loss
    compiled = []

    def slow_at_first(*arguments, **options):
        if not compiled:
            compiled.append(1)
            time.sleep(0.5)
        return usual(*arguments, **options)

    def slow_loss(*arguments):
        time.sleep(0.1)
        return loss(*arguments)

    monkeypatch.setattr(fake_numba, "train_epoch", slow_at_first)
    monkeypatch.setattr(trainable, "loss", slow_loss)
    begin = time.perf_counter()
    history = fit(trainable, toy, epochs=1, batch=100, **QUIET)
    assert time.perf_counter() - begin >= 0.9
    assert history.last.seconds < 0.4


def test_initial_parameters_are_shared_and_not_changed(fake_numba, toy):
    start = {"fc1.weight": np.full((3, 5), 0.25), "fc1.bias": np.arange(3.0)}
    kept = {key: value.copy() for key, value in start.items()}
    first = train(fake_numba, "numba", toy, epochs=1, seed=1, initial=start, **QUIET)
    other = train(
        fake_numba, "numba", toy, epochs=1, seed=2, initial=start,
        hyperparameters={"momentum": 0.0}, **QUIET,
    )  # fmt: skip
    assert (
        first.rows[0].train_loss
        == other.rows[0].train_loss
        == fake_numba.loss(kept, toy.train_inputs, toy.train_targets)
    )
    assert first.last.train_loss != other.last.train_loss
    for key, value in kept.items():
        assert (start[key] == value).all()


REFUSED_STARTS = {
    "lack 'fc1.bias'": {"fc1.weight": np.zeros((3, 5))},
    "no parameter 'fc2.bias'": {
        "fc1.weight": np.zeros((3, 5)), "fc1.bias": np.zeros(3), "fc2.bias": np.zeros(1),
    },
    r"'fc1.weight' has shape \(5, 3\)": {"fc1.weight": np.zeros((5, 3)), "fc1.bias": np.zeros(3)},
    "'fc1.bias' has entries that are not finite": {
        "fc1.weight": np.zeros((3, 5)), "fc1.bias": np.array([0, np.inf, 0]),
    },
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED_STARTS)
def test_refuses_parameters_of_another_network(fake_numba, toy, message):
    with pytest.raises(TrainingError, match=message):
        train(fake_numba, "numba", toy, epochs=1, initial=REFUSED_STARTS[message], **QUIET)


def test_refused_step_keeps_the_text_and_names_the_checkpoint(tmp_path, fake_numba, toy):
    """The module refuses step 190, of 143 an epoch: what it says about layer and quantity stays.

    The last checkpoint of the clock is that of the start; the one that is saved has 47 steps of epoch 2.
    """
    with pytest.raises(TrainingError) as caught:
        train(
            fake_numba, "numba", toy, epochs=3, batch=7, directory=tmp_path, checkpoint_every=math.inf,
            hyperparameters={"break_at": 190}, **QUIET,
        )  # fmt: skip
    text = str(caught.value)
    assert "epoch 2" in text
    assert "layer fc1: the update of the weight is not finite" in text
    assert "saved in checkpoint.npz, after 1 epoch and 329 samples" in text
    saved = load_checkpoint(tmp_path / "checkpoint.npz")
    assert (saved.position.epoch, saved.position.sample) == (1, 47 * 7)
    assert all(np.isfinite(value).all() for value in saved.parameters.values())


def test_metrics_are_on_disk_after_each_epoch(tmp_path, fake_numba, toy, monkeypatch):
    """Also between checkpoints, so that a long run can be watched."""
    usual, seen = fake_numba.train_epoch, []

    def train_epoch(params, state, *others, **options):
        if state.steps == 286:
            seen.append([row.epoch for row in History.read_csv(tmp_path / "metrics.csv")])
            seen.append(load_checkpoint(tmp_path / "checkpoint.npz").position.epoch)
        return usual(params, state, *others, **options)

    monkeypatch.setattr(fake_numba, "train_epoch", train_epoch)
    train(fake_numba, "numba", toy, epochs=3, batch=7, directory=tmp_path, checkpoint_every=1e9, **QUIET)
    assert seen == [[0, 1, 2], 0]


def test_objective_that_is_not_finite_stops_the_run(fake_numba, toy, monkeypatch):
    """Also where a module lets it through."""
    monkeypatch.setattr(fake_numba, "train_epoch", lambda *a, **k: math.nan)
    with pytest.raises(TrainingError, match="the mean objective is nan"):
        train(fake_numba, "numba", toy, epochs=1, **QUIET)


def test_accuracy_of_one_hot_targets_and_none_without_classes(fake_numba, toy, monkeypatch):
    """The loss of the fake takes classes, so that of vectors is replaced."""
    hot = np.eye(3)
    vectors = Dataset(
        "toy", "test", toy.train_inputs, hot[toy.train_targets], toy.test_inputs, hot[toy.test_targets], 3
    )
    plain = train(fake_numba, "numba", toy, epochs=1, **QUIET).rows[0]
    monkeypatch.setattr(fake_numba, "train_epoch", lambda *a, **k: 1.0)
    monkeypatch.setattr(fake_numba, "loss", lambda *a: 1.0)
    assert train(fake_numba, "numba", vectors, epochs=1, **QUIET).rows[0].test_accuracy == plain.test_accuracy
    without = Dataset("toy", "test", toy.train_inputs, toy.train_inputs, toy.test_inputs, toy.test_inputs)
    assert math.isnan(train(fake_numba, "numba", without, epochs=1, **QUIET).last.test_accuracy)


SETTINGS = {
    "0 epochs": {"epochs": 0},
    "batches of 0": {"batch": 0},
    "batches of 1001": {"batch": 1001},
    "seed is -1": {"seed": -1},
    "every nan": {"checkpoint_every": math.nan},
    "without a folder": {"resume": True},
}


@pytest.mark.parametrize("message", SETTINGS)
def test_refuses_settings(fake_numba, toy, message):
    with pytest.raises(TrainingError, match=message):
        train(fake_numba, "numba", toy, **{"epochs": 1, **SETTINGS[message]}, **QUIET)


def test_refuses_hyperparameters_backends_and_schedules(fake_numba, toy, monkeypatch):
    for options, message in (
        ({"momentum": 2.0}, "momentum: expected a number below 1"),
        ({"mass": 2.0}, "mass"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(fake_numba, "numba", toy, epochs=1, hyperparameters=options, **QUIET)
    with pytest.raises(TrainingError, match="'abacus'"):
        train(fake_numba, "abacus", toy, epochs=1, **QUIET)
    monkeypatch.setattr(fake_numba.State, "state_dict", lambda self: {"steps": 0})
    with pytest.raises(TrainingError, match="no learning rate"):
        train(fake_numba, "numba", toy, epochs=1, schedule=lambda epoch: 1.0, **QUIET)


def test_order_of_an_epoch_is_fixed():
    """Values written down, so that another stream of numbers is noticed."""
    assert sample_order(8, seed=0, epoch=0).tolist() == [2, 4, 3, 6, 5, 0, 1, 7]
    assert sample_order(8, seed=0, epoch=1).dtype == np.int64
    assert sorted(sample_order(50, seed=3, epoch=2).tolist()) == list(range(50))


def test_progress_goes_to_the_error_stream(fake_numba, toy, capfd):
    train(fake_numba, "numba", toy, epochs=2, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "epoch 2/2" in err
    assert "100%" in err
    assert "accuracy" in err
