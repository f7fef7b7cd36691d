"""A run that was stopped, whatever stopped it, ends in the same bits as one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import sifrc
from sifrc.errors import TrainingError
from sifrc.training import History, TrainingInterrupted, train
from sifrc.training.checkpoint import load_checkpoint

HERE = Path(__file__).parent
PACKAGE_PARENT = Path(next(iter(sifrc.__path__))).parent
SETTINGS = {"epochs": 3, "batch": 7, "seed": 11, "progress": False}


def assert_same_run(directory, other):
    """Parameters, method state, position and metrics agree in every bit; only the clock may differ."""
    a, b = (load_checkpoint(d / "checkpoint.npz") for d in (directory, other))
    assert a.parameters.keys() == b.parameters.keys()
    for key, value in a.parameters.items():
        assert value.tobytes() == b.parameters[key].tobytes(), key
    assert a.state.keys() == b.state.keys()
    for key, value in a.state.items():
        assert np.asarray(value).tobytes() == np.asarray(b.state[key]).tobytes(), key
        assert type(value) is type(b.state[key]), key
    assert (a.position.epoch, a.position.sample) == (b.position.epoch, b.position.sample)
    assert a.random_state == b.random_state
    for d, checkpoint in ((directory, a), (other, b)):
        assert History.read_csv(d / "metrics.csv").array().tobytes() == checkpoint.history.array().tobytes()
    for column in ("epoch", "train_objective", "train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        assert a.history.column(column).tobytes() == b.history.column(column).tobytes(), column


def checkpoint_stamp(directory):
    try:
        status = (directory / "checkpoint.npz").stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


@pytest.mark.timeout(120)
def test_killed_and_resumed_run_is_bit_identical(tmp_path, fake_numba, toy):
    """SIGKILL after a random number of checkpoints and at a random moment of the next chunk."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(fake_numba, "numba", toy, directory=whole, **SETTINGS)
    killed.mkdir()
    arrays = toy.train_inputs, toy.train_targets, toy.test_inputs, toy.test_targets
    np.savez(killed / "toy.npz", *arrays)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(PACKAGE_PARENT), str(HERE)]),
        "FAKE_CHUNK_SECONDS": "0.03",
        "OMP_NUM_THREADS": "1",
    }
    moment = random.Random(20240607)
    kills, inside, arguments = 0, 0, []
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, str(HERE / "killed_run.py"), str(killed), *arguments], env=environment
        )
        stamp, seen, wanted = checkpoint_stamp(killed), 0, moment.randint(2, 4)
        while process.poll() is None and seen < wanted:
            time.sleep(0.001)
            if checkpoint_stamp(killed) != stamp:
                stamp, seen = checkpoint_stamp(killed), seen + 1
        time.sleep(moment.uniform(0, 0.04))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        inside += load_checkpoint(killed / "checkpoint.npz").position.sample > 0
        arguments = ["resume"]
    assert process.returncode == 0
    assert kills >= 2, "the run was too short to be killed"
    assert inside >= 1, "no kill fell inside an epoch"
    assert_same_run(whole, killed)


def test_interrupt_saves_a_checkpoint_and_resumes(tmp_path, fake_numba, toy, monkeypatch):
    """Ctrl-C in the middle of a chunk: the chunk is finished and saved."""
    train(fake_numba, "numba", toy, directory=tmp_path / "whole", **SETTINGS)
    usual, calls = fake_numba.train_epoch, []

    def pressed(params, state, inputs, targets, order, batch=1):
        calls.append(len(order))
        if len(calls) == 7:  # the first call warms up; four chunks are an epoch
            os.kill(os.getpid(), signal.SIGINT)
        return usual(params, state, inputs, targets, order, batch)

    monkeypatch.setattr(fake_numba, "train_epoch", pressed)
    with pytest.raises(TrainingInterrupted, match=r"epoch 2.*checkpoint\.npz.*resume"):
        train(fake_numba, "numba", toy, directory=tmp_path / "cut", checkpoint_every=1e9, **SETTINGS)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    position = load_checkpoint(tmp_path / "cut" / "checkpoint.npz").position
    assert (position.epoch, position.sample) == (1, 2 * 259)
    train(fake_numba, "numba", toy, directory=tmp_path / "cut", resume=True, **SETTINGS)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_exception_inside_a_step_saves_nothing_half_done(tmp_path, fake_numba, toy, monkeypatch):
    """A KeyboardInterrupt that leaves a chunk half trained must not reach the checkpoint."""
    train(fake_numba, "numba", toy, directory=tmp_path / "whole", **SETTINGS)
    usual, calls = fake_numba.train_epoch, []

    def torn(params, state, inputs, targets, order, batch=1):
        calls.append(1)
        if len(calls) == 5:
            params["fc1.weight"] += 1
            raise KeyboardInterrupt
        return usual(params, state, inputs, targets, order, batch)

    monkeypatch.setattr(fake_numba, "train_epoch", torn)
    with pytest.raises(TrainingInterrupted, match="after 0 epochs and 777 samples"):
        train(fake_numba, "numba", toy, directory=tmp_path / "cut", checkpoint_every=0, **SETTINGS)
    train(fake_numba, "numba", toy, directory=tmp_path / "cut", resume=True, **SETTINGS)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_longer_run_from_a_complete_one(tmp_path, fake_numba, toy):
    """Two epochs, resumed for a third, are three epochs; a complete run does not train again."""
    train(fake_numba, "numba", toy, directory=tmp_path / "whole", **SETTINGS)
    train(fake_numba, "numba", toy, directory=tmp_path / "parts", **{**SETTINGS, "epochs": 2})
    history = train(fake_numba, "numba", toy, directory=tmp_path / "parts", resume=True, **SETTINGS)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    again = train(fake_numba, "numba", toy, directory=tmp_path / "parts", resume=True, **SETTINGS)
    assert again.rows[1:] == history.rows[1:]
    assert len(again) == 4


def test_schedule_survives_a_resume(tmp_path, fake_numba, toy):
    """The factor applies to the rate the method started with, not to the one it was saved with."""
    rate = {"schedule": lambda epoch: 0.5**epoch}
    train(fake_numba, "numba", toy, directory=tmp_path / "whole", **rate, **SETTINGS)
    train(fake_numba, "numba", toy, directory=tmp_path / "parts", **rate, **{**SETTINGS, "epochs": 2})
    train(fake_numba, "numba", toy, directory=tmp_path / "parts", resume=True, **rate, **SETTINGS)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    state = load_checkpoint(tmp_path / "whole" / "checkpoint.npz").state
    assert state["learning_rate"] == 0.05 * 0.25


def test_metrics_after_the_checkpoint_are_dropped(tmp_path, fake_numba, toy):
    """The CSV file may be ahead of the checkpoint when a process is killed; resuming cuts it."""
    train(fake_numba, "numba", toy, directory=tmp_path, **{**SETTINGS, "epochs": 1})
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "2,9.0,9.0,9.0,9.0,0.1,0.1\n3,9.0,9")
    train(fake_numba, "numba", toy, directory=tmp_path, resume=True, **{**SETTINGS, "epochs": 2})
    rows = History.read_csv(path).rows
    assert [row.epoch for row in rows] == [0, 1, 2]
    assert rows[2].seconds < 9


CHANGES = {
    "another data set": lambda s, m, d: d.train_inputs.__setitem__((0, 0), 42.0),
    "another spec": lambda s, m, d: m.SPEC.update(name="other"),
    "another seed: 11, not 12": lambda s, m, d: s.update(seed=12),
    "another batch size: 7, not 8": lambda s, m, d: s.update(batch=8),
    "hyperparameters: the defaults, not momentum=0.4": lambda s, m, d: s.update(
        hyperparameters={"momentum": 0.4}
    ),
}


@pytest.mark.parametrize("message", CHANGES)
def test_refuses_to_resume_another_run(tmp_path, fake_numba, toy, message):
    settings = dict(SETTINGS)
    train(fake_numba, "numba", toy, directory=tmp_path, **{**settings, "epochs": 1})
    toy.__dict__.pop("fingerprint")
    CHANGES[message](settings, fake_numba, toy)
    with pytest.raises(TrainingError, match=message):
        train(fake_numba, "numba", toy, directory=tmp_path, resume=True, **settings)


def test_refuses_missing_damaged_and_pickled_checkpoints(tmp_path, fake_numba, toy):
    def resume():
        train(fake_numba, "numba", toy, directory=tmp_path, resume=True, **SETTINGS)

    with pytest.raises(TrainingError, match="no checkpoint"):
        resume()
    train(fake_numba, "numba", toy, directory=tmp_path, **{**SETTINGS, "epochs": 1})
    path = tmp_path / "checkpoint.npz"
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"PK\3\4nonsense"):
        path.write_bytes(damaged)
        with pytest.raises(TrainingError, match="damaged"):
            resume()
    np.savez(path, meta=np.array([{"format": 1}], dtype=object))
    with pytest.raises(TrainingError, match="damaged"):
        resume()


def test_fresh_run_replaces_an_earlier_one(tmp_path, fake_numba, toy, draws):
    """A new run in the same folder starts anew, and nothing of the old one can be resumed."""
    train(fake_numba, "numba", toy, directory=tmp_path / "a", **SETTINGS)
    train(fake_numba, "numba", toy, directory=tmp_path / "a", **{**SETTINGS, "seed": 5})
    train(fake_numba, "numba", toy, directory=tmp_path / "b", **{**SETTINGS, "seed": 5})
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "checkpoint.npz",
        "metrics.csv",
        "training.png",
    ]
