"""What a run measured, epoch by epoch, and its CSV file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sifrc.errors import TrainingError
from sifrc.training.files import replacing

__all__ = ["EpochMetrics", "History"]


@dataclass(frozen=True)
class EpochMetrics:
    """Measurements after one epoch; epoch 0 is before the first step.

    Args:
        epoch: epochs completed.
        seconds: spent in training steps since the first epoch, without evaluation, compilation,
            checkpoints and plots.
        train_objective: mean over the epoch of the objective before each step; NaN for epoch 0.
        train_loss: mean loss over the training part, after the epoch.
        test_loss: the same over the test part.
        train_accuracy: share of right answers over the training part; NaN without classes.
        test_accuracy: the same over the test part.
    """

    epoch: int
    seconds: float
    train_objective: float
    train_loss: float
    test_loss: float
    train_accuracy: float = math.nan
    test_accuracy: float = math.nan


_COLUMNS = tuple(field.name for field in fields(EpochMetrics))


@dataclass(frozen=True)
class History:
    """The metrics of a run, in the order of the epochs.

    Args:
        label: name of the run, for titles.
        rows: one for each epoch, the first for epoch 0.

    Example:
        >>> history = History("esn").appended(EpochMetrics(0, 0.0, math.nan, 2.3, 2.4))
        >>> history.last.test_loss, len(history), history.has_accuracy
        (2.4, 1, False)
    """

    label: str = "run"
    rows: tuple[EpochMetrics, ...] = ()

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __iter__(self) -> Iterator[EpochMetrics]:
        """The rows."""
        return iter(self.rows)

    @property
    def last(self) -> EpochMetrics:
        """The newest row.

        Raises:
            TrainingError: there is none.
        """
        if not self.rows:
            raise TrainingError(f"the history of '{self.label}' is empty")
        return self.rows[-1]

    @property
    def best(self) -> EpochMetrics:
        """The row with the smallest training loss.

        Raises:
            TrainingError: there is none.
        """
        known = [row for row in self.rows if not math.isnan(row.train_loss)]
        return min(known, key=lambda row: row.train_loss) if known else self.last

    @property
    def has_accuracy(self) -> bool:
        """Whether any row has an accuracy."""
        return any(not math.isnan(row.test_accuracy) for row in self.rows)

    def appended(self, row: EpochMetrics) -> History:
        """A history with one more row."""
        return replace(self, rows=(*self.rows, row))

    def column(self, name: str) -> NDArray[np.float64]:
        """One measurement over all epochs, (rows,).

        Raises:
            TrainingError: no measurement has that name.
        """
        if name not in _COLUMNS:
            raise TrainingError(f"unknown measurement '{name}'", hint=f"known: {', '.join(_COLUMNS)}")
        return np.array([getattr(row, name) for row in self.rows], np.float64)

    def array(self) -> NDArray[np.float64]:
        """All numbers, (rows, columns of the CSV file)."""
        shape = len(self.rows), len(_COLUMNS)
        return np.array([astuple(row) for row in self.rows], np.float64).reshape(shape)

    @classmethod
    def from_array(cls, label: str, values: NDArray[np.float64]) -> History:
        """The inverse of :meth:`array`."""
        return cls(label, tuple(_row(line) for line in values.tolist()))

    def write_csv(self, path: Path) -> None:
        """Write the CSV file, as a whole. Numbers are written so that reading gives the same bits.

        An absent measurement is an empty field.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for row in self.rows:
            writer.writerow(["" if math.isnan(value) else repr(value) for value in astuple(row)])
        with replacing(path) as file:
            file.write(text.getvalue().encode())

    @classmethod
    def read_csv(cls, path: Path, label: str = "run") -> History:
        """Read a file that :meth:`write_csv` wrote.

        Raises:
            TrainingError: no such file, or other columns, or an entry that is no number.
        """
        try:
            with open(path, newline="", encoding="utf-8") as file:
                lines = list(csv.reader(file))
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"cannot read {path.name}: {error}") from error
        if not lines or tuple(lines[0]) != _COLUMNS:
            raise TrainingError(
                f"{path.name} is not a metrics file", hint=f"the columns {', '.join(_COLUMNS)}"
            )
        rows = []
        for number, line in enumerate(lines[1:], start=2):
            try:
                if len(line) != len(_COLUMNS):
                    raise ValueError(f"{len(line)} entries")
                rows.append(_row(float(entry) if entry else math.nan for entry in line))
            except ValueError as error:
                raise TrainingError(f"{path.name}, line {number}: {error}") from error
        return cls(label, tuple(rows))


def _row(values: Iterable[float]) -> EpochMetrics:
    """A row from its numbers in the order of the columns."""
    epoch, *others = values
    return EpochMetrics(int(epoch), *others)
