"""Processes for the rows of the benchmark of GPUs: started, watched, and ended where they take too long."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Child", "in_parallel", "in_turn"]

Record = dict[str, Any]
HERE = Path(__file__).resolve().parent


@dataclass
class Child:
    """A process that runs rows.

    Args:
        rows: in their order.
        asked: what it is told besides.
        limit: seconds for each row.
        log: file for what it prints.
        threads: of libraries on the CPU; as many as they like by default.
    """

    rows: Sequence[str]
    asked: Mapping[str, Any]
    limit: float
    log: Path
    threads: int | None = None
    results: dict[str, list[Record]] = field(default_factory=dict)
    _begun: str | None = None
    _since: float = field(default_factory=time.monotonic)
    _read: int = 0

    def __post_init__(self) -> None:
        """Start it, in a group of its own: compilers that it starts end with it."""
        self.found = self.log.with_suffix(".found")
        self.found.write_text("", encoding="utf-8")
        text = json.dumps({**self.asked, "rows": list(self.rows), "found": str(self.found)})
        environment = os.environ | {
            "PYTHONPATH": f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        }
        environment.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")
        if self.threads is not None:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "gpu_child.py"), text],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def running(self, end: float) -> bool:
        """Look after it; whether it goes on."""
        ended = self.process.poll() is not None
        self._look()
        if ended:
            if len(self.results) < len(self.rows) and self._begun not in self.results:
                row = self._begun or self.rows[0]
                self.results[row] = [self._broken(f"the process ended with code {self.process.returncode}")]
            return False
        now = time.monotonic()
        late = now - self._since > self.limit
        if late or now > end:
            self.stop()
            self._look()
            row = self._begun if self._begun is not None else self.rows[0]
            if row not in self.results:
                seconds = now - self._since
                why = f"not done after {seconds:.0f} s" if late else "no time was left"
                self.results[row] = [self._broken(why)]
            return False
        return True

    def stop(self) -> None:
        """End it, and what it has started."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _look(self) -> None:
        """What it has written since the last look."""
        text = self.found.read_text(encoding="utf-8")
        whole = text[self._read : text.rfind("\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            if entry.get("begun"):
                self._begun, self._since = entry["row"], time.monotonic()
            else:
                self.results[entry["row"]] = entry["records"] + [{"what": "row", "took": entry["took"]}]
                if not self.asked["prepare"]:
                    print(f"{entry['row']}: {entry['took']:.0f} s", flush=True)

    def _broken(self, why: str) -> Record:
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-4000:]
        return {"what": "row", "error": why, "traceback": tail}


def in_turn(
    rows: Sequence[str], asked: Mapping[str, Any], limit: float, end: float, logs: Path
) -> dict[str, list[Record]]:
    """Rows in one process; where it breaks, the next one goes on with the row after."""
    found: dict[str, list[Record]] = {}
    left = list(rows)
    while left and time.monotonic() < end:
        child = Child(left, asked, limit, logs / f"turn{len(found)}.log")
        try:
            while child.running(end):
                time.sleep(0.05)
        finally:
            child.stop()
        found |= child.results
        left = [row for row in left if row not in found]
    return found | {row: [{"what": "row", "error": "not run: no time was left"}] for row in left}


def in_parallel(
    groups: Sequence[tuple[Sequence[str], Mapping[str, Any]]],
    most: int,
    limit: float,
    end: float,
    logs: Path,
) -> list[dict[str, list[Record]]]:
    """Groups of rows, a process for each and so many at a time; what each found."""
    found: list[dict[str, list[Record]]] = [{} for _ in groups]
    waiting = list(enumerate(groups))
    running: dict[int, Child] = {}
    try:
        _all_run(waiting, running, found, most, limit, end, logs)
    finally:
        for child in running.values():
            child.stop()
    for number, (rows, _) in enumerate(groups):
        for row in rows:
            found[number].setdefault(row, [{"what": "row", "error": "not run: no time was left"}])
    return found


def _all_run(
    waiting: list[tuple[int, tuple[Sequence[str], Mapping[str, Any]]]],
    running: dict[int, Child],
    found: list[dict[str, list[Record]]],
    most: int,
    limit: float,
    end: float,
    logs: Path,
) -> None:
    while waiting or running:
        while waiting and len(running) < most and time.monotonic() < end:
            number, (rows, asked) = waiting.pop(0)
            # Compiling may take all the time that there is.
            own = math.inf if asked["prepare"] else limit
            running[number] = Child(rows, asked, own, logs / f"parallel{number}.log", threads=2)
        for number, child in list(running.items()):
            if not child.running(end):
                found[number] = child.results
                del running[number]
        if time.monotonic() >= end and not running:
            break
        time.sleep(0.05)
