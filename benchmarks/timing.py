"""Paired timings: medians of ratios of interleaved runs, and a table of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Ratio", "interleaved", "print_table"]

PAUSE = 0.1
"""Seconds."""


@dataclass(frozen=True)
class Ratio:
    """Times of one candidate over times of the base in the same round.

    Args:
        name: candidate.
        seconds: median time of the candidate.
        ratio: median over rounds of candidate / base.
        spread: smallest and largest ratio.
        cpu_seconds: median time on processors, of all threads; other programs disturb it less.
        cpu_ratio: as ``ratio``, of these.
    """

    name: str
    seconds: float
    ratio: float
    spread: tuple[float, float]
    cpu_seconds: float
    cpu_ratio: float


def interleaved(
    candidates: Mapping[str, Callable[[], object]], base: str, rounds: int = 21, warmup: int = 3
) -> dict[str, Ratio]:
    """Run all candidates in turn, ``rounds`` times; ratios are taken within a round.

    Between two runs is a pause: threads of the one before spin for a while, on the cores of the next.
    """
    for _ in range(warmup):
        for run in candidates.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    on_cpu: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            time.sleep(PAUSE)
            start, cpu_start = time.perf_counter(), time.process_time()
            run()
            times[name].append(time.perf_counter() - start)
            on_cpu[name].append(time.process_time() - cpu_start)
    results: dict[str, Ratio] = {}
    for name, values in times.items():
        ratios = _ratios(values, times[base])
        results[name] = Ratio(
            name,
            statistics.median(values),
            statistics.median(ratios),
            (min(ratios), max(ratios)),
            statistics.median(on_cpu[name]),
            statistics.median(_ratios(on_cpu[name], on_cpu[base])),
        )
    return results


def _ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    return [value / reference for value, reference in zip(values, base, strict=True)]


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}\n")
    for row in (header, ["-" * w for w in widths], *rows):
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
