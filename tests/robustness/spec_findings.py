"""What a harness has found: grouped by kind and place, with a seed and a small item that shows it."""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Finding", "Findings", "Tally", "of_call", "of_exception"]


@dataclass(frozen=True)
class Finding:
    """One fault at one seed.

    Args:
        kind: ``raw error``, ``hang``, ``execution``, ``wrong number``, ``message``, ``round trip``, ``died``.
        place: of the fault; findings of one kind and place are one fault.
        detail: one line.
        seed: that shows it.
        item: the spec, text or data.
    """

    kind: str
    place: str
    detail: str
    seed: int = -1
    item: Any = None

    @property
    def key(self) -> tuple[str, str]:
        """What findings are grouped by."""
        return self.kind, self.place


@dataclass
class Findings:
    """Findings of many seeds by key: how many, the first of each, and the seeds of all of them."""

    first: dict[tuple[str, str], Finding] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    seeds: set[int] = field(default_factory=set)

    def put(self, finding: Finding, count: int = 1) -> None:
        """Count a finding, and keep the one of the least seed."""
        known = self.first.get(finding.key)
        if known is None or 0 <= finding.seed < known.seed:
            self.first[finding.key] = finding
        self.counts[finding.key] += count
        self.seeds.add(finding.seed)

    def lines(self) -> list[tuple[tuple[str, str], str]]:
        """One fault a line with its key, the most frequent first."""
        lines = []
        for key, count in sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0])):
            found = self.first[key]
            text = f"(seed {found.seed}) {found.detail}"
            lines.append((key, f"{count:6}  {found.kind}: {found.place}  {text}"))
        return lines


@dataclass
class Tally:
    """Counts of one part of a run, and what it found."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


_PACKAGE = Path(__file__).resolve().parents[2]


def of_exception(error: BaseException, kind: str = "raw error") -> Finding:
    """The finding of an exception that should not have been: its type, and where in the package it arose."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/sifrc/" in frame.filename or "/templates/" in frame.filename]
    if isinstance(error, RecursionError) and own:
        # A cycle ends anywhere: the function that occurs most often stands for it.
        common = Counter((frame.filename, frame.name) for frame in own).most_common()
        file, function = min(pair for pair, count in common if count == common[0][1])
    elif own:
        file, function = own[-1].filename, own[-1].name
    else:
        file, function = (frames[-1].filename, frames[-1].name) if frames else ("?", "?")
    name = file.rpartition("/sifrc/")[2] if "/sifrc/" in file else Path(file).name
    message = " ".join(str(error).split())[:160]
    label = type(error).__name__ if kind != "hang" else "hang"
    return Finding(kind, f"{label} in {name}:{function}", message)


def of_call(error: Exception, operator: str, framework: str) -> Finding:
    """What an operator of a module has raised."""
    return Finding(
        "raw error", f"{type(error).__name__} in {framework} {operator}", of_exception(error).detail
    )
