"""Cases of the peers' own test suites that are driven through ``sifrc.operators``: what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest

__all__ = ["Driven", "NotApplicable", "Record", "Used", "counted", "table"]

LEAST = 300
"""Cases that have to pass."""


class NotApplicable(pytest.skip.Exception):  # type: ignore[misc]
    """A case asks for what ``sifrc.operators`` has no notion of.

    Args:
        reason: what, in a few words that are the same for all cases of a kind.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Driven:
    """A test function of a peer, in whose module names stand for what asks ``sifrc.operators``.

    Args:
        names: global of the test's module, or ``module:name`` of another one -> what takes its place.
        applies: a reason why a case, by its parameters, is not applicable, or None.
    """

    names: Mapping[str, Any]
    applies: Callable[[Mapping[str, Any]], str | None] = lambda parameters: None


class Used:
    """How often ``sifrc.operators`` gave a number: a case that never asks proves nothing."""

    count = 0

    @classmethod
    def once(cls) -> None:
        cls.count += 1


@dataclass(frozen=True)
class Record:
    """What became of a case.

    Args:
        peer: backpack or curvlinops.
        test: file and function, without ``test/`` and ``.py``.
        case: its parameters.
        outcome: passed, failed or n/a.
        reason: of a failure, or why it is not applicable.
    """

    peer: str
    test: str
    case: str
    outcome: str
    reason: str = ""


OUTCOMES = MappingProxyType({"passed": "passed", "failed": "failed", "n/a": "not applicable"})


def counted(records: Iterable[Record]) -> Counter[str]:
    """How many of each outcome."""
    return Counter(record.outcome for record in records)


def table(records: list[Record]) -> str:
    """Counts by test, reasons of what is not applicable, and failures."""
    lines = [f"{'test':<66}{'run':>6}{'passed':>8}{'failed':>8}{'n/a':>7}"]
    tests = list(dict.fromkeys((record.peer, record.test) for record in records))
    for peer, test in tests:
        lines.append(_row(f"{peer}: {test}", [r for r in records if (r.peer, r.test) == (peer, test)]))
    lines.append(_row("all", records))
    reasons = Counter(record.reason for record in records if record.outcome == "n/a")
    if reasons:
        lines += ["", "not applicable, by reason:"]
        lines += [f"{count:>6}  {reason}" for reason, count in reasons.most_common()]
    failures = [record for record in records if record.outcome == "failed"]
    if failures:
        lines += ["", "failed:"]
        lines += [f"  {r.peer}: {r.test}[{r.case}]\n      {r.reason}" for r in failures]
    return "\n".join(lines)


def _row(name: str, records: list[Record]) -> str:
    found = counted(records)
    run = found["passed"] + found["failed"]
    return f"{name:<66}{run:>6}{found['passed']:>8}{found['failed']:>8}{found['n/a']:>7}"
