"""Ctrl-C during training: finish the current chunk, save, and stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["TrainingInterrupted", "deferred_interrupt"]


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by the user; the text says how far it is and how to go on."""


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag and leave the second one as it is.

    An exception in the middle of a step would leave parameters that belong to no step, which
    must not be saved. Outside the main thread, and where a program has its own handler, nothing
    changes.

    Yields:
        A function that tells whether Ctrl-C was pressed.

    Example:
        >>> import os, signal
        >>> with deferred_interrupt() as interrupted:
        ...     os.kill(os.getpid(), signal.SIGINT)
        ...     interrupted()
        True
    """
    pressed = threading.Event()
    usual = signal.default_int_handler

    def handle(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            usual(number, frame)
        pressed.set()

    installs = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is usual
    )
    if installs:
        signal.signal(signal.SIGINT, handle)
    try:
        yield pressed.is_set
    finally:
        if installs:
            signal.signal(signal.SIGINT, usual)
