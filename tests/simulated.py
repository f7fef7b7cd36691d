"""Runs a script of the tests, or a command, in a process without a CUDA device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["outcome", "process"]


def process(*command: object, folder: Path, simulated: bool) -> subprocess.CompletedProcess[str]:
    """Python on some arguments, in a folder with a cache of its own.

    Args:
        command: after ``python``.
        folder: to run in.
        simulated: whether Numba's simulator is asked for; CPU code is not compiled beside it.
    """
    environment = {**os.environ, "SIFRC_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("NUMBA_ENABLE_CUDASIM", None)
    if simulated:
        environment |= {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def outcome(script: Path, *arguments: str, folder: Path, simulated: bool) -> Any:
    """What a script prints last, as JSON."""
    ran = process(script, *arguments, folder=folder, simulated=simulated)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])
