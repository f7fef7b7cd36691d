"""The life of a run: trained to its end, killed, interrupted, without disk, and two at a time.

    python tests/robustness/run.py runs                      every case: about half an hour on one core
    python tests/robustness/run.py runs --part kills --kills 20 --seed 4

A run is lost if, resumed, it does not end in the bits of one that nothing was done to. An error is raw if
it is not one of sifrc's own with a message for people.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from runs_children import SIGNALS, fork, seconds_of
from runs_disks import disk_cases
from runs_shared import shared_cases
from runs_table import Case, table
from runs_workloads import WORKLOADS, Workload, differences

from sifrc.training.checkpoint import load_checkpoint

__all__ = ["main"]

PARTS = ("trainings", "kills", "signals", "disks", "shared")
METHODS: dict[str, dict[str, Any]] = {
    "esn": {"learning_rate": 1.0},
    "mk": {"learning_rate": 1.0, "damping": 1.0},
    "ea_cg": {"learning_rate": 0.02, "alpha": 0.1, "kind": "ggn"},  # blocks of six samples bear no more
    "grouped_newton": {"learning_rate": 0.3, "internal_damping": 3.0, "period": 3},
}

_BATCH = {"grouped_newton": 60}  # curvature of a few samples gives rates that are too large

_QUICK = (
    ("grouped_newton", "torch", "cross_entropy", "converges"),
    ("mk", "numba", "squared_error", "diverges"),
    ("ea_cg", "torch", "cross_entropy", "diverges"),
)


def main(argv: list[str]) -> int:
    """Print the counts; 1 where there was a raw error or a lost run."""
    parser = argparse.ArgumentParser(prog="run.py runs", description=__doc__, allow_abbrev=False)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--kills", type=int, default=100, help="kills of each kind of run together")
    parser.add_argument("--signals", type=int, default=60, help="interrupted runs")
    parser.add_argument("--epochs", type=int, default=400, help="of trainings to convergence")
    parser.add_argument("--quick", action="store_true", help="a sample of every part")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    cases: list[Case] = []
    with tempfile.TemporaryDirectory(prefix="runs-") as folder:
        # What a first run imports, no child imports again: that takes longer than a run.
        warm = WORKLOADS[2]
        warm.run(warm.compile(Path(folder) / "modules"), Path(folder) / "warm", epochs=1, pictures=True)
        for part in arguments.part or PARTS:
            begin, before = time.monotonic(), len(cases)
            cases += _of_part(part, arguments, Path(folder) / part)
            print(f"{part}: {len(cases) - before} cases in {time.monotonic() - begin:.0f} s", flush=True)
    print(table(cases))
    return int(any(case.bad for case in cases))


def _of_part(part: str, arguments: argparse.Namespace, folder: Path) -> Iterator[Case]:
    folder.mkdir(parents=True)
    chance, quick = random.Random(f"{part} {arguments.seed}"), arguments.quick
    workloads = WORKLOADS[2:3] if quick else WORKLOADS
    if part == "trainings":
        yield from training_cases(folder, 10 if quick else arguments.epochs, quick=quick)
    elif part == "kills":
        yield from kill_cases(folder, chance, workloads, 3 if quick else arguments.kills)
    elif part == "signals":
        yield from signal_cases(folder, chance, workloads, 3 if quick else arguments.signals)
    elif part == "disks":
        yield from disk_cases(folder, quick=quick)
    else:
        yield from shared_cases(folder, quick=quick)


def training_cases(folder: Path, epochs: int, *, quick: bool) -> Iterator[Case]:
    """Every method on both backends, until nothing is left to learn, and with far too large a rate."""
    backends, losses = ("torch", "numba"), ("cross_entropy", "squared_error")
    for method, backend, loss in itertools.product(METHODS, backends, losses):
        for end, rate in (("converges", 1.0), ("diverges", 1e6)):
            if quick and (method, backend, loss, end) not in _QUICK:
                continue
            options = METHODS[method] | {"learning_rate": METHODS[method]["learning_rate"] * rate}
            work = Workload(
                f"{method}, {backend}, {loss}, {end}",
                backend,
                method,
                samples=60,
                options=options,
                settings={"epochs": epochs, "batch": _BATCH.get(method, 6), "checkpoint_every": math.inf},
                changes={"loss": loss, "dtype": "float32"},
                noise=0.1,
            )
            module = work.compile(folder.parent / "modules")
            yield _trained(work, module, folder / f"{method}-{backend}-{loss}-{end}", end == "converges")


def _trained(work: Workload, module: ModuleType, folder: Path, converges: bool) -> Case:
    case = Case("trainings", work.name)
    kind, text = fork(lambda: work.run(module, folder)).result()
    if kind not in ("complete", "error"):
        return case.raw(text)
    if kind == "error" and "saved in checkpoint.npz" not in text:
        return case.lost(text)
    saved = load_checkpoint(folder / "checkpoint.npz")
    if not all(np.isfinite(value).all() for value in saved.parameters.values()):
        return case.lost("parameters that are not finite")
    if converges:
        first, last = saved.history.rows[0].train_loss, saved.history.last.train_loss
        if kind == "error" or not last < 0.5 * first:
            return case.wrong(text or f"the loss goes from {first:.3g} to {last:.3g}")
    # What was refused once is refused again, and that changes nothing.
    again, text = fork(lambda: work.run(module, folder, resume=True)).result()
    if again != kind:
        return case.lost(f"{kind}, then {again}: {text}")
    return case.ended("refused and saved" if kind == "error" else "complete")


def kill_cases(folder: Path, chance: random.Random, workloads: Any, count: int) -> Iterator[Case]:
    """SIGKILL at a random moment, resumed, perhaps killed again; to the bits of the run left alone."""
    for place, work in enumerate(workloads):
        module = work.compile(folder.parent / "modules")
        whole, seconds = _whole(work, module, folder)
        share = range(place, count, len(workloads))
        for number in share:
            cut = folder / f"{work.backend}-{work.method}-{number}"
            yield _killed(work, module, whole, cut, chance, seconds)


def _whole(work: Workload, module: ModuleType, folder: Path) -> tuple[Path, float]:
    whole = folder / f"whole-{work.backend}-{work.method}"
    seconds = seconds_of(lambda: work.run(module, whole, checkpoint_every=0))
    return whole, seconds


def _killed(
    work: Workload, module: ModuleType, whole: Path, cut: Path, chance: random.Random, seconds: float
) -> Case:
    """One kill, and up to two more of the run that goes on."""
    case = Case("kills", work.name)
    for _ in range(chance.choice((1, 1, 2, 3))):
        again = (cut / "checkpoint.npz").exists()
        child = fork(lambda again=again: work.run(module, cut, resume=again, checkpoint_every=0))  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, seconds))
        child.signal(signal.SIGKILL)
        kind, text = child.result()
        if kind not in ("killed", "complete"):
            return case.raw(text)
        case.killed += kind == "killed"
    return _resumed(case, work, module, whole, cut)


def _resumed(case: Case, work: Workload, module: ModuleType, whole: Path, cut: Path) -> Case:
    again = (cut / "checkpoint.npz").exists()
    kind, text = fork(lambda: work.run(module, cut, resume=again)).result()
    if kind != "complete":
        return case.lost(text)
    found = differences(whole, cut)
    return case.lost(f"differs in {', '.join(found)}") if found else case.ended("resumed to the same bits")


def signal_cases(folder: Path, chance: random.Random, workloads: Any, count: int) -> Iterator[Case]:
    """Ctrl-C, SIGTERM, SIGHUP, once or in a row, at a random moment; no checkpoints but those of the end."""
    for place, work in enumerate(workloads):
        module = work.compile(folder.parent / "modules")
        whole, seconds = _whole(work, module, folder)
        for number in range(place, count, len(workloads)):
            cut = folder / f"{work.backend}-{work.method}-{number}"
            yield _interrupted(work, module, whole, cut, chance, seconds)


def _interrupted(
    work: Workload, module: ModuleType, whole: Path, cut: Path, chance: random.Random, seconds: float
) -> Case:
    which = chance.choice(SIGNALS)
    case = Case("signals", work.name)
    child = fork(lambda: work.run(module, cut, checkpoint_every=math.inf))
    time.sleep(chance.uniform(0.0, seconds))
    for _ in range(chance.choice((1, 2, 4))):
        child.signal(which)
        time.sleep(chance.choice((0.0, 0.0, 0.005, 0.3)))
    kind, text = child.result()
    if kind not in ("interrupted", "complete", "killed"):
        return case.raw(text)
    if kind == "interrupted" and text:
        if "saved in checkpoint.npz" not in text and "nothing was trained" not in text:
            return case.lost(text)
    elif (cut / "checkpoint.npz").exists():  # before the run or after it, where the system's own handlers are
        position = load_checkpoint(cut / "checkpoint.npz").position
        if position.epoch < 2:
            return case.lost(f"{kind} {text}: {position}")
    return _resumed(case, work, module, whole, cut)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
