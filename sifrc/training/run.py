"""A run in progress: where it is, what it measured, what it has on disk, and where it can go back to."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.data import Dataset
from sifrc.errors import TrainingError, words_of
from sifrc.training.adapters import Trainable
from sifrc.training.checkpoint import (
    CHECKPOINT_FILE,
    Checkpoint,
    Position,
    check_identity,
    load_checkpoint,
    save_checkpoint,
)
from sifrc.training.companion import COMPANION_FILES, Companion, CompanionMark
from sifrc.training.evaluation import measure
from sifrc.training.history import EpochMetrics, History
from sifrc.training.plots import training_plot
from sifrc.training.sampling import chunk_size, order_generator, sample_order
from sifrc.training.settings import RunSettings
from sifrc.training.state import StateTree

__all__ = [
    "CHECKPOINT_FILE",
    "METRICS_FILE",
    "PLOT_FILE",
    "Run",
]

METRICS_FILE = "metrics.csv"
PLOT_FILE = "training.png"

_POINT_SHARE = 20  # at most 1/20 of the time goes into points to go back to


@dataclass(frozen=True, eq=False)
class _Point:
    """A moment between two steps, in memory."""

    parameters: Mapping[str, NDArray[Any]]
    state: StateTree
    companion: CompanionMark
    position: Position
    history: History


class Run:
    """A run in progress.

    What a chunk of training or the end of an epoch leaves half done is never saved: the run first goes
    back to the last point between two steps, of which it keeps one in memory.

    Args:
        trainable: what is trained.
        dataset: on what.
        settings: how.
        companion: what the run has besides its steps.
        label: for titles.
    """

    def __init__(
        self, trainable: Trainable, dataset: Dataset, settings: RunSettings, companion: Companion, label: str
    ) -> None:
        """Nothing is done yet."""
        self._trainable = trainable
        self._companion = companion
        self._data = dataset
        self._settings = settings
        self.samples = len(dataset.train_inputs)
        """Of an epoch."""
        self._chunk = chunk_size(self.samples, settings.batch)
        self._base_rate = trainable.learning_rate if settings.schedule is not None else math.nan
        self.saved: Position | None = None
        """Where the newest checkpoint is; None without one of this run."""
        self._saved_time = -math.inf
        self.ready = False
        """Whether :meth:`prepare` was called."""
        self._torn = False
        self._chunk_begin = 0
        self._point: _Point | None = None
        self._point_time = -math.inf
        self._point_cost = 0.0
        self.position = Position()
        self.history = History(label)
        self._identity = {
            **trainable.identity,
            **companion.identity,
            "data set": dataset.fingerprint,
            "seed": str(settings.seed),
            "batch size": str(settings.batch),
        }
        self._draw_order()

    # -- going on ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: measure before the first step, and leave nothing of an earlier run.

        Its files stay until the first checkpoint of this run is on disk, which belongs to no other file.
        """
        self.history = self.history.appended(measure(self._trainable, self._data, 0, 0.0, math.nan))
        self._keep_point()
        if self._settings.directory is None:
            return
        self._save_checkpoint()
        for name in (PLOT_FILE, *COMPANION_FILES):
            try:
                self._file(name).unlink(missing_ok=True)
            except OSError as error:
                raise TrainingError(
                    f"cannot remove {self._file(name)} of an earlier run: {error.strerror or error}"
                ) from error
        self._write_metrics()
        self._companion.save(self._settings.directory)

    def resume(self) -> None:
        """Go on from the checkpoint; metrics measured after it are dropped."""
        checkpoint = load_checkpoint(self._file(CHECKPOINT_FILE))
        check_identity(checkpoint, self._identity)
        self.position = checkpoint.position
        self._draw_order()
        if checkpoint.random_state != self._random_state:
            raise TrainingError(
                "this NumPy draws another order of samples than the one the checkpoint was made with",
                hint="the NumPy it was made with, or start without resume",
            )
        self._trainable.load_parameters(checkpoint.parameters)
        self._trainable.load_state(checkpoint.state)
        self._companion.load_state(checkpoint.extra, self._file(CHECKPOINT_FILE).parent)
        self.history = replace(checkpoint.history, label=self.history.label)
        self._keep_point()
        self._mark_saved()
        self._write_metrics()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.position.epoch >= self._settings.epochs

    @property
    def epoch_is_trained(self) -> bool:
        """Whether the epoch has no samples left, so that it is to be measured."""
        return self.position.sample == self.samples

    def prepare(self) -> None:
        """Compile what training needs. Parameters and state do not change."""
        data = self._data
        self._trainable.warm_up(data.train_inputs, data.train_targets, self._settings.batch)
        self.ready = True

    def train_chunk(self) -> None:
        """Train up to the end of the chunk.

        Raises:
            FloatingPointError: a step was refused, or the numbers that came out are not finite.
        """
        self._chunk_begin = self.position.sample
        self._train(self._chunk_end())
        self._keep_point(rarely=True)

    def _chunk_end(self) -> int:
        """A run that stopped inside a chunk comes back to the chunks of every other run."""
        return min((self.position.sample // self._chunk + 1) * self._chunk, self.samples)

    def _train(self, end: int) -> None:
        """Train from where the run is up to a sample of the epoch."""
        settings, data, position = self._settings, self._data, self.position
        self._torn = True
        if position.sample == 0 and settings.schedule is not None:
            self._trainable.set_learning_rate(self._base_rate * settings.schedule(position.epoch))
        chosen = self._order[position.sample : end]
        begin = settings.clock()
        objective = self._companion.train(
            data.train_inputs, data.train_targets, chosen, epoch=position.epoch, sample=position.sample
        )
        seconds = position.seconds + settings.clock() - begin
        if not math.isfinite(objective):
            raise FloatingPointError(f"the mean objective is {objective}")
        self.position = replace(
            position,
            sample=end,
            objective=position.objective + objective * len(chosen),
            seconds=seconds,
        )
        self._torn = False

    def finish_epoch(self, measured: EpochMetrics) -> None:
        """Take over what :meth:`measure_epoch` gave, and go to the next epoch."""
        self._torn = True
        self._companion.end_epoch(measured.train_loss)
        self.history = self.history.appended(measured)
        self.position = Position(epoch=self.position.epoch + 1, seconds=self.position.seconds)
        self._draw_order()
        self._torn = False
        self._keep_point()
        if self._settings.directory is not None:
            self._write_metrics()

    def measure_epoch(self) -> EpochMetrics:
        """Measure after the last step of an epoch; nothing changes."""
        done = self.position
        mean = done.objective / self.samples
        return measure(self._trainable, self._data, done.epoch + 1, done.seconds, mean)

    # -- going back ----------------------------------------------------------------------------------

    def _keep_point(self, *, rarely: bool = False) -> None:
        """Keep this moment in memory; ``rarely`` not if copying would take much of the time."""
        begin = time.perf_counter()
        if rarely and begin - self._point_time < _POINT_SHARE * self._point_cost:
            return
        parameters = self._trainable.parameters()
        self._check_finite(parameters)
        self._point = _Point(
            parameters,
            copy.deepcopy(self._trainable.state()),
            self._companion.mark(),
            self.position,
            self.history,
        )
        self._point_time = time.perf_counter()
        self._point_cost = self._point_time - begin

    def _check_finite(self, parameters: Mapping[str, NDArray[Any]]) -> None:
        """Generated steps see to that themselves; other optimizers may not."""
        name = _first_not_finite(parameters)
        if name is not None:
            self._torn = True
            raise FloatingPointError(f"'{name}' has entries that are not finite after a step")

    def _go_back(self) -> None:
        """To the last point."""
        point = self._point
        assert point is not None
        self._torn = True
        self._trainable.load_parameters(point.parameters)
        self._trainable.load_state(copy.deepcopy(point.state))
        self._companion.go_back(point.companion)
        self.position, self.history = point.position, point.history
        self._draw_order()
        self._torn = False

    def settle(self, *, refused: bool) -> None:
        """Come to a moment between two steps, after whatever happened.

        Args:
            refused: a step was refused; the run then takes the steps before it once more, which gives the
                numbers that it had, and stops there.
        """
        if self._point is None or not self._torn:
            return
        begin = self._chunk_begin
        self._go_back()
        if not refused:
            return
        with suppress(FloatingPointError):
            while self.position.sample < begin:
                self._train(self._chunk_end())
            self._keep_point()
            steps = self._steps_before_refusal()
            # An optimizer that does not look at its numbers may have gone wrong a step earlier.
            for count in (steps, steps - 1):
                self._go_back()
                self._train_steps(count)
                if _first_not_finite(self._trainable.parameters()) is None:
                    return
        self._go_back()

    def _steps_before_refusal(self) -> int:
        """Steps of the chunk before one is refused; 0 if this time none is."""
        end, steps = self._chunk_end(), 0
        try:
            while self.position.sample < end:
                self._train_steps(1)
                steps += 1
        except FloatingPointError:
            return steps
        return 0 if _first_not_finite(self._trainable.parameters()) is None else steps

    def _train_steps(self, count: int) -> None:
        for _ in range(count):
            self._train(min(self.position.sample + self._settings.batch, self.samples))

    # -- what is on disk -----------------------------------------------------------------------------

    def save_if_due(self) -> None:
        """Save, if it is time."""
        if time.monotonic() - self._saved_time >= self._settings.checkpoint_every:
            self.save()

    def save(self) -> None:
        """Write log, checkpoint and metrics, in this order: what a checkpoint counts is on disk.

        Without a folder, or where the newest checkpoint is that of this moment, nothing is written.
        """
        if self._settings.directory is None or self.saved == self.position:
            return
        self._companion.save(self._settings.directory)
        self._save_checkpoint()
        self._write_metrics()

    def _save_checkpoint(self) -> None:
        parameters = self._trainable.parameters()
        self._check_finite(parameters)
        checkpoint = Checkpoint(
            identity=self._identity,
            parameters=parameters,
            state=self._trainable.state(),
            position=self.position,
            random_state=self._random_state,
            history=self.history,
            extra=self._companion.state(),
        )
        save_checkpoint(self._file(CHECKPOINT_FILE), checkpoint)
        self._mark_saved()

    def draw(self) -> None:
        """Draw the curves, if anything was measured; where that fails, a warning says why."""
        if self._settings.directory is None or not self.has_begun:
            return
        if find_spec("matplotlib") is None:
            warnings.warn(f"no {PLOT_FILE}: matplotlib is not installed", stacklevel=3)
            return
        try:
            training_plot(self.history, self._file(PLOT_FILE))
            self._companion.draw(self._settings.directory)
        except Exception as error:
            # A picture can be made anew from the files of the run; the run must not end for it.
            warnings.warn(f"not all pictures are drawn: {words_of(error)}", stacklevel=3)

    @property
    def has_begun(self) -> bool:
        """Whether anything was measured."""
        return len(self.history) > 0

    @property
    def has_folder(self) -> bool:
        """Whether the run has a place for files."""
        return self._settings.directory is not None

    # -- parts ---------------------------------------------------------------------------------------

    def _draw_order(self) -> None:
        """The order of the epoch, and what tells it from those of another NumPy: its generator and digest."""
        epoch, seed = self.position.epoch, self._settings.seed
        self._order = sample_order(self.samples, seed=seed, epoch=epoch)
        state = order_generator(seed, epoch).bit_generator.state
        order = hashlib.sha256(self._order.tobytes()).hexdigest()
        self._random_state = json.dumps({"generator": state, "order": order}, sort_keys=True)

    def _write_metrics(self) -> None:
        self.history.write_csv(self._file(METRICS_FILE))

    def _mark_saved(self) -> None:
        self.saved = self.position
        self._saved_time = time.monotonic()

    def _file(self, name: str) -> Path:
        assert self._settings.directory is not None
        return self._settings.directory / name


def _first_not_finite(parameters: Mapping[str, NDArray[Any]]) -> str | None:
    """The name of the first parameter with an entry that is no number."""
    return next((name for name, value in parameters.items() if not np.isfinite(value).all()), None)
