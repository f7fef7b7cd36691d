"""The progress bar of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from sifrc.training.checkpoint import Position
from sifrc.training.history import History

__all__ = ["Progress", "training_progress"]


class Progress:
    """What a run says about itself while it goes on; nothing without a bar."""

    def __init__(self, bar: Any = None, task: Any = None, samples: int = 1, epochs: int = 1) -> None:
        """Keep the arguments."""
        self._bar = bar
        self._task = task
        self._samples = samples
        self._epochs = epochs

    def show(self, position: Position, history: History) -> None:
        """How far the run is, and what it measured last."""
        done = position.epoch * self._samples + position.sample
        epoch = min(self._epochs, position.epoch + 1)
        self._update(completed=done, epoch=epoch, text=_measured(history))

    def doing(self, text: str) -> None:
        """What takes time now, besides training; until the next call of :meth:`show`."""
        self._update(text=text)

    def _update(self, **fields: Any) -> None:
        if self._bar is not None:
            # A terminal that is gone ends no run.
            with suppress(OSError):
                self._bar.update(self._task, **fields)


@contextmanager
def training_progress(enabled: bool, epochs: int, samples: int) -> Iterator[Progress]:
    """Show a bar on the error stream, so that standard output stays free for results.

    Args:
        enabled: False shows nothing.
        epochs: of the run.
        samples: of an epoch.
    """
    if not enabled:
        yield Progress()
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.SpinnerColumn(),
        rich.TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
        rich.BarColumn(bar_width=16),
        rich.TaskProgressColumn(),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[text]}"),
    )
    bar = rich.Progress(*columns, console=Console(stderr=True))
    with ExitStack() as stack:
        # The bar draws when it starts, at intervals and when it ends.
        with suppress(OSError):
            bar.start()
        stack.callback(_stop, bar)
        task = bar.add_task("training", total=epochs * samples, epoch=0, epochs=epochs, text="")
        yield Progress(bar, task, samples, epochs)


def _stop(bar: Any) -> None:
    with suppress(OSError):
        bar.stop()


def _measured(history: History) -> str:
    """The newest loss, and the accuracy if there is one; short enough for 80 columns."""
    if not history.rows:
        return ""
    text = f"test loss {history.last.test_loss:.4g}"
    return f"{text}  accuracy {history.last.test_accuracy:.2%}" if history.has_accuracy else text
