"""The progress bar of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sifrc.training.checkpoint import Position
from sifrc.training.history import History

__all__ = ["training_progress"]


@contextmanager
def training_progress(
    enabled: bool, epochs: int, samples: int
) -> Iterator[Callable[[Position, History], None]]:
    """Show a bar on the error stream, so that standard output stays free for results.

    Args:
        enabled: False shows nothing.
        epochs: of the run.
        samples: of an epoch.

    Yields:
        A function to call with the position and the metrics so far.
    """
    if not enabled:
        yield lambda position, history: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[measured]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=epochs * samples, epoch=0, epochs=epochs, measured="")

        def show(position: Position, history: History) -> None:
            done = position.epoch * samples + position.sample
            epoch = min(epochs, position.epoch + 1)
            bar.update(task, completed=done, epoch=epoch, measured=_measured(history))

        yield show


def _measured(history: History) -> str:
    """The newest loss, and the accuracy if there is one; short enough for 80 columns."""
    if not history.rows:
        return ""
    text = f"test loss {history.last.test_loss:.4g}"
    return f"{text}  accuracy {history.last.test_accuracy:.2%}" if history.has_accuracy else text
