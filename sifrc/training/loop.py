"""The training loop.

An epoch is trained in chunks, so that the bar moves, Ctrl-C is heard, and a checkpoint can fall
inside it. Nothing that decides a number depends on the clock or on what happened before a resume:
the order of epoch e is drawn by a generator seeded with (seed, e), and the chunks of an epoch are
the same in every run. A run that is killed and resumed therefore gives the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from numpy.typing import NDArray

from sifrc.data import Dataset
from sifrc.errors import TrainingError
from sifrc.training.adapters import Trainable, make_trainable
from sifrc.training.checkpoint import CHECKPOINT_FILE
from sifrc.training.companion import Companion, Extras
from sifrc.training.ending import stopped, warn_of_loss
from sifrc.training.files import run_directory
from sifrc.training.history import History
from sifrc.training.interruption import Signals, caught_signals
from sifrc.training.plateau import Plateau
from sifrc.training.progress import Progress, training_progress
from sifrc.training.run import METRICS_FILE, PLOT_FILE, Run
from sifrc.training.sampling import sample_order
from sifrc.training.settings import RunSettings, Schedule

__all__ = ["CHECKPOINT_FILE", "METRICS_FILE", "PLOT_FILE", "Schedule", "fit", "sample_order", "train"]


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
        backend: ``numba``, ``cuda`` or ``torch``.
        dataset: to train and test on.
        epochs: the run is complete after this many; a resumed run may ask for more.
        batch: samples in a step.
        seed: of the initial parameters and of the orders of the samples.
        directory: for ``checkpoint.npz``, ``metrics.csv`` and ``training.png``, those of an earlier
            run are replaced; None writes nothing. With summaries also ``summaries.npz``
            (:class:`~sifrc.training.SummaryLog`), ``interactions.png`` and ``rates.png``.
        resume: go on from the checkpoint in ``directory``.
        checkpoint_every: seconds between checkpoints, 0 for one after each chunk, infinity for none;
            there is always one at the start, and one wherever the run ends: after the last epoch,
            before a step that is refused, and when a signal or an error stops it.
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
        TrainingError: a setting does not fit, the checkpoint belongs to another run, another run uses the
            directory, a file cannot be written, a step was refused because a number is not finite, or
            anything else went wrong in the run, which is then its cause. What can be saved is saved.
        TrainingInterrupted: Ctrl-C, SIGTERM or SIGHUP; a checkpoint is saved.
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
    with (
        run_directory(None if directory is None else Path(directory)) as folder,
        caught_signals() as signals,
        training_progress(progress, epochs, samples) as bar,
    ):
        settings = RunSettings(epochs, batch, seed, folder, checkpoint_every, schedule, clock)
        run = Run(trainable, dataset, settings, companion, label)
        try:
            _go_through(run, signals, bar, resume=resume)
        except BaseException as error:
            # A compiler that loses the exception of a signal ends in one of its own.
            lost = signals.raised and isinstance(error, Exception)
            signals.answered()
            outcome = stopped(run, KeyboardInterrupt() if lost else error, signals.number)
            if run.saved is not None:
                bar.doing("drawing")
                # Whoever cannot wait presses Ctrl-C again; what counts is saved.
                with suppress(KeyboardInterrupt), signals.at_once():
                    run.draw()
            if outcome is error:
                raise
            raise outcome from error
        return run.history


def _go_through(run: Run, signals: Signals, bar: Progress, *, resume: bool) -> None:
    """A run from its start, or its checkpoint, to its end."""
    bar.doing("measuring")
    with signals.at_once():
        run.resume() if resume else run.start()
    while not run.complete:
        bar.show(run.position, run.history)
        if not run.epoch_is_trained:
            if not run.ready:
                bar.doing("compiling")
                with signals.at_once():
                    run.prepare()
                bar.show(run.position, run.history)
            run.train_chunk()
        if run.epoch_is_trained:
            bar.doing("measuring")
            with signals.at_once():
                measured = run.measure_epoch()
            run.finish_epoch(measured)
        if signals.pending:
            raise KeyboardInterrupt
        with signals.held():
            run.save_if_due()
    bar.show(run.position, run.history)
    with signals.held():
        run.save()
    bar.doing("drawing")
    with signals.at_once():
        run.draw()
    bar.show(run.position, run.history)
    warn_of_loss(run.history)


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
