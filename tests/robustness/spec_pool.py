"""Seeds worked on by several processes; one that dies is a finding, and work goes on without its seed."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import queue
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from spec_findings import Finding, Tally

__all__ = ["Chunk", "Work", "work_on"]

Work: TypeAlias = Callable[[int], Tally]
"""Does one seed."""

_GIB = 2**30
_PR_SET_PDEATHSIG = 1
_STUCK = 600.0
"""Seconds of the clock after which a process that shows no sign is ended: it sleeps, or is inside C code."""


@dataclass(frozen=True)
class Chunk:
    """Seeds that were done together.

    Args:
        start, stop: from the first to before the last.
        tally: of all of them.
    """

    start: int
    stop: int
    tally: Tally


@dataclass
class _Job:
    start: int
    stop: int
    skipped: set[int] = field(default_factory=set)


def _serve(prepare: Callable[[], Work], memory: int, jobs: Any, results: Any, current: Any) -> None:
    """A process of the pool: chunks in, tallies out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):
        # Where the pool is killed, its processes go with it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (memory * _GIB, memory * _GIB))
    work = prepare()
    gc.freeze()
    gc.set_threshold(50_000)  # a tenth of the time goes into collections otherwise
    while True:
        job = jobs.get()
        if job is None:
            return
        tally = Tally()
        for seed in range(job.start, job.stop):
            if seed in job.skipped:
                continue
            current.value = seed
            done = work(seed)
            tally.counts.update(done.counts)
            tally.findings += done.findings
        current.value = -1
        results.put(Chunk(job.start, job.stop, tally))


class _Worker:
    """One process with the pipes to it."""

    def __init__(self, context: Any, prepare: Callable[[], Work], memory: int) -> None:
        self.jobs, self.results = context.SimpleQueue(), context.Queue()
        self.current = context.Value("q", -1, lock=False)
        self.process = context.Process(
            target=_serve, args=(prepare, memory, self.jobs, self.results, self.current), daemon=True
        )
        self.process.start()
        self.job: _Job | None = None
        self.seen, self.since = -1, time.monotonic()

    def give(self, job: _Job) -> None:
        self.job, self.seen, self.since = job, -1, time.monotonic()
        self.jobs.put(job)

    def stuck(self) -> bool:
        now = self.current.value
        if now != self.seen:
            self.seen, self.since = now, time.monotonic()
        return time.monotonic() - self.since > _STUCK

    def end(self) -> None:
        if self.process.is_alive() and self.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()


def work_on(
    prepare: Callable[[], Work],
    start: int,
    count: int,
    *,
    chunk: int,
    processes: int,
    minutes: float | None = None,
    memory: int = 4,
) -> Iterator[Chunk]:
    """Do seeds from ``start`` on in the order of chunks, and yield each chunk as it is done.

    Args:
        prepare: makes the work, once in each process; importable by name.
        start, count: seeds.
        chunk: seeds given to a process together.
        processes: how many.
        minutes: after which no more chunks are given.
        memory: GiB of addresses that a process may have.
    """
    context = multiprocessing.get_context("spawn")
    ends = None if minutes is None else time.monotonic() + 60 * minutes
    waiting = iter(range(start, start + count, chunk))
    workers = [_Worker(context, prepare, memory) for _ in range(processes)]
    again: list[_Job] = []
    try:
        while True:
            for index, worker in enumerate(workers):
                if worker.job is None:
                    worker_job = _next(again, waiting, start + count, chunk, ends)
                    if worker_job is not None:
                        worker.give(worker_job)
                    continue
                with suppress(queue.Empty):
                    yield worker.results.get_nowait()
                    worker.job = None
                    continue
                dead = not worker.process.is_alive()
                if dead or worker.stuck():
                    workers[index] = _Worker(context, prepare, memory)
                    yield from _after(worker, dead, again)
            if all(worker.job is None for worker in workers) and not again:
                upcoming = _next(again, waiting, start + count, chunk, ends)
                if upcoming is None:
                    return
                again.append(upcoming)
            time.sleep(0.01)
    finally:
        for worker in workers:
            worker.end()


def _next(
    again: list[_Job], waiting: Iterator[int], stop: int, chunk: int, ends: float | None
) -> _Job | None:
    if again:
        return again.pop()
    if ends is not None and time.monotonic() > ends:
        return None
    first = next(waiting, None)
    return None if first is None else _Job(first, min(first + chunk, stop))


def _after(worker: _Worker, dead: bool, again: list[_Job]) -> Iterator[Chunk]:
    """The finding of a process that ended or had to be, and its chunk again without the seed."""
    seed, job = worker.current.value, worker.job
    worker.end()
    assert job is not None
    how = f"the process ended with status {worker.process.exitcode}" if dead else f"no sign for {_STUCK:g} s"
    if seed < 0:
        raise RuntimeError(f"a process of the pool cannot work: {how}")
    again.append(_Job(job.start, job.stop, job.skipped | {seed}))
    finding = Finding("died" if dead else "hang", how, f"seed {seed}", seed)
    yield Chunk(job.start, job.start, Tally(findings=[finding]))
