"""CUDA modules on a GPU: first what they compute, then times and a short table; at most five minutes.

    python benchmarks/gpu.py [--rows correctness,online,…] [--json FILE] [--limit 300] [--suites]
    python benchmarks/gpu.py --generate [--folder FOLDER]     prints the modules; needs no GPU
    python benchmarks/gpu.py --dry                            tiny, in Numba's simulator and on torch's CPU

Rows: ``correctness`` compares every operator and method of small modules, and full-size ones, with float64;
``online`` is one sample at a time on 784-256-32-10, ``products`` are Hessian– and Gauss–Newton–vector
products, ``summaries`` those of orders 2 and 3, ``ea_cg`` is a step on 3072-1024-…-10, ``kernels`` the
bandwidth of what goes entry by entry. While correctness is looked at, modules of the other rows are compiled
in processes beside it; times are then taken in one process, and nothing else runs. A row that fails is a line
of the table. One may be named alone, as in ``--rows "correctness digits,summaries 0"``. ``--suites`` runs the
tests of the Torch backend on the GPU in place of the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gpu_modules
from gpu_child import row_names
from gpu_children import in_parallel, in_turn

ROOT = Path(__file__).resolve().parents[1]
Record = dict[str, Any]
Found = dict[str, list[Record]]

# One processor is left to the parent and to compilers that processes start.
_JOBS = max(1, min(15, (os.cpu_count() or 1) - 1))
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--rows", default="correctness,online,kernels,ea_cg,products,summaries")
parser.add_argument("--limit", type=float, default=300, help="seconds for everything")
parser.add_argument("--row-limit", type=float, default=120, help="seconds for a row")
parser.add_argument("--seconds", type=float, default=5, help="of measurements in a row")
parser.add_argument("--rounds", type=int, default=15)
parser.add_argument("--jobs", type=int, default=_JOBS, help="processes that compile")
parser.add_argument("--json", type=Path, help="file for everything that was found")
parser.add_argument("--folder", type=Path, default=ROOT / "build" / "gpu", help="of the generated modules")
parser.add_argument("--without", default="", metavar="WORD", help="leave out candidates with it, as compiled")
parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the CUDA backend")
parser.add_argument("--generate", action="store_true", help="print all modules into the folder, and end")
parser.add_argument("--dry", action="store_true", help="without a GPU, tiny")
parser.add_argument("--suites", action="store_true", help="run the tests of the Torch backend on the GPU")

SUITES = ("tests/backends", "tests/methods", "-k", "torch and not numba")
"""Arguments of pytest: tests whose files or cases are those of the Torch backend."""
_DRY_SUITES = ("tests/backends/test_torch_statements.py",)


def main() -> None:
    arguments = parser.parse_args()
    options = dict(text.split("=", 1) for text in arguments.option)
    numbers = {name: int(value) if value.isdigit() else value for name, value in options.items()}
    own = f"{gpu_modules.sources_digest()}{'_dry' if arguments.dry else ''}{_words(numbers)}"
    folder = arguments.folder.absolute() / own
    if arguments.generate:
        generate(folder, arguments.dry, numbers)
        return
    start = time.monotonic()
    if arguments.suites:
        found: Found = {"suites": suites(arguments.limit, arguments.jobs, arguments.dry)}
    else:
        machine = {
            "dry": arguments.dry,
            "folder": str(folder),
            "rounds": 1 if arguments.dry else arguments.rounds,
            "seconds": arguments.seconds,
            "first": 120 if arguments.dry else 30,
            "options": numbers,
            "without": arguments.without,
        }
        os.environ.setdefault("NUMBA_CACHE_DIR", str(folder / "kernels"))
        with tempfile.TemporaryDirectory() as logs:
            found = measured(arguments, machine, start + arguments.limit, Path(logs))
    keep(arguments.json, found)
    print_found(found)
    print(f"\n{time.monotonic() - start:.0f} s in all", flush=True)


def keep(path: Path | None, found: Found) -> None:
    """Write what there is so far, where a file is wanted."""
    if path is not None:
        everything = {"arguments": sys.argv[1:], "rows": found}
        path.write_text(json.dumps(everything, indent=1), encoding="utf-8")


def _words(options: Mapping[str, Any]) -> str:
    return "".join(f"_{name}_{value}" for name, value in sorted(options.items()))


def generate(folder: Path, dry: bool, options: Mapping[str, Any]) -> None:
    """Print every module that a row asks for."""
    from gpu_correctness import RANDOM

    for name in gpu_modules.wanted(dry):
        other = "numba" if name in RANDOM else "torch"
        more = [("numba", "float64")] if name in RANDOM else []
        for backend, dtype in (("cuda", "float32"), (other, "float32"), *more):
            start = time.monotonic()
            path = gpu_modules.write(name, backend, folder, dry, options, dtype)
            print(f"{time.monotonic() - start:6.1f} s  {path.name}", flush=True)


def measured(arguments: argparse.Namespace, machine: Record, end: float, logs: Path) -> Found:
    """All rows: those of correctness in parallel, and then times."""
    names = row_names(arguments.dry)
    asked = {"machine": machine, "prepare": False}
    found = in_turn(["versions"], asked, arguments.row_limit, end, logs)
    print_heading(found["versions"], arguments.dry)
    rows = [row for name in arguments.rows.split(",") for row in names.get(name, [name])]
    right = [row for row in rows if row.startswith("correctness")]
    timed = [row for row in rows if row not in right]
    if arguments.dry:
        found |= in_turn(right, asked, arguments.row_limit, end, logs)
    else:
        groups: list[tuple[Sequence[str], Record]] = [([row], asked | {"prepare": True}) for row in timed]
        groups += [([row], asked) for row in right]
        # A part of the time is for measurements, whatever compiling takes.
        part = end - 0.4 * arguments.limit if timed else end
        for rows_found in in_parallel(groups, arguments.jobs, arguments.row_limit, part, logs):
            found |= {row: records for row, records in rows_found.items() if row in right}
    keep(arguments.json, found)
    return found | in_turn(timed, asked, arguments.row_limit, end, logs)


def suites(limit: float, jobs: int, dry: bool) -> list[Record]:
    """The Torch backend's tests on the device; the summary line of pytest."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--tb=line"]
    command += _DRY_SUITES if dry else [*SUITES, "-n", str(jobs)]
    environment = os.environ | {"SIFRC_TEST_DEVICE": "cpu:0" if dry else "cuda"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
        log.seek(0)
        output = log.read()
    lines = output.strip().splitlines() or [""]
    record: Record = {"what": "tests of the Torch backend", "note": lines[-1].strip("= ")}
    if code is None:
        marks = "".join(re.findall(r"^[.FEsx]+", output, flags=re.MULTILINE))
        so_far = f"{marks.count('.')} passed, {marks.count('F') + marks.count('E')} failed"
        return [record | {"error": f"not done after {limit:.0f} s: {so_far}", "traceback": output[-12000:]}]
    if code != 0:
        record |= {"error": f"code {code}: {record['note']}", "traceback": output[-12000:]}
    return [record]


def print_heading(records: Sequence[Record], dry: bool) -> None:
    """The card, its driver, and versions."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.sm", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        told = "nvidia-smi does not answer"
    print("no GPU: Numba's simulator, torch's CPU" if dry else told)
    lines = [record.get("error") or f"{record['what']} {record.get('note')}" for record in records]
    print(", ".join(lines[:-1] if "took" in records[-1] else lines), flush=True)


def print_found(found: Found) -> None:
    """A short table: correctness, a line for each module; times, one for each candidate."""
    lines: list[tuple[str, ...]] = []
    for row, records in found.items():
        kept = [record for record in records if "took" not in record]
        if row.startswith("correctness"):
            lines += _correctness_lines(row, kept)
        elif row != "versions":
            lines += [(row, *_line(record)) for record in kept]
    header = ("row", "what", "time", "× base", "")
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(4)]
    for line in (header, *lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True))
        print(text.rstrip())


_MOST_WRONG = 5
"""Wrong calls of a module that are shown."""


def _correctness_lines(row: str, records: Sequence[Record]) -> list[tuple[str, ...]]:
    """The worst call, and every call that is wrong."""
    compared = [record for record in records if "off" in record]
    wrong = [record for record in records if not record.get("right", False)]
    lines: list[tuple[str, ...]] = []
    if compared:
        worst = max(compared, key=lambda record: record["off"])
        text = f"{len(records)} calls, {len(wrong)} wrong; worst {_off(worst)}"
        lines.append((row, worst["what"][:60], "", "", text))
    if len(wrong) > _MOST_WRONG:
        lines.append((row, "", "", "", f"{len(wrong) - _MOST_WRONG} more wrong calls are in the file"))
    for record in wrong[:_MOST_WRONG]:
        lines.append((row, record["what"][:60], "", "", record.get("error") or f"WRONG {_off(record)}"))
    return lines


def _off(record: Record) -> str:
    other = f" (other backend {record['other_off']:.0e})" if "other_off" in record else ""
    return f"{record['off']:.1e}{other}"


def _line(record: Record) -> tuple[str, ...]:
    if "error" in record:
        return record["what"], "", "", record["error"]
    seconds = record.get("seconds")
    ratio = f"{record['ratio']:.2f} ({record['least']:.2f}–{record['most']:.2f})" if "ratio" in record else ""
    rate = f"{record['rate']:.0f}/s" if "rate" in record else ""
    note = "; ".join(filter(None, (rate, record.get("note", ""))))
    return record["what"], _time(seconds), ratio, note


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{1e3 * seconds:.3f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.1f} µs"


if __name__ == "__main__":
    main()
