"""Notices what a compiler of data must never do: run text, start processes, write files.

Python's audit events are heard for as long as a watch is on. A limit of processor time ends what hangs.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

__all__ = ["Hang", "Watch", "limited"]

_ROOTS = tuple({str(Path(os.__file__).parent), str(Path(__file__).resolve().parents[2]), sys.prefix})
_FORBIDDEN = (
    *("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"),
    *("socket.connect", "socket.bind", "urllib.Request", "ctypes.dlopen", "pickle.find_class", "pty.spawn"),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.link", "os.symlink", "os.truncate"),
    *("shutil.rmtree", "shutil.copyfile", "shutil.move", "os.putenv", "sys.addaudithook", "webbrowser.open"),
)


class Hang(BaseException):
    """More processor time than one item may take; no ``except Exception`` catches it."""


class Watch:
    """Audit events of one process; installed once, and heard while on.

    Args:
        allowed: top-level names of modules that may be imported while on, besides those loaded before.
    """

    def __init__(self, allowed: frozenset[str] = frozenset({"sifrc", "sympy", "numpy", "mpmath"})) -> None:
        self.seen: list[str] = []
        self.text = ""
        self._on = False
        self._allowed = allowed
        sys.addaudithook(self._hear)

    @contextmanager
    def on(self, text: str) -> Iterator[None]:
        """Hear events while the block runs; ``text`` is the spec, which names what must not be imported."""
        self.seen, self.text, self._on = [], text, True
        try:
            yield
        finally:
            self._on = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        try:
            found = self._judged(event, arguments)
        except Exception as error:
            found = f"{event}: {type(error).__name__}"
        if found is not None:
            self.seen.append(found)

    def _judged(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        if event in _FORBIDDEN:
            return f"{event} {arguments[:1]!r}"
        if event == "exec" and isinstance(arguments[0], CodeType):
            name = arguments[0].co_filename
            known = name.startswith(_ROOTS) or name.startswith(("<frozen", "<string>", "<sympy"))
            return None if known else f"exec of {name}"
        if event == "import":
            top = str(arguments[0]).partition(".")[0]
            return f"import of {arguments[0]}" if top not in self._allowed and top in self.text else None
        if event == "open":
            path, mode, flags = (*arguments, None, None)[:3]
            if isinstance(path, int):
                return None
            writes = isinstance(mode, str) and any(c in mode for c in "wax+")
            writes = writes or (
                mode is None and isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
            )
            if writes:
                return f"open for writing of {path!r}"
            inside = isinstance(path, str) and len(path) > 3 and path in self.text
            return f"open of {path!r}, which the spec names" if inside else None
        return None


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise :class:`Hang` after so much processor time of this process."""

    def end(number: int, frame: Any) -> None:
        raise Hang(f"more than {seconds:g} s")

    before, began = signal.signal(signal.SIGPROF, end), time.process_time()
    left = signal.setitimer(signal.ITIMER_PROF, seconds)[0]
    try:
        yield
    finally:
        # A limit around this one goes on.
        rest = max(left - (time.process_time() - began), 1e-3) if left else 0
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        signal.setitimer(signal.ITIMER_PROF, rest)
