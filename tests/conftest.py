"""Puts this folder on the path, so that tests share ``cases`` and ``strategies``."""

from __future__ import annotations

import gc
import signal

from hypothesis import settings

# A run in the background of a shell inherits that Ctrl-C is ignored; tests send it to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Libraries and collected tests stay to the end: the garbage collector need not look at them again."""
    gc.freeze()


# Every machine draws the same examples, and no verdict depends on how fast it is.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")
