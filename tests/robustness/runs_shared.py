"""Two processes at a time: in the folder of a run, and in the cache."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from runs_children import fork
from runs_table import Case
from runs_workloads import WORKLOADS, Workload, differences

import sifrc
from sifrc.cache import read_entry

__all__ = ["shared_cases"]

_PROCESSES = 4


def shared_cases(folder: Path, *, quick: bool) -> Iterator[Case]:
    """Several processes that begin at once."""
    work = WORKLOADS[2]
    module = work.compile(folder.parent / "modules")
    whole = folder / "whole"
    kind, text = fork(lambda: work.run(module, whole)).result()
    assert kind == "complete", text
    for number in range(1 if quick else 10):
        run = folder / f"run{number}"
        children = [fork(lambda run=run: work.run(module, run)) for _ in range(_PROCESSES)]  # type: ignore[misc]
        results = [child.result() for child in children]
        yield _one_of(Case("shared", "a folder of a run"), whole, run, results)
    for number in range(1, 2 if quick else 21):
        yield _one_cache(work, folder / f"cache{number}", random.Random(number), number % 2 == 1)
    if not quick:
        yield from _compiler_cases(folder)


def _one_of(case: Case, whole: Path, run: Path, results: list[tuple[str, str]]) -> Case:
    """At least one runs to its end, the others say why not or begin after it; what is there is one run."""
    for kind, text in results:
        if kind != "complete" and not (kind == "error" and "another run is using the folder" in text):
            return case.raw(f"{kind}: {text}")
    if not any(kind == "complete" for kind, _ in results):
        return case.lost("none of the runs was complete")
    found = differences(whole, run)
    return case.lost(f"differs in {', '.join(found)}") if found else case.ended("one run, clear errors")


def _compile(work: Workload, cache: Path) -> None:
    module = sifrc.compile(work.spec(), "torch", method="mk", operators=("gradient",), cache=cache)
    assert callable(module.gradient)


def _one_cache(work: Workload, cache: Path, chance: random.Random, kills: bool) -> Case:
    """The same module, compiled by all at once; some killed. The entry is whole, and nobody fails."""
    case = Case("shared", "a cache" + (", with kills" if kills else ""))
    children = [fork(lambda: _compile(work, cache)) for _ in range(_PROCESSES)]
    if kills:
        for child in children[1:]:
            time.sleep(chance.uniform(0.0, 0.3))
            child.signal(signal.SIGKILL)
    results = [child.result() for child in children]
    results.append(fork(lambda: _compile(work, cache)).result())
    for kind, text in results:
        if kind not in ("complete", "killed") or text.strip(" ;") not in ("", "SIGKILL"):
            return case.raw(f"{kind}: {text}")
    entries = [path for path in cache.iterdir() if path.suffix == ".py"]
    if len(entries) != 1 or read_entry(entries[0]) is None:
        return case.lost(f"{len(entries)} entries")
    return case.ended("one whole entry")


def _compiler_cases(folder: Path) -> Iterator[Case]:
    """The command with Numba's compiler and an empty cache: two at once, and signals while it compiles."""
    spec = folder / "life.yaml"
    content = WORKLOADS[0].spec() | {
        "method": "mk",
        "target": {"backend": "numba"},
        "training": {"epochs": 2, "batch": 20},
    }
    spec.write_text(yaml.safe_dump(content))
    archive = _archive(folder / "toy.npz")

    def start(cache: str, run: str, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "sifrc", "train", str(spec), "--data", str(archive), *more]
        return subprocess.Popen(
            [*command, "-o", str(folder / run)],
            env={**os.environ, "SIFRC_CACHE": str(folder / cache)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # What runs in the background of a shell has inherited that Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    both = [start("fresh", f"fresh{k}") for k in range(2)]
    errors = [process.communicate()[1] for process in both]
    case = Case("shared", "two first compiles in one cache")
    if any(process.returncode for process in both):
        yield case.raw("\n".join(errors))
    else:
        found = differences(folder / "fresh0", folder / "fresh1")
        yield case.lost(", ".join(found)) if found else case.ended("both complete, the same bits")
    yield from _interrupted_compiles(start, folder)


def _interrupted_compiles(start: object, folder: Path) -> Iterator[Case]:
    """A signal every few seconds from the first import to the last epoch, each time with an empty cache."""
    assert callable(start)
    for number, seconds in enumerate((1.0, 3.0, 6.0, 10.0, 15.0)):
        case = Case("shared", f"a signal after {seconds} s of a first compile")
        sent = signal.SIGTERM if number % 3 == 2 else signal.SIGINT
        process = start(f"cache-signal{number}", f"signal{number}")
        time.sleep(seconds)
        process.send_signal(sent)
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            yield case.raw("it went on for a minute")
            continue
        if "Traceback" in errors or process.returncode not in (0, 128 + sent, -signal.SIGTERM):
            yield case.raw(f"exit code {process.returncode}: {errors}")
            continue
        more = ["--resume"] if (folder / f"signal{number}" / "checkpoint.npz").exists() else []
        again = start(f"cache-signal{number}", f"signal{number}", *more)
        _, errors = again.communicate()
        found = differences(folder / "fresh0", folder / f"signal{number}")
        if again.returncode or found:
            yield case.lost(f"{', '.join(found)} {errors}")
        else:
            yield case.ended("stopped at once, then to the same bits")


def _archive(path: Path) -> Path:
    import numpy as np
    from runs_workloads import toy

    data = toy(300, noise=0.7, dtype="float64", vectors=False)
    np.savez(
        path,
        train_X=data.train_inputs,
        train_y=data.train_targets,
        test_X=data.test_inputs,
        test_y=data.test_targets,
    )
    return path
