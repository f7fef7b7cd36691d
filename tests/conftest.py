"""Puts this folder on the path, so that tests share ``cases`` and ``strategies``."""

from __future__ import annotations

import gc
import signal

# A run in the background of a shell inherits that Ctrl-C is ignored; tests send it to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Libraries and collected tests stay to the end: the garbage collector need not look at them again."""
    gc.freeze()
