"""Puts this folder on the path, so that tests share ``cases`` and ``strategies``."""

from __future__ import annotations

import gc
import signal

from hypothesis import settings

# A run in the background of a shell inherits that signals are ignored; tests send them to themselves.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_collection_finish() -> None:
    """Libraries and collected tests stay to the end: the garbage collector need not look at them again."""
    gc.freeze()
    gc.set_threshold(50_000)


# Every machine draws the same examples, and no verdict depends on how fast it is.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")
