"""What tests of runs on generated modules share."""

from contextlib import contextmanager

import pytest


@contextmanager
def plain_python(backend):
    """Without Numba's compiler, which takes longer than the test."""
    if backend != "numba":
        yield
        return
    numba = pytest.importorskip("numba")
    before, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, True
    try:
        yield
    finally:
        numba.config.DISABLE_JIT = before


def stop_after(trainable, count):
    """Ctrl-C, after so many chunks of either kind, before a step of the next one."""
    calls = []

    def stopping(usual):
        def train(*arguments):
            calls.append(1)
            if len(calls) > count:
                raise KeyboardInterrupt
            return usual(*arguments)

        return train

    for name in ("train_chunk", "train_periodic"):
        if hasattr(trainable, name):
            setattr(trainable, name, stopping(getattr(trainable, name)))
    return trainable
