"""Methods with a part that runs every few steps: a batch of its own for it, and a record of what it found."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sifrc.training.sampling import CurvatureSampler
from sifrc.training.summaries import SummaryLog, summary_of

__all__ = ["Periodic", "record_every"]


class Periodic:
    """Goes along with the steps of a run: gives the batches for summaries, and keeps a log of them.

    Which summary gets which batch, and which are recorded, depends only on how many there were before.

    Args:
        sampler: of the batches; None for the batch of the step.
        log: to append to; None records nothing.
        every: record every so many summaries, the first of the run among them.
        epoch_steps: steps of an epoch.
        count: summaries so far.
    """

    def __init__(
        self,
        sampler: CurvatureSampler | None,
        log: SummaryLog | None,
        *,
        every: int = 1,
        epoch_steps: int = 1,
        count: int = 0,
    ) -> None:
        """Keep the arguments."""
        self.log = log
        self.count = count
        self.step = 0
        self._sampler = sampler
        self._every = every
        self._epoch_steps = epoch_steps

    @property
    def size(self) -> int:
        """Samples of a batch for a summary; 0 for those of the step."""
        return 0 if self._sampler is None else self._sampler.size

    def begin(self, step: int) -> None:
        """A chunk begins after so many steps of the run."""
        self.step = step

    def until_record(self) -> int:
        """How many summaries from the next one on, up to the next that is recorded, that one included."""
        return sys.maxsize if self.log is None else -self.count % self._every + 1

    def positions(self, number: int) -> NDArray[np.int64] | None:
        """Samples for the next summaries, (number · size,), which then count as done; None for the step's."""
        first, self.count = self.count, self.count + number
        return None if self._sampler is None or number == 0 else self._sampler.batches(first, number)

    def found(self, offset: int, source: Any) -> None:
        """Record the newest summary of a state or an optimizer, if it is one of those to record.

        Args:
            offset: steps of the chunk before the one it was computed in.
            source: see :func:`~sifrc.training.summaries.summary_of`.
        """
        if self.log is None or (self.count - 1) % self._every:
            return
        step = self.step + offset
        self.log.append(summary_of(source), step=step, epoch=step / self._epoch_steps)


def record_every(steps: int, period: int, most: int) -> int:
    """The ``every`` of :class:`Periodic` with which an epoch has at most ``most`` records.

    Example:
        >>> record_every(600, 10, 20), record_every(100, 10, 20)
        (3, 1)
    """
    return max(1, math.ceil(math.ceil(steps / period) / most))
