"""A bar on the error stream for what takes longer than two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["PATIENCE", "Watch"]

PATIENCE = 2.0
"""Seconds before a bar is shown."""


class Watch:
    """Shows how far the outermost work is that goes on; what is done within it shows nothing.

    Args:
        enabled: False shows nothing. A bar is drawn where the error stream is a terminal.

    Example:
        >>> with Watch(enabled=False).steps("products", 3) as done:
        ...     for _ in range(3):
        ...         done()
    """

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled
        self._busy = False

    @contextmanager
    def steps(self, text: str, total: int | None) -> Iterator[Callable[[], None]]:
        """A function to call after each step.

        Args:
            text: what is done.
            total: steps, or None where nobody knows; then they are counted.
        """
        if self._busy or not self._enabled or not sys.stderr.isatty():
            yield lambda: None
            return
        self._busy = True
        bar = _Bar(text, total)
        try:
            yield bar.step
        finally:
            self._busy = False
            bar.stop()


class _Bar:
    """A bar that begins to be drawn when the work has taken a while."""

    def __init__(self, text: str, total: int | None) -> None:
        self._text, self._total = text, total
        self._begun, self._done = time.monotonic(), 0
        self._bar: Any = None
        self._task: Any = None

    def step(self) -> None:
        self._done += 1
        if self._bar is None:
            if time.monotonic() - self._begun < PATIENCE:
                return
            self._start()
        with suppress(OSError):  # a terminal that is gone ends no computation
            self._bar.update(self._task, completed=self._done)

    def _start(self) -> None:
        from rich import progress as rich
        from rich.console import Console

        columns = (
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(bar_width=24),
            rich.TextColumn("{task.completed:.0f}") if self._total is None else rich.MofNCompleteColumn(),
            rich.TimeElapsedColumn(),
        )
        self._bar = rich.Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self._text, total=self._total)
        with suppress(OSError):
            self._bar.start()

    def stop(self) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.stop()
