"""The training loop.

An epoch is trained in chunks, so that the bar moves, Ctrl-C is heard, and a checkpoint can fall
inside it. Nothing that decides a number depends on the clock or on what happened before a resume:
the order of epoch e is drawn by a generator seeded with (seed, e), and the chunks of an epoch are
the same in every run. A run that is killed and resumed therefore gives the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.data import Dataset
from sifrc.errors import TrainingError
from sifrc.training.adapters import Trainable, make_trainable
from sifrc.training.checkpoint import (
    Checkpoint,
    Position,
    check_identity,
    load_checkpoint,
    save_checkpoint,
)
from sifrc.training.companion import COMPANION_FILES, Companion, Extras
from sifrc.training.files import run_directory
from sifrc.training.history import EpochMetrics, History
from sifrc.training.interruption import TrainingInterrupted, deferred_interrupt
from sifrc.training.plateau import Plateau
from sifrc.training.plots import training_plot
from sifrc.training.progress import training_progress
from sifrc.training.sampling import chunk_size, order_generator, sample_order

__all__ = ["CHECKPOINT_FILE", "METRICS_FILE", "PLOT_FILE", "Schedule", "fit", "sample_order", "train"]

CHECKPOINT_FILE = "checkpoint.npz"
METRICS_FILE = "metrics.csv"
PLOT_FILE = "training.png"

Schedule = Callable[[int], float]
"""Factor of the learning rate in an epoch, counted from 0."""


def train(
    module: ModuleType,
    backend: str,
    dataset: Dataset,
    *,
    epochs: int,
    batch: int = 1,
    seed: int = 0,
    directory: Path | None = None,
    resume: bool = False,
    checkpoint_every: float = 30.0,
    progress: bool = True,
    schedule: Schedule | None = None,
    curvature_batch: int = 0,
    plateau: Plateau | None = None,
    summaries: int | None = None,
    initial: Mapping[str, NDArray[Any]] | None = None,
    hyperparameters: Mapping[str, Any] = MappingProxyType({}),
    label: str = "run",
) -> History:
    """Train a generated module.

    Args:
        module: generated for the backend.
        backend: ``numba`` or ``torch``.
        dataset: to train and test on.
        epochs: the run is complete after this many; a resumed run may ask for more.
        batch: samples in a step.
        seed: of the initial parameters and of the orders of the samples.
        directory: for ``checkpoint.npz``, ``metrics.csv`` and ``training.png``, those of an earlier
            run are replaced; None writes nothing. With summaries also ``summaries.npz``
            (:class:`~sifrc.training.SummaryLog`), ``interactions.png`` and ``rates.png``.
        resume: go on from the checkpoint in ``directory``.
        checkpoint_every: seconds between checkpoints, 0 for one after each chunk; there is always
            one at the start, at the end and after Ctrl-C.
        progress: show a bar on the error stream.
        schedule: factor of the learning rate for each epoch.
        curvature_batch: samples of a batch of its own for the periodic part of the method, at most
            all of the training set; 0 for the batch of the step.
        plateau: lower the learning rate when the training loss of the epochs falls no more.
        summaries: of the method, recorded in an epoch at most, 0 for none; 20 where it keeps any.
        initial: parameters to start from.
        hyperparameters: of the method, by name.
        label: of the run in plots.

    Returns:
        The metrics of all epochs, those before a resume among them.

    Raises:
        TrainingError: a setting does not fit, the checkpoint belongs to another run, or a step was
            refused because a number is not finite.
        TrainingInterrupted: Ctrl-C; a checkpoint is saved.
    """
    trainable = make_trainable(module, backend, seed=seed, initial=initial, hyperparameters=hyperparameters)
    return fit(
        trainable,
        dataset,
        epochs=epochs,
        batch=batch,
        seed=seed,
        directory=directory,
        resume=resume,
        checkpoint_every=checkpoint_every,
        progress=progress,
        schedule=schedule,
        curvature_batch=curvature_batch,
        plateau=plateau,
        summaries=summaries,
        label=label,
    )


def fit(
    trainable: Trainable,
    dataset: Dataset,
    *,
    epochs: int,
    batch: int = 1,
    seed: int = 0,
    directory: Path | None = None,
    resume: bool = False,
    checkpoint_every: float = 30.0,
    progress: bool = True,
    schedule: Schedule | None = None,
    curvature_batch: int = 0,
    plateau: Plateau | None = None,
    summaries: int | None = None,
    label: str = "run",
    clock: Callable[[], float] = time.perf_counter,
) -> History:
    """Train anything that is :class:`~sifrc.training.adapters.Trainable`; see :func:`train`.

    ``clock`` gives the seconds of the metrics; with one thread on a machine that does other work too,
    :func:`time.process_time` is the fairer one.
    """
    samples = len(dataset.train_inputs)
    _check_settings(samples, epochs, batch, seed, checkpoint_every, resume, directory)
    if schedule is not None and plateau is not None:
        raise TrainingError("both a schedule and a plateau set the learning rate", hint="give one of them")
    extras = Extras(curvature_batch, summaries, plateau)
    companion = Companion(trainable, extras, samples=samples, batch=batch, seed=seed)
    folder = run_directory(Path(directory)) if directory is not None else None
    settings = _Settings(epochs, batch, seed, folder, checkpoint_every, schedule, clock)
    run = _Run(trainable, dataset, settings, companion, label)
    with deferred_interrupt() as interrupted, training_progress(progress, epochs, samples) as show:
        try:
            run.resume() if resume else run.start()
            while True:
                show(run.position, run.history)
                if interrupted():
                    run.save()
                    run.draw()
                    raise KeyboardInterrupt
                if run.position.epoch >= epochs:
                    break
                run.advance()
        except FloatingPointError as error:
            run.draw()
            raise TrainingError(
                f"training stopped in epoch {run.position.epoch + 1}: {error}",
                hint=f"{run.last_checkpoint()}; a smaller learning rate or more damping may help",
            ) from error
        except KeyboardInterrupt as error:
            raise TrainingInterrupted(
                f"interrupted in epoch {run.position.epoch + 1}, after {run.position.sample} of {samples} "
                f"samples; {run.last_checkpoint()}"
            ) from error
    if not run.saved_at(run.position):
        run.save()
    run.draw()
    return run.history


@dataclass(frozen=True)
class _Settings:
    """The arguments of :func:`fit` that a run keeps."""

    epochs: int
    batch: int
    seed: int
    directory: Path | None
    checkpoint_every: float
    schedule: Schedule | None
    clock: Callable[[], float]


class _Run:
    """A run in progress: where it is, what it measured, and what it has on disk."""

    def __init__(
        self, trainable: Trainable, dataset: Dataset, settings: _Settings, companion: Companion, label: str
    ) -> None:
        self._trainable = trainable
        self._companion = companion
        self._data = dataset
        self._settings = settings
        self._samples = len(dataset.train_inputs)
        self._chunk = chunk_size(self._samples, settings.batch)
        self._base_rate = trainable.learning_rate if settings.schedule is not None else math.nan
        self._saved: Position | None = None
        self._saved_time = -math.inf
        self._ready = False
        self.position = Position()
        self.history = History(label)
        self._order = self._draw_order()

    def start(self) -> None:
        """Begin: leave nothing of an earlier run, and measure before the first step."""
        if self._settings.directory is not None:
            for name in (CHECKPOINT_FILE, METRICS_FILE, PLOT_FILE, *COMPANION_FILES):
                self._file(name).unlink(missing_ok=True)
        self.history = self.history.appended(self._measure(0, 0.0, math.nan))
        self.save()

    def resume(self) -> None:
        """Go on from the checkpoint; metrics measured after it are dropped."""
        checkpoint = load_checkpoint(self._file(CHECKPOINT_FILE))
        check_identity(checkpoint, self._identity())
        self.position = checkpoint.position
        self._order = self._draw_order()
        if checkpoint.random_state != self._random_state():
            raise TrainingError(
                "this NumPy draws another order of samples than the one the checkpoint was made with",
                hint="the NumPy it was made with, or start without resume",
            )
        self._trainable.load_parameters(checkpoint.parameters)
        self._trainable.load_state(checkpoint.state)
        self._companion.load_state(checkpoint.extra, self._file(CHECKPOINT_FILE).parent)
        self.history = replace(checkpoint.history, label=self.history.label)
        self._mark_saved()
        self.history.write_csv(self._file(METRICS_FILE))

    def advance(self) -> None:
        """Train one chunk; at the end of the epoch measure; save if it is time."""
        settings, data, position = self._settings, self._data, self.position
        if not self._ready:
            self._trainable.warm_up(data.train_inputs, data.train_targets, settings.batch)
            self._ready = True
        if position.sample == 0 and settings.schedule is not None:
            self._trainable.set_learning_rate(self._base_rate * settings.schedule(position.epoch))
        chosen = self._order[position.sample : position.sample + self._chunk]
        begin = settings.clock()
        objective = self._companion.train(
            data.train_inputs, data.train_targets, chosen, epoch=position.epoch, sample=position.sample
        )
        seconds = position.seconds + settings.clock() - begin
        if not math.isfinite(objective):
            raise FloatingPointError(f"the mean objective is {objective}")
        done = replace(
            position,
            sample=position.sample + len(chosen),
            objective=position.objective + objective * len(chosen),
            seconds=seconds,
        )
        if done.sample == self._samples:
            mean = done.objective / self._samples
            self.history = self.history.appended(self._measure(done.epoch + 1, seconds, mean))
            self._companion.end_epoch(self.history.last.train_loss)
            done = Position(epoch=done.epoch + 1, seconds=seconds)
            self._write_metrics()
        self.position = done
        if done.sample == 0:
            self._order = self._draw_order()
        if time.monotonic() - self._saved_time >= settings.checkpoint_every:
            self.save()

    def save(self) -> None:
        """Write metrics, log and checkpoint, in this order: what a checkpoint counts is on disk."""
        if self._settings.directory is None:
            return
        self._write_metrics()
        self._companion.save(self._settings.directory)
        checkpoint = Checkpoint(
            identity=self._identity(),
            parameters=self._trainable.parameters(),
            state=self._trainable.state(),
            position=self.position,
            random_state=self._random_state(),
            history=self.history,
            extra=self._companion.state(),
        )
        save_checkpoint(self._file(CHECKPOINT_FILE), checkpoint)
        self._mark_saved()

    def draw(self) -> None:
        """Draw the curves, if anything was measured; without matplotlib say that there are none."""
        if self._settings.directory is None or not len(self.history):
            return
        if find_spec("matplotlib") is None:
            warnings.warn(f"no {PLOT_FILE}: matplotlib is not installed", stacklevel=3)
            return
        training_plot(self.history, self._file(PLOT_FILE))
        self._companion.draw(self._settings.directory)

    def saved_at(self, position: Position) -> bool:
        """Whether the newest checkpoint is at a position."""
        return self._saved == position

    def last_checkpoint(self) -> str:
        """Where the newest checkpoint is, in words."""
        if self._saved is None:
            return "there is no checkpoint"
        epoch, sample = self._saved.epoch, self._saved.sample
        inside = f" and {sample} samples" if sample else ""
        return (
            f"the last good checkpoint is {CHECKPOINT_FILE}, after {epoch} epochs{inside}; "
            "a run with resume goes on from there"
        )

    def _measure(self, epoch: int, seconds: float, objective: float) -> EpochMetrics:
        """Loss and accuracy over both parts."""
        train_loss, train_accuracy = self._evaluate(self._data.train_inputs, self._data.train_targets)
        test_loss, test_accuracy = self._evaluate(self._data.test_inputs, self._data.test_targets)
        return EpochMetrics(epoch, seconds, objective, train_loss, test_loss, train_accuracy, test_accuracy)

    def _evaluate(self, inputs: NDArray[Any], targets: NDArray[Any]) -> tuple[float, float]:
        """Mean loss, and the share of samples whose largest output is that of their class."""
        loss = self._trainable.loss(inputs, targets)
        if self._data.classes is None:
            return loss, math.nan
        outputs = self._trainable.predict(inputs)
        if outputs.shape[1] != self._data.classes:
            return loss, math.nan
        labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
        return loss, float((outputs.argmax(axis=1) == labels).mean())

    def _identity(self) -> dict[str, str]:
        """What a resumed run must agree in."""
        return {
            **self._trainable.identity,
            **self._companion.identity,
            "data set": self._data.fingerprint,
            "seed": str(self._settings.seed),
            "batch size": str(self._settings.batch),
        }

    def _draw_order(self) -> NDArray[np.int64]:
        return sample_order(self._samples, seed=self._settings.seed, epoch=self.position.epoch)

    def _random_state(self) -> str:
        """The generator before it drew the current order, and the order's digest."""
        state = order_generator(self._settings.seed, self.position.epoch).bit_generator.state
        order = hashlib.sha256(self._order.tobytes()).hexdigest()
        return json.dumps({"generator": state, "order": order}, sort_keys=True)

    def _write_metrics(self) -> None:
        if self._settings.directory is not None:
            self.history.write_csv(self._file(METRICS_FILE))

    def _mark_saved(self) -> None:
        self._saved = self.position
        self._saved_time = time.monotonic()

    def _file(self, name: str) -> Path:
        assert self._settings.directory is not None
        return self._settings.directory / name


def _check_settings(
    samples: int,
    epochs: int,
    batch: int,
    seed: int,
    checkpoint_every: float,
    resume: bool,
    directory: Path | None,
) -> None:
    """Refuse settings that cannot be meant."""
    if epochs < 1:
        raise TrainingError(f"cannot train for {epochs} epochs", hint="at least 1")
    if not 1 <= batch <= samples:
        raise TrainingError(f"batches of {batch} samples", hint=f"1 to {samples}, the training samples")
    if seed < 0:
        raise TrainingError(f"the seed is {seed}", hint="a whole number of at least 0")
    if not checkpoint_every >= 0:
        raise TrainingError(f"a checkpoint every {checkpoint_every} seconds", hint="at least 0")
    if resume and directory is None:
        raise TrainingError("cannot resume without a folder", hint="the folder of the run to go on with")
