"""Fuzzing of specs: random and mutated specs are read, compiled, called and compared with oracles.

    python tests/robustness/run.py specs --part parse --count 1000000 --processes 2
    python tests/robustness/run.py specs --part whole --count 5000 --processes 2 --state whole.json

A seed says everything about its item. With ``--state`` a run that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from spec_findings import Finding, Findings, Tally
from spec_minimise import minimised
from spec_pipeline import SIMPLE, item_of, parse_item
from spec_pool import Work, work_on
from spec_watch import Watch

__all__ = ["main", "parse_work", "whole_work"]

PARTS = ("parse", "whole")
_WARM = 300
_CHUNKS = {"parse": 500, "whole": 1}


def parse_work() -> Work:
    """The part ``parse`` in one process: read, and make a model."""
    for seed in range(_WARM):
        parse_item(item_of(seed))
    parse_item(dict(SIMPLE))
    watch = Watch()

    def work(seed: int) -> Tally:
        item = item_of(seed)
        return _labelled(parse_item(item, watch), seed, item)

    return work


def whole_work() -> Work:
    """The part ``whole`` in one process: everything, with numbers."""
    from spec_whole import whole_item, whole_of

    def work(seed: int) -> Tally:
        item = whole_of(seed)
        return _labelled(whole_item(item, seed), seed, item)

    return work


def _labelled(tally: Tally, seed: int, item: Any) -> Tally:
    tally.counts["items"] += 1
    tally.findings = [replace(found, seed=seed, item=_plain(item)) for found in tally.findings]
    return tally


def _plain(item: Any) -> Any:
    """What can be sent to another process."""
    return item if isinstance(item, str) else repr(item)


def main(argv: list[str]) -> int:
    """Run a part, print counts and what was found; 1 where anything was."""
    parser = argparse.ArgumentParser(
        prog="run.py specs", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--part", choices=(*PARTS, "both"), default="both")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--count", type=int, help="seeds: 1,000,000 of parse and 5,000 of whole by default")
    parser.add_argument("--minutes", type=float, help="give out no more work after so long, for each part")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--state", type=Path, help="a file that keeps counts and findings, to go on later")
    parser.add_argument("--small", action="store_true", help="print a small spec of each fault")
    parser.add_argument(
        "--show", type=int, metavar="SEED", help="print the item of a seed, do it here, and end"
    )
    chosen = parser.parse_args(argv)
    if chosen.show is not None:
        return _show(chosen)
    parts = PARTS if chosen.part == "both" else (chosen.part,)
    return max(_run(part, chosen) for part in parts)


def _run(part: str, chosen: argparse.Namespace) -> int:
    os.environ["OMP_NUM_THREADS"] = "1"
    count = chosen.count or {"parse": 1_000_000, "whole": 5_000}[part]
    state = _State(part, chosen.state, chosen.start)
    began, last = time.monotonic(), time.monotonic()
    work = {"parse": parse_work, "whole": whole_work}[part]
    left = chosen.start + count - state.following
    for chunk in work_on(
        work,
        state.following,
        left,
        chunk=_CHUNKS[part],
        processes=chosen.processes,
        minutes=chosen.minutes,
        memory=4 if part == "parse" else 16,
    ):
        for line in state.put(chunk.start, chunk.stop, chunk.tally):
            print(line, file=sys.stderr, flush=True)
        if time.monotonic() - last > 30:
            last = time.monotonic()
            print(
                f"{part}: {state.counts['items']} items, {len(state.findings.counts)} faults",
                file=sys.stderr,
                flush=True,
            )
    state.save()
    took = time.monotonic() - began
    print(
        f"{part}: seeds {chosen.start} to {state.following - 1}, {took:.0f} s, {chosen.processes} processes"
    )
    for name, number in sorted(state.counts.items()):
        print(f"  {number:10,}  {name}")
    print(f"  {sum(state.findings.counts.values()):10,}  findings of {len(state.findings.counts)} faults")
    if state.findings.seeds:
        print(f"  seeds {' '.join(map(str, sorted(state.findings.seeds)))}")
    for key, line in state.findings.lines():
        print(line)
        if chosen.small:
            print(f"        {_small(part, state.findings.first[key])}")
    if state.following < chosen.start + count:
        print(
            f"  go on with --start {state.following}"
            if chosen.state is None
            else "  the same command goes on"
        )
    print(flush=True)
    return 1 if state.findings.counts else 0


def _small(part: str, finding: Finding) -> Any:
    """A small spec with the same fault; as it is where its data are no literals, or it hangs or dies."""
    try:
        item = ast.literal_eval(finding.item) if finding.item.startswith("{") else finding.item
    except (ValueError, SyntaxError):
        return finding.item
    if finding.kind.startswith(("hang", "died", "execution")):
        return item
    if part == "whole":
        from spec_whole import whole_item

        def shows(smaller: Any) -> bool:
            return finding.key in {found.key for found in whole_item(smaller, finding.seed).findings}

        return minimised(item, shows, tries=40)
    return minimised(item, lambda smaller: finding.key in {f.key for f in parse_item(smaller).findings})


class _State:
    """Counts and findings of a part, in a file if there is one."""

    def __init__(self, part: str, path: Path | None, start: int) -> None:
        self.path = None if path is None else path.with_name(f"{path.stem}.{part}.json")
        self.counts: Counter[str] = Counter()
        self.findings = Findings()
        self.following = start
        self.done: dict[int, int] = {}
        self.saved = time.monotonic()
        if self.path is not None and self.path.exists():
            data = json.loads(self.path.read_text(encoding="utf-8"))
            self.counts.update(data["counts"])
            self.following = data["following"]
            for entry in data["findings"]:
                self.findings.put(Finding(**entry["finding"]), entry["count"])
            self.findings.seeds.update(data.get("seeds", ()))

    def put(self, start: int, stop: int, tally: Tally) -> list[str]:
        """Add a chunk, and what is new in it as lines.

        Only whole beginnings are saved: what a killed run did beyond is done again.
        """
        self.counts.update(tally.counts)
        new = []
        for finding in tally.findings:
            if finding.key not in self.findings.counts:
                new.append(f"{finding.kind}: {finding.place}  (seed {finding.seed}) {finding.detail[:200]}")
            self.findings.put(finding)
        if stop > start:
            self.done[start] = stop
        while self.following in self.done:
            self.following = self.done.pop(self.following)
        if not self.done and time.monotonic() - self.saved > 20:
            self.save()
        return new

    def save(self) -> None:
        """Write the file anew, in one step."""
        self.saved = time.monotonic()
        if self.path is None:
            return
        entries = [
            {"finding": {**vars(found), "item": found.item}, "count": self.findings.counts[key]}
            for key, found in self.findings.first.items()
        ]
        data = {
            "following": self.following,
            "counts": dict(self.counts),
            "findings": entries,
            "seeds": sorted(self.findings.seeds),
        }
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(data, indent=1, ensure_ascii=True), encoding="utf-8")
        temporary.replace(self.path)


def _show(chosen: argparse.Namespace) -> int:
    """One seed, here."""
    if chosen.part == "whole":
        from spec_whole import whole_of

        item, work = whole_of(chosen.show), whole_work()
    else:
        item, work = item_of(chosen.show), parse_work()
    print(item)
    tally = work(chosen.show)
    print(dict(tally.counts))
    for finding in tally.findings:
        print(f"{finding.kind}: {finding.place}: {finding.detail}")
    return 1 if tally.findings else 0
