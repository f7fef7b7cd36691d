"""Runs in processes of their own, forked so that they start at once, and what is done to them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runs_workloads import outcome_of

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 900.0  # seconds until a process counts as hanging


@dataclass
class Child:
    """A forked process."""

    pid: int
    pipe: int
    begin: float

    def signal(self, number: int) -> None:
        """Send a signal; one to a process that has ended is lost."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def result(self) -> tuple[str, str]:
        """Wait for the end: ``killed``, or what the child said of itself."""
        content = b""
        limit = time.monotonic() + PATIENCE
        os.set_blocking(self.pipe, False)
        while True:
            try:
                part = os.read(self.pipe, 65536)
            except BlockingIOError:
                if time.monotonic() > limit:
                    self.signal(signal.SIGKILL)
                    os.waitpid(self.pid, 0)
                    os.close(self.pipe)
                    return "raw", "the process hangs"
                time.sleep(0.002)
                continue
            if not part:
                break
            content += part
        os.close(self.pipe)
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            return "killed", signal.Signals(os.WTERMSIG(status)).name
        if not content:
            return "raw", f"exit code {os.WEXITSTATUS(status)} without a word"
        kind, text = json.loads(content)
        return kind, text


def fork(work: Callable[[], Any]) -> Child:
    """Start a call in a process of its own, as the main program of a terminal would run it."""
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    # Signals that come before the call or after it wait: they would hit the harness.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(writer)
        return Child(pid, reader, time.monotonic())
    code = 1
    try:
        os.close(reader)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        found = outcome_of(lambda: _heard(work))
        os.write(writer, json.dumps(found).encode())
        code = 0
    finally:
        os._exit(code)


def _heard(work: Callable[[], Any]) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        work()
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def seconds_of(work: Callable[[], Any]) -> float:
    """How long a call takes in a child."""
    begin = time.monotonic()
    kind, text = fork(work).result()
    if kind != "complete":
        raise RuntimeError(f"a run that nothing was done to: {kind}, {text}")
    return time.monotonic() - begin
