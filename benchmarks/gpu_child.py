"""A process that runs rows of the benchmark of GPUs, one after the other; see gpu.py.

What it finds is appended to a file, a line of JSON for each row that begins or ends, so that nothing is lost
where the process does not come to its end.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu_machine
from gpu_machine import Machine, Record, failure

__all__ = ["LOST", "main", "row_names"]

LOST = 3
"""Exit code where an error has made the device useless to the process."""


def row_names(dry: bool) -> dict[str, list[str]]:
    """What can be asked for -> the rows that it means."""
    from gpu_correctness import cases

    return {
        "correctness": [f"correctness {name}" for name in cases(dry)],
        "online": ["online"],
        "products": ["products"],
        "summaries": [f"summaries {number}" for number in range(3)],
        "ea_cg": ["ea_cg"],
        "kernels": ["kernels"],
    }


def run(row: str, machine: Machine) -> list[Record]:
    """The lines of a row."""
    import gpu_bandwidth
    import gpu_correctness
    import gpu_derivatives
    import gpu_online

    kind, _, name = row.partition(" ")
    rows: dict[str, Callable[[], list[Record]]] = {
        "versions": lambda: versions(machine),
        "correctness": lambda: gpu_correctness.compared(machine, name),
        "online": lambda: gpu_online.online(machine),
        "products": lambda: gpu_derivatives.products(machine),
        "summaries": lambda: gpu_derivatives.summaries(machine, int(name)),
        "ea_cg": lambda: gpu_derivatives.conjugate_gradients(machine),
        "kernels": lambda: gpu_bandwidth.entries(machine),
    }
    return rows[kind]()


def versions(machine: Machine) -> list[Record]:
    """Of Python, of the libraries, and what torch says of the card."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in (
        "torch",
        "triton",
        "numba",
        "numba-cuda",
        "llvmlite",
        "cupy-cuda13x",
        "cupy-cuda12x",
        "numpy",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if not machine.dry:
        found |= _of_device()
    return [{"what": name, "note": text} for name, text in found.items()]


def _of_device() -> dict[str, str]:
    """What torch and Numba say; in words where they have no device."""
    found = {}
    try:
        import torch

        card = torch.cuda.get_device_properties(0)
        found["card"] = f"{card.name}, {card.multi_processor_count} multiprocessors"
        found["torch for CUDA"] = str(torch.version.cuda)
    except Exception as error:
        found["torch"] = failure(error)["error"]
    try:
        from numba import cuda

        found["Numba's runtime of CUDA"] = ".".join(map(str, cuda.runtime.get_version()))
        found["Numba's device"] = f"compute capability {cuda.get_current_device().compute_capability}"
    except Exception as error:
        found["numba"] = failure(error)["error"]
    return found


def main(text: str) -> None:
    """Run what the parent asks for."""
    asked: dict[str, Any] = json.loads(text)
    machine = Machine(**{**asked["machine"], "folder": Path(asked["machine"]["folder"])})
    if machine.dry:
        gpu_machine.simulated()
        gpu_machine.take_turns()
    if asked["prepare"]:
        # What is compiled is kept on disk; times are not looked at.
        machine = replace(machine, rounds=1, seconds=0.0, first=150.0)
    with open(asked["found"], "a", encoding="utf-8") as file:
        for row in asked["rows"]:
            print(json.dumps({"row": row, "begun": True}), file=file, flush=True)
            start = time.perf_counter()
            try:
                records = run(row, machine)
            except Exception as error:
                records = [failure(error, what="row")]
            took = time.perf_counter() - start
            print(json.dumps({"row": row, "records": records, "took": took}), file=file, flush=True)
            if machine.lost():
                sys.exit(LOST)


if __name__ == "__main__":
    main(sys.argv[1])
