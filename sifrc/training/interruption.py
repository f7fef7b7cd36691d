"""Signals that stop a run: Ctrl-C, and what a system sends before it ends a process or closes a terminal.

Stopping in the middle of a step would leave parameters that belong to no step. The first signal is
therefore a flag, which the loop reads between two chunks; where nothing can be torn it raises at once.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from types import FrameType
from typing import Any

__all__ = ["Signals", "TrainingInterrupted", "caught_signals"]


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by a signal; the text says how far it is and how to go on.

    Args:
        message: for people.
        number: of the signal.
    """

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        """Keep the arguments."""
        super().__init__(message)
        self.number = number


_NEVER = -1e9
_UNWINDING = 0.2  # seconds after a signal has raised in which another one does not


class _Mode(Enum):
    FLAG = "the first one is noted, the next one raises"
    RAISE = "raises at once"
    HOLD = "is noted"


class Signals:
    """What came in so far, and what the next signal does."""

    def __init__(self) -> None:
        """Nothing came in."""
        self.number: int = signal.SIGINT
        """Of the newest signal."""
        self.pending = False
        """Whether one came in to which nobody has answered."""
        self._mode = _Mode.FLAG
        self._raised = _NEVER

    @property
    def raised(self) -> bool:
        """Whether a signal has raised to which nobody has answered."""
        return self.pending and self._raised > _NEVER

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        again, self.number, self.pending = self.pending, number, True
        raises = self._mode is _Mode.RAISE or (self._mode is _Mode.FLAG and again)
        # A key that is held down must not interrupt the way from the first exception to who catches it.
        if raises and time.monotonic() - self._raised > _UNWINDING:
            self._raised = time.monotonic()
            if self._mode is _Mode.RAISE:
                _thread.start_new_thread(self._insist, ())
            raise KeyboardInterrupt

    def _insist(self) -> None:
        """Raise once more, if the exception got lost: Python drops those of callbacks, as compilers have."""
        time.sleep(1.5 * _UNWINDING)
        if self.pending and self._mode is _Mode.RAISE:
            _thread.interrupt_main(signal.Signals(self.number))

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In the block nothing can be torn, and nobody has to wait: a signal raises."""
        usual = sys.unraisablehook

        def report(lost: Any) -> None:
            if not issubclass(lost.exc_type, KeyboardInterrupt):
                usual(lost)

        with self._in(_Mode.RAISE):
            if self.pending:
                raise KeyboardInterrupt
            sys.unraisablehook = report
            try:
                yield
            finally:
                sys.unraisablehook = usual

    @contextmanager
    def held(self) -> Iterator[None]:
        """In the block nothing is interrupted."""
        with self._in(_Mode.HOLD):
            yield

    def answered(self) -> None:
        """What came in has been heard; from here on nothing is interrupted, but in :meth:`at_once`."""
        self.pending, self._mode = False, _Mode.HOLD

    @contextmanager
    def _in(self, mode: _Mode) -> Iterator[None]:
        before, self._mode = self._mode, mode
        try:
            yield
        finally:
            self._mode = before


@contextmanager
def caught_signals() -> Iterator[Signals]:
    """Catch Ctrl-C, SIGTERM and SIGHUP in the block.

    Outside the main thread, and for signals that a program handles or ignores, nothing changes.

    Example:
        >>> import os
        >>> with caught_signals() as signals:
        ...     os.kill(os.getpid(), signal.SIGTERM)
        ...     signals.pending
        True
    """
    signals = Signals()
    usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if hasattr(signal, "SIGHUP"):
        usual[signal.SIGHUP] = signal.SIG_DFL
    installed = []
    try:
        if threading.current_thread() is threading.main_thread():
            for number, handler in usual.items():
                if signal.getsignal(number) == handler:
                    installed.append(number)
                    signal.signal(number, signals.handle)
        yield signals
    finally:
        for number in installed:
            signal.signal(number, usual[number])
