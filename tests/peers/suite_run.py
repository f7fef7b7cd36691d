"""Run the peers' own tests with ``sifrc.operators`` in the place of their operators; print what became of it.

    SIFRC_BACKPACK=… SIFRC_CURVLINOPS=… python tests/peers/suite_run.py [backpack] [curvlinops] [-k …]

The variables name checkouts of f-dangel/backpack and f-dangel/curvlinops, whose tests are not in what is
installed. It fails where a case fails, or fewer than 300 pass.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from suite_cases import LEAST, Record, counted, table

__all__ = ["CHECKOUTS", "main", "run"]

CHECKOUTS = {"backpack": "SIFRC_BACKPACK", "curvlinops": "SIFRC_CURVLINOPS"}
"""Peer -> variable of the environment with a checkout of it."""
HERE = Path(__file__).resolve().parent


def run(peer: str, arguments: list[str] | None = None) -> list[Record]:
    """The cases of a peer's tests, in a process of their own.

    Args:
        peer: backpack or curvlinops.
        arguments: more for pytest.

    Raises:
        RuntimeError: pytest could not run them.
    """
    checkout = Path(os.environ[CHECKOUTS[peer]]).resolve()
    files = importlib.import_module(f"suite_{peer}").FILES
    path = [str(checkout), str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records.jsonl"
        command = [sys.executable, "-m", "pytest", "-p", "suite_plugin", "-p", "no:cacheprovider", "-q"]
        command += ["--tb=short", "-W", "ignore", f"--sifrc-peer={peer}", f"--sifrc-records={records}"]
        ended = subprocess.run(
            [*command, *(arguments or []), *files], cwd=checkout, env=environment, check=False
        )
        if ended.returncode not in (0, 1) or not records.exists():
            raise RuntimeError(f"pytest ended with {ended.returncode} in {checkout}")
        lines = records.read_text(encoding="utf-8").splitlines()
    return [Record(**json.loads(line)) for line in lines]


def main() -> int:
    """Run, print, and say whether it is enough."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "peers", nargs="*", default=list(CHECKOUTS), help="backpack, curvlinops; both by default"
    )
    parser.add_argument("--records", type=Path, help="write what became of each case to a JSON file")
    chosen, arguments = parser.parse_known_args()
    missing = [CHECKOUTS[peer] for peer in chosen.peers if not os.environ.get(CHECKOUTS[peer])]
    if missing:
        parser.error(f"{', '.join(missing)}: not set to a checkout of the peer")
    records = [record for peer in chosen.peers for record in run(peer, arguments)]
    if chosen.records:
        chosen.records.write_text(
            json.dumps([vars(record) for record in records], indent=1), encoding="utf-8"
        )
    print(table(records))
    found = counted(records)
    print(
        f"\n{found['passed'] + found['failed']} cases run, {found['passed']} passed, {found['failed']} "
        f"failed, {found['n/a']} not applicable"
    )
    if not arguments and len(chosen.peers) == len(CHECKOUTS) and found["passed"] < LEAST:
        print(f"fewer than {LEAST} passed")
        return 1
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
