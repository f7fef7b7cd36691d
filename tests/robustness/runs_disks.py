"""Disks that are full or cannot be written, at every file that is: small file systems, made for the case."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from runs_children import fork
from runs_table import Case
from runs_workloads import WORKLOADS, Workload, differences

import sifrc
from sifrc.training import History, SummaryLog
from sifrc.training.checkpoint import load_checkpoint

__all__ = ["disk_cases"]

_PAGE = 4096
_FREE = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80)  # pages
_PICTURES = ("training.png", "interactions.png", "rates.png")


_QUICK = (("compile", "full"), ("new", "read-only"))  # of the commands


class NoMountError(Exception):
    """This process may not mount a file system."""


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of one megabyte in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        raise NoMountError(made.stderr.strip() or "mount failed")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def read_only(folder: Path, on: bool) -> None:
    """Make a file system so, or writable again."""
    subprocess.run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", str(folder)], check=True)


def fill(folder: Path, pages: int) -> Path:
    """A file that leaves so many pages."""
    filler = folder / "filler"
    free = os.statvfs(folder)
    filler.write_bytes(b"x" * (free.f_bavail * free.f_frsize - pages * _PAGE))
    return filler


def disk_cases(folder: Path, *, quick: bool) -> Iterator[Case]:
    """Runs and commands on small disks; *not run* where none can be mounted."""
    try:
        with small_disk(folder / "disk") as disk:
            yield from _run_cases(disk, folder, quick=quick)
            yield from _command_cases(disk, folder, quick=quick)
            yield from _cache_cases(disk)
    except (NoMountError, FileNotFoundError) as error:
        yield Case("disks", "every case").not_run(str(error))


def _run_cases(disk: Path, folder: Path, *, quick: bool) -> Iterator[Case]:
    work = WORKLOADS[2]
    module = work.compile(folder.parent / "modules")
    base, whole, other = folder / "base", folder / "whole", folder / "other"
    made = [
        fork(lambda: work.run(module, base, epochs=1, pictures=not quick)),
        fork(lambda: work.run(module, whole)),
        fork(lambda: work.run(module, other, epochs=1, seed=8)),
    ]
    for child in made:
        kind, text = child.result()
        assert kind == "complete", text
    for pages in (4,) if quick else _FREE:
        yield _resumed_when_full(work, module, disk, base, whole, pages)
        yield _begun_when_full(work, module, disk, base, whole, other, pages)
    for resume in (True,) if quick else (True, False):
        yield _on_read_only(work, module, disk, base, resume)


@contextmanager
def _copy(base: Path, disk: Path) -> Iterator[Path]:
    run = disk / "run"
    shutil.copytree(base, run)
    try:
        yield run
    finally:
        shutil.rmtree(run)


def _damage(run: Path) -> str:
    """The first file of a run that is not whole; empty if all are."""
    try:
        load_checkpoint(run / "checkpoint.npz")
        History.read_csv(run / "metrics.csv")
        SummaryLog.load(run / "summaries.npz")
    except sifrc.SifrcError as error:
        return str(error)
    for name in _PICTURES:
        file = run / name
        if file.exists() and not file.read_bytes().endswith(b"IEND\xaeB`\x82"):
            return f"{name} is cut"
    return ", ".join(path.name for path in run.iterdir() if path.name.endswith(".part"))


def _resumed_when_full(
    work: Workload, module: ModuleType, disk: Path, base: Path, whole: Path, pages: int
) -> Case:
    """The run goes on until the disk is full; with space again it comes to the bits of one that had some."""
    case = Case("disks", f"resumed with {pages} pages")
    with _copy(base, disk) as run:
        filler = fill(disk, pages)
        kind, text = fork(
            lambda: work.run(module, run, resume=True, checkpoint_every=0, pictures=True)
        ).result()
        damage = _damage(run)
        filler.unlink()
        if damage:
            return case.lost(damage)
        if kind not in ("complete", "error") or (kind == "error" and "No space left" not in text):
            return case.raw(text)
        again, more = fork(lambda: work.run(module, run, resume=True)).result()
        if again != "complete":
            return case.lost(more)
        found = differences(whole, run)
        if found:
            return case.lost(f"differs in {', '.join(found)}")
    return case.ended("full, then to the same bits" if kind == "error" else _complete(text))


def _complete(warned: str) -> str:
    return "complete, no pictures, a warning" if "not all pictures" in warned else "complete"


def _begun_when_full(
    work: Workload, module: ModuleType, disk: Path, base: Path, whole: Path, other: Path, pages: int
) -> Case:
    """Another run begins in the folder: one of both is there afterwards, and goes on."""
    case = Case("disks", f"begun with {pages} pages")
    with _copy(base, disk) as run:
        filler = fill(disk, pages)
        kind, text = fork(lambda: work.run(module, run, epochs=1, seed=8, checkpoint_every=0)).result()
        filler.unlink()
        if kind not in ("complete", "error") or (kind == "error" and "No space left" not in text):
            return case.raw(text)
        new = "checkpoint.npz, after" in text or kind == "complete"
        settings = {"epochs": 1, "seed": 8} if new else {}
        again, more = fork(lambda: work.run(module, run, resume=True, **settings)).result()
        if again != "complete":
            return case.lost(f"{text} and then {more}")
        found = differences(other if new else whole, run)
        if found:
            return case.lost(f"differs in {', '.join(found)}")
    return case.ended("the new run is there" if new else "the run before is untouched")


def _on_read_only(work: Workload, module: ModuleType, disk: Path, base: Path, resume: bool) -> Case:
    case = Case("disks", f"read-only, {'resumed' if resume else 'begun'}")
    with _copy(base, disk) as run:
        before = {path.name: path.read_bytes() for path in run.iterdir()}
        read_only(disk, True)
        kind, text = fork(lambda: work.run(module, run, resume=resume, pictures=True)).result()
        read_only(disk, False)
        if {path.name: path.read_bytes() for path in run.iterdir()} != before:
            return case.lost("a file has changed")
    if kind != "error" or "Read-only file system" not in text:
        return case.raw(f"{kind}: {text}")
    return case.ended("a clear error, nothing changed")


def _command_cases(disk: Path, folder: Path, *, quick: bool) -> Iterator[Case]:
    """Commands that write a file, over a good one: the spec, the module, the equations."""
    spec = folder / "life.yaml"
    spec.write_text(yaml.safe_dump(WORKLOADS[0].spec()))
    commands: dict[str, tuple[list[str], str]] = {
        "new": (["new", "life", "-o", str(disk / "new.yaml"), "--force"], "new.yaml"),
        "compile": (
            ["compile", str(spec), "-o", str(disk), "--method", "mk", "--backend", "torch"],
            "life_mk_torch.py",
        ),
        "equations": (["equations", str(spec), "-o", str(disk / "e.txt")], "e.txt"),
    }
    for name, (arguments, file) in commands.items():
        for trouble in ("full", "read-only"):
            if quick and (name, trouble) not in _QUICK:
                continue
            (disk / file).write_text("good")
            filler = fill(disk, 0)
            read_only(disk, trouble == "read-only")
            kind, text = fork(lambda arguments=arguments: _command(arguments)).result()  # type: ignore[misc]
            read_only(disk, False)
            filler.unlink()
            case = Case("disks", f"sifrc {name}, {trouble}")
            if (disk / file).read_text() != "good" or list(disk.glob(".*.part")):
                yield case.lost(f"{file} has changed")
            elif kind != "error" or f"cannot write {disk / file}" not in text:
                yield case.raw(f"{kind}: {text}")
            else:
                yield case.ended("a clear error, nothing changed")
            (disk / file).unlink()


def _command(arguments: list[str]) -> None:
    """A command of sifrc as in a terminal; its error, if it is one for people, is raised again."""
    from typer.testing import CliRunner

    from sifrc.cli.main import app

    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code:
        raise sifrc.SifrcError(result.stderr)


def _cache_cases(disk: Path) -> Iterator[Case]:
    """The cache: a module is compiled and works, with a warning."""
    for trouble in ("full", "read-only"):
        case = Case("disks", f"cache, {trouble}")
        filler = fill(disk, 0)
        read_only(disk, trouble == "read-only")
        kind, text = fork(lambda: _compiles_in(disk / "cache")).result()
        read_only(disk, False)
        filler.unlink()
        shutil.rmtree(disk / "cache", ignore_errors=True)
        if kind == "complete" and "cannot be used" in text and "SIFRC_CACHE" in text:
            yield case.ended("compiled, a warning")
        else:
            yield case.raw(f"{kind}: {text}")


def _compiles_in(folder: Path) -> Any:
    module = WORKLOADS[0].compile(folder)
    WORKLOADS[0].run(module, None, epochs=1)
