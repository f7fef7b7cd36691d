"""Every way a run can end: what is saved is a moment between two steps, and the run goes on from it."""

import errno
import math
import os
import signal
import sys
import time

import numpy as np
import pytest
from test_training_resume import SETTINGS, assert_same_run

from sifrc.errors import TrainingError
from sifrc.training import (
    History,
    NumbaTrainable,
    TrainingInterrupted,
    fit,
    make_trainable,
    sample_order,
    train,
)
from sifrc.training.checkpoint import load_checkpoint

NEVER = {**SETTINGS, "checkpoint_every": math.inf}


@pytest.fixture
def whole(tmp_path, fake_numba, toy):
    """The folder of a run that nobody stopped."""
    train(fake_numba, "numba", toy, directory=tmp_path / "whole", **SETTINGS)
    return tmp_path / "whole"


def at_call(number, usual, action):
    """A function that does something else at one of its calls."""
    calls = []

    def called(*arguments, **options):
        calls.append(1)
        if len(calls) == number:
            action(*arguments)
        return usual(*arguments, **options)

    return called


def throwing(error, torn=True):
    def throw(params, *others):
        if torn:
            params["fc1.weight"] += 1  # what a torn step leaves
        raise error

    return throw


def pressing(number, times=1):
    """Signals to this process."""

    def press(*arguments):
        for _ in range(times):
            os.kill(os.getpid(), number)

    return press


def test_before_a_refused_step_everything_is_saved(tmp_path, fake_numba, toy):
    """Step 190 of 143 an epoch is refused; the oracle takes 190 steps by hand."""
    with pytest.raises(
        TrainingError, match=r"saved in checkpoint\.npz, after 1 epoch and 329 samples; .* start"
    ):
        train(fake_numba, "numba", toy, directory=tmp_path, hyperparameters={"break_at": 190}, **NEVER)
    params = fake_numba.init(11)
    state = fake_numba.State(params)
    total = 0.0
    for epoch, count in ((0, 143), (1, 47)):
        order, total = sample_order(1000, seed=11, epoch=epoch), 0.0
        for start in range(0, 7 * count, 7):
            chosen = order[start : start + 7]
            total += len(chosen) * fake_numba.step(
                params, state, toy.train_inputs[chosen], toy.train_targets[chosen]
            )
    saved = load_checkpoint(tmp_path / "checkpoint.npz")
    for key, value in params.items():
        assert saved.parameters[key].tobytes() == value.tobytes()
    for key, value in state.state_dict().items():
        assert np.asarray(saved.state[key]).tobytes() == np.asarray(value).tobytes()
    assert saved.position.objective == pytest.approx(total, rel=1e-13)
    assert [row.epoch for row in History.read_csv(tmp_path / "metrics.csv")] == [0, 1]


def test_a_refused_run_goes_on_when_the_reason_is_gone(tmp_path, fake_numba, toy, whole, monkeypatch):
    usual = fake_numba.step

    def step(params, state, *data):
        if state.steps == 190:
            raise FloatingPointError("layer fc1: the update of the weight is not finite")
        return usual(params, state, *data)

    monkeypatch.setattr(fake_numba, "step", step)
    for again in (False, True):  # with the reason still there it comes to the same place
        with pytest.raises(TrainingError, match="after 1 epoch and 329 samples"):
            train(fake_numba, "numba", toy, directory=tmp_path / "cut", resume=again, **NEVER)
    monkeypatch.setattr(fake_numba, "step", usual)
    train(fake_numba, "numba", toy, directory=tmp_path / "cut", resume=True, **NEVER)
    a, b = (load_checkpoint(folder / "checkpoint.npz") for folder in (whole, tmp_path / "cut"))
    for key, value in a.parameters.items():
        assert value.tobytes() == b.parameters[key].tobytes()
    assert a.history.column("test_loss").tobytes() == b.history.column("test_loss").tobytes()
    # The mean over a chunk that was cut is summed in another order.
    np.testing.assert_allclose(
        a.history.column("train_objective")[1:], b.history.column("train_objective")[1:], rtol=1e-14
    )


def test_an_optimizer_that_lets_infinity_through_stops_before_it(tmp_path, fake_torch, toy, monkeypatch):
    """Gradient descent whose rate explodes in step 31: neither in the folder nor in the model is a NaN."""
    import torch

    usual, calls = fake_torch.Optimizer.step, []

    @torch.no_grad()
    def step(self, *data):
        objective = usual(self, *data)
        if self.state[self.param_groups[0]["params"][0]]["step"] == 32:
            for parameter in self.param_groups[0]["params"]:
                parameter.mul_(math.nan)
        return objective

    monkeypatch.setattr(fake_torch.Optimizer, "step", step)
    run = make_trainable(fake_torch, "torch")
    with pytest.raises(TrainingError, match=r"epoch 1: (?s:.*) after 0 epochs and 217 samples"):
        fit(run, toy, directory=tmp_path, **NEVER)
    saved = load_checkpoint(tmp_path / "checkpoint.npz")
    assert saved.position.sample == 31 * 7
    for values in (saved.parameters, run.parameters()):
        assert all(np.isfinite(value).all() for value in values.values())
    assert not calls


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the module is broken"),
        KeyError("x"),
        MemoryError(),
        ValueError("targets: expected classes"),
        TrainingError("of something inside"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("place", ["train_epoch", "loss", "predict"])
def test_errors_save_and_say_so(tmp_path, fake_numba, toy, whole, monkeypatch, error, place):
    """In the middle of a chunk, or while measuring: one error, its cause, and the run goes on."""
    inside = place == "train_epoch"
    owner = fake_numba if inside else NumbaTrainable
    action = throwing(error) if inside else throwing(error, torn=False)
    with monkeypatch.context() as patch:
        patch.setattr(owner, place, at_call(7, getattr(owner, place), action))
        with pytest.raises(TrainingError, match=r"saved in checkpoint\.npz, after . epoch") as caught:
            train(fake_numba, "numba", toy, directory=tmp_path / "cut", **NEVER)
    assert caught.value.__cause__ is error
    where = "in epoch 2:" if inside else "in the measurement after epoch 3"
    text = error.message if isinstance(error, TrainingError) else str(error)
    assert f"training stopped {where}" in str(caught.value) and text in str(caught.value)
    assert isinstance(error, MemoryError) == ("out of memory" in str(caught.value))
    train(fake_numba, "numba", toy, directory=tmp_path / "cut", resume=True, **NEVER)
    assert_same_run(whole, tmp_path / "cut")


def test_an_exit_is_not_held_up_but_saved(tmp_path, fake_numba, toy, whole, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(fake_numba, "train_epoch", at_call(7, fake_numba.train_epoch, throwing(SystemExit(3))))
        with pytest.raises(SystemExit) as caught:
            train(fake_numba, "numba", toy, directory=tmp_path / "cut", **NEVER)
    assert caught.value.code == 3
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.npz").position.epoch == 1
    train(fake_numba, "numba", toy, directory=tmp_path / "cut", resume=True, **NEVER)
    assert_same_run(whole, tmp_path / "cut")


CASES = [(place, signal.SIGINT) for place in ("train_epoch", "loss", "fsync", "warm_up")]
CASES += [("train_epoch", signal.SIGTERM), ("train_epoch", signal.SIGHUP)]


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(("place", "number"), CASES)
def test_signals_anywhere(tmp_path, fake_numba, toy, whole, monkeypatch, place, number, times):
    """Once or more, in a chunk, while measuring, while saving, while compiling: saved, and said."""
    press = pressing(number, times)
    with monkeypatch.context() as patch:
        if place == "fsync":
            patch.setattr(os, "fsync", at_call(9, os.fsync, press))
        else:
            owner = fake_numba if place == "train_epoch" else NumbaTrainable
            count = {"warm_up": 1, "train_epoch": 7, "loss": 5}[place]
            patch.setattr(owner, place, at_call(count, getattr(owner, place), press))
        with pytest.raises(TrainingInterrupted, match=r"saved in checkpoint\.npz.* resume") as caught:
            train(fake_numba, "numba", toy, directory=tmp_path / "cut", **{**SETTINGS, "checkpoint_every": 0})
    assert caught.value.number == number
    assert number.name in str(caught.value) or (
        number == signal.SIGINT and "interrupted" in str(caught.value)
    )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(fake_numba, "numba", toy, directory=tmp_path / "cut", resume=True, **NEVER)
    assert_same_run(whole, tmp_path / "cut")


def test_signals_that_a_program_handles_or_ignores_are_its_own(tmp_path, fake_numba, toy, monkeypatch):
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        press = pressing(signal.SIGHUP)
        monkeypatch.setattr(fake_numba, "train_epoch", at_call(3, fake_numba.train_epoch, press))
        assert len(train(fake_numba, "numba", toy, directory=tmp_path, **NEVER)) == 4
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def full_disk(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("file", ["checkpoint.npz", "metrics.csv"])
def test_a_full_disk_leaves_the_last_good_files(tmp_path, fake_numba, toy, whole, monkeypatch, file):
    cut = tmp_path / "cut"
    usual, calls = os.replace, []

    def replace(source, target):
        if target.name == file:
            calls.append(1)
            if len(calls) >= 3:
                full_disk()
        usual(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(TrainingError, match=rf"cannot write .*{file}: No space left on device") as caught:
            train(fake_numba, "numba", toy, directory=cut, **{**SETTINGS, "checkpoint_every": 0})
    assert "checkpoint.npz, after" in str(caught.value)
    assert sorted(path.name for path in cut.iterdir()) == ["checkpoint.npz", "metrics.csv"]
    train(fake_numba, "numba", toy, directory=cut, resume=True, **NEVER)
    assert_same_run(whole, cut)


def test_a_run_that_cannot_start_leaves_the_one_before(tmp_path, fake_numba, toy, whole, monkeypatch):
    """Its files go when the first checkpoint of the new run is there, not before."""
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        with pytest.raises(TrainingError, match="No space left"):
            train(fake_numba, "numba", toy, directory=whole, **{**NEVER, "seed": 5})
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before


def test_pictures_that_cannot_be_drawn_are_a_warning(tmp_path, fake_numba, toy, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("sifrc.training.run.training_plot", lambda *arguments: full_disk())
    with pytest.warns(UserWarning, match=r"not all pictures are drawn: .*No space left"):
        history = train(fake_numba, "numba", toy, directory=tmp_path, **NEVER)
    assert len(history) == 4 and load_checkpoint(tmp_path / "checkpoint.npz").position.epoch == 3


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no locks there")
def test_one_run_in_a_folder_at_a_time(tmp_path, fake_numba, toy, whole, monkeypatch):
    """The second one is refused and changes nothing; afterwards the folder is free."""
    refused = []

    def second(*arguments):
        with pytest.raises(TrainingError, match="another run is using the folder"):
            train(fake_numba, "numba", toy, directory=tmp_path / "cut", **{**NEVER, "seed": 5})
        refused.append(1)

    with monkeypatch.context() as patch:
        patch.setattr(fake_numba, "train_epoch", at_call(7, fake_numba.train_epoch, second))
        train(fake_numba, "numba", toy, directory=tmp_path / "cut", **NEVER)
    assert refused
    assert_same_run(whole, tmp_path / "cut")
    train(fake_numba, "numba", toy, directory=tmp_path / "cut", resume=True, **NEVER)


def test_checkpoints_come_as_often_as_asked(tmp_path, fake_numba, toy, monkeypatch):
    """0: after each of the 12 chunks, and at the start; infinity: at the start and at the end."""
    usual, counts = os.replace, []
    for seconds in (0, math.inf):
        counts.append(0)

        def replace(source, target):
            counts[-1] += target.name == "checkpoint.npz"
            usual(source, target)

        monkeypatch.setattr(os, "replace", replace)
        train(fake_numba, "numba", toy, directory=tmp_path, checkpoint_every=seconds, **SETTINGS)
    assert counts == [13, 2]


def test_interrupted_before_anything_was_trained(tmp_path, fake_numba, toy, monkeypatch):
    monkeypatch.setattr(fake_numba, "loss", at_call(1, fake_numba.loss, pressing(signal.SIGINT)))
    with pytest.raises(TrainingInterrupted, match="before the first step; nothing was trained"):
        train(fake_numba, "numba", toy, directory=tmp_path, **NEVER)
    assert not list(tmp_path.iterdir())


def test_a_run_that_has_lost_what_it_had_learned_says_so(fake_numba, toy, monkeypatch):
    losses = iter([2.0, 2.0, 1e-6, 0.1, 2.2, 2.3, 1.5, 1.6])  # of training part and test part in turn
    monkeypatch.setattr(NumbaTrainable, "loss", lambda *arguments: next(losses))
    with pytest.warns(UserWarning, match=r"was 1e-06 after epoch 1 and is 1.5 after epoch 3"):
        train(fake_numba, "numba", toy, **SETTINGS)


class Finalised:
    """Its finaliser gets a signal whose exception Python drops, as in callbacks while Numba compiles."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):
            time.sleep(0)  # here it is raised


def test_ctrl_c_that_a_callback_swallows_is_heard_all_the_same(tmp_path, fake_numba, toy, monkeypatch, capfd):
    """It is raised once more."""

    def compile_for_long(*arguments):
        Finalised()
        for _ in range(1000):
            time.sleep(0.01)

    monkeypatch.setattr(NumbaTrainable, "warm_up", compile_for_long)
    begin = time.monotonic()
    with pytest.raises(TrainingInterrupted, match="in epoch 1, after 0 of 1000 samples"):
        train(fake_numba, "numba", toy, directory=tmp_path, **NEVER)
    assert time.monotonic() - begin < 8
    assert "KeyboardInterrupt" not in capfd.readouterr().err


@pytest.mark.parametrize("place", ["loss", "warm_up"])
def test_ctrl_c_that_breaks_a_compiler_is_an_interruption(
    place, tmp_path, fake_numba, toy, monkeypatch, capfd
):
    """The compiler misses what the dropped callback should have done, and ends in an error of its own."""

    def compile_and_break(*arguments):
        Finalised()
        raise RuntimeError("no compiled object yet")

    monkeypatch.setattr(NumbaTrainable, place, compile_and_break)
    with pytest.raises(TrainingInterrupted, match=r"before the first step|after 0 of 1000 samples") as error:
        train(fake_numba, "numba", toy, directory=tmp_path, **NEVER)
    assert isinstance(error.value.__cause__, RuntimeError)
    assert "KeyboardInterrupt" not in capfd.readouterr().err
