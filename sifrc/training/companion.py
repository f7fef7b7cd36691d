"""What a run may have besides its steps: a curvature batch, a log of summaries, a plateau schedule."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import Location, TrainingError
from sifrc.training.adapters import Trainable, is_periodic
from sifrc.training.periodic import Periodic, record_every
from sifrc.training.plateau import Plateau, PlateauState
from sifrc.training.sampling import CurvatureSampler
from sifrc.training.state import StateTree
from sifrc.training.summaries import SummaryLog
from sifrc.training.summary_plots import interactions_plot, rates_plot

__all__ = [
    "COMPANION_FILES",
    "INTERACTIONS_FILE",
    "RATES_FILE",
    "SUMMARIES",
    "SUMMARIES_FILE",
    "Companion",
    "CompanionMark",
    "Extras",
    "no_curvature_batch",
]

SUMMARIES_FILE = "summaries.npz"
INTERACTIONS_FILE = "interactions.png"
RATES_FILE = "rates.png"
COMPANION_FILES = (SUMMARIES_FILE, INTERACTIONS_FILE, RATES_FILE)

SUMMARIES = 20
"""Summaries recorded in an epoch, at most, where nothing else is asked for."""


@dataclass(frozen=True)
class Extras:
    """Settings of a :class:`Companion`; see :func:`~sifrc.training.train`."""

    curvature_batch: int = 0
    summaries: int | None = None
    plateau: Plateau | None = None


@dataclass(frozen=True)
class CompanionMark:
    """A moment that a :class:`Companion` can go back to.

    Args:
        plateau: what its rule remembers.
        summaries: so far.
        recorded: those in the log.
    """

    plateau: PlateauState
    summaries: int = 0
    recorded: int = 0


def no_curvature_batch(location: Location | None = None) -> TrainingError:
    """The error for a curvature batch that the method has no use for."""
    return TrainingError(
        "this method takes no curvature batch of its own",
        location=location,
        hint="leave out curvature_batch, or use the method grouped_newton",
    )


class Companion:
    """Curvature batches, log and plateau of one run.

    Args:
        trainable: of the run.
        extras: what it has of them.
        samples: of an epoch.
        batch: samples in a step.
        seed: of the run.

    Raises:
        TrainingError: the method has no use for a setting, or a number is out of range.
    """

    def __init__(self, trainable: Trainable, extras: Extras, *, samples: int, batch: int, seed: int) -> None:
        """Check the settings against the method."""
        self._trainable = trainable
        self._plateau = extras.plateau
        self._plateau_state = PlateauState()
        self._steps = -(-samples // batch)
        self._batch = batch
        self._extras = extras
        self._sampler: CurvatureSampler | None = None
        if extras.plateau is not None:
            _ = trainable.learning_rate  # refused before the first step, if there is none
        if extras.curvature_batch < 0:
            raise TrainingError(
                f"a curvature batch of {extras.curvature_batch} samples",
                hint="at least 1, or 0 for the batch of the step",
            )
        if extras.curvature_batch:
            if not (is_periodic(trainable) and trainable.takes_curvature_batch):
                raise no_curvature_batch()
            self._sampler = CurvatureSampler(samples, seed=seed, size=extras.curvature_batch)
        self._periodic = self._start()

    def _start(self) -> Periodic | None:
        """Nothing is done yet; None where the method has nothing that a run could give or take."""
        trainable, most = self._trainable, self._extras.summaries
        if most is not None and most < 0:
            raise TrainingError(f"{most} summaries recorded in an epoch", hint="at least 0")
        groups = trainable.groups if is_periodic(trainable) else {}
        if most and not groups:
            raise TrainingError(
                "this method keeps no summaries to record",
                hint="leave out summaries, or use the method grouped_newton",
            )
        most = SUMMARIES if most is None else most
        log = SummaryLog(groups) if groups and most else None
        if (log is None and self._sampler is None) or not is_periodic(trainable):
            return None
        every = record_every(self._steps, trainable.period, most) if log is not None else 1
        return Periodic(self._sampler, log, every=every, epoch_steps=self._steps)

    @property
    def log(self) -> SummaryLog | None:
        """The summaries so far; None for a method without them, or where none are recorded."""
        return None if self._periodic is None else self._periodic.log

    @property
    def identity(self) -> Mapping[str, str]:
        """What a resumed run must agree in."""
        extras, found = self._extras, {}
        if self._sampler is not None:
            found["curvature batch size"] = str(self._sampler.size)
        if extras.summaries is not None:
            found["number of recorded summaries"] = str(extras.summaries)
        if self._plateau is not None:
            found["plateau"] = repr(self._plateau)
        return MappingProxyType(found)

    def train(
        self,
        inputs: NDArray[Any],
        targets: NDArray[Any],
        order: NDArray[np.int64],
        *,
        epoch: int,
        sample: int,
    ) -> float:
        """Train a chunk that begins at a sample of an epoch; the mean objective."""
        if self._periodic is None:
            return self._trainable.train_chunk(inputs, targets, order, self._batch)
        assert is_periodic(self._trainable)
        self._periodic.begin(epoch * self._steps + sample // self._batch)
        return self._trainable.train_periodic(inputs, targets, order, self._batch, self._periodic)

    def end_epoch(self, train_loss: float) -> None:
        """Lower the learning rate, if the plateau says so."""
        if self._plateau is None:
            return
        self._plateau_state, fallen = self._plateau.after(self._plateau_state, train_loss)
        if fallen:
            self._trainable.set_learning_rate(self._plateau.reduced(self._trainable.learning_rate))

    def mark(self) -> CompanionMark:
        """Where it is now."""
        periodic, log = self._periodic, self.log
        return CompanionMark(
            self._plateau_state,
            0 if periodic is None else periodic.count,
            0 if log is None else len(log),
        )

    def go_back(self, mark: CompanionMark) -> None:
        """Forget what came after a mark. The learning rate is the method's."""
        self._plateau_state = mark.plateau
        if self._periodic is not None:
            self._periodic.count = mark.summaries
            if self.log is not None:
                self._periodic.log = self.log.truncated(mark.recorded)

    def state(self) -> StateTree:
        """For the checkpoint; the log is in a file of its own, and must be saved before."""
        found: dict[str, Any] = {}
        if self._plateau is not None:
            found["plateau"] = {"best": self._plateau_state.best, "bad": self._plateau_state.bad}
        if self._periodic is not None:
            found["summaries"] = self._periodic.count
            if self._sampler is not None:
                found["curvature order"] = self._order_digest()
            if self.log is not None:
                found["recorded"] = len(self.log)
                found["digest"] = self.log.digest()
        return found

    def load_state(self, state: StateTree, directory: Path) -> None:
        """Go on from a checkpoint and the log beside it; records made after the checkpoint are dropped.

        Raises:
            TrainingError: the log is not the one that belongs to the checkpoint, or NumPy draws otherwise.
        """
        if self._plateau is not None:
            self._plateau_state = PlateauState(**state["plateau"])
        if self._periodic is None:
            return
        if self.log is not None:
            # A run that has just begun in the place of another has no log yet.
            found = SummaryLog.load(directory / SUMMARIES_FILE) if state["recorded"] else self.log
            log = found.truncated(state["recorded"])
            if len(log) != state["recorded"] or log.digest() != state["digest"]:
                raise TrainingError(
                    f"{SUMMARIES_FILE} does not belong to the checkpoint", hint="start without resume"
                )
            self._periodic.log = log
        self._periodic.count = state["summaries"]
        if self._sampler is not None and state["curvature order"] != self._order_digest():
            raise TrainingError(
                "this NumPy draws other curvature batches than the one the checkpoint was made with",
                hint="the NumPy it was made with, or start without resume",
            )
        self.save(directory)

    def save(self, directory: Path) -> None:
        """Write the log, if there is one."""
        if self.log is not None:
            self.log.save(directory / SUMMARIES_FILE)

    def draw(self, directory: Path) -> None:
        """Draw what the log has, if anything."""
        if self.log is not None and len(self.log):
            interactions_plot(self.log, directory / INTERACTIONS_FILE)
            rates_plot(self.log, directory / RATES_FILE)

    def _order_digest(self) -> str:
        assert self._sampler is not None and self._periodic is not None
        return hashlib.sha256(self._sampler.order(self._periodic.count).tobytes()).hexdigest()
