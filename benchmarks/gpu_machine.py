"""Where a benchmark of GPUs runs: on a GPU, or on nothing but Numba's simulator and torch's CPU."""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import gpu_modules
import numpy as np

__all__ = ["Candidate", "Machine", "Record", "failure", "paired", "within"]

Record = dict[str, Any]
"""A line of the table, as plain data."""
ROOT = Path(__file__).resolve().parents[1]
_MEASURED = 5e-3
"""Seconds that one measurement takes at least, of as many runs as that needs."""


@dataclass(frozen=True)
class Machine:
    """What a row needs to know.

    Args:
        dry: whether there is no GPU.
        folder: of the generated modules.
        rounds: of a measurement, at most.
        seconds: that a row's measurements may take.
        first: seconds that a candidate may take until it has run a few times: compilers are in there, or
            what they have left on disk.
        options: of the CUDA backend.
        without: a word; candidates that have it in their name are left out.
    """

    dry: bool
    folder: Path
    rounds: int = 15
    seconds: float = 20.0
    first: float = 30.0
    options: Mapping[str, Any] = field(default_factory=dict)
    without: str = ""

    @property
    def device(self) -> str:
        """Torch's name of the device."""
        return "cpu" if self.dry else "cuda"

    def module(self, name: str, backend: str, dtype: str = "float32") -> ModuleType:
        """A generated module; one for CUDA with blocks as small as can be in the simulator."""
        path = gpu_modules.write(name, backend, self.folder, self.dry, self.options, dtype)
        module = gpu_modules.load(path)
        if self.dry and backend == "cuda":
            sys.path.insert(0, str(ROOT / "tests" / "backends"))
            from sifrc.simulation import device_math

            for number in ("BLOCK", "MOST_BLOCKS", "TILE"):
                if hasattr(module, number):
                    setattr(module, number, 2)
            module.math = device_math()  # type: ignore[attr-defined]
        return module

    def array(self, value: np.ndarray) -> Any:
        """An array of Numba on the device."""
        from numba import cuda

        return cuda.to_device(np.ascontiguousarray(value))

    def tensor(self, value: np.ndarray) -> Any:
        """A tensor of torch on the device."""
        import torch

        return torch.from_numpy(np.array(value)).to(self.device)

    def arrays(self, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Arrays of Numba on the device."""
        return {name: self.array(value) for name, value in values.items()}

    def tensors(self, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Tensors of torch on the device."""
        return {name: self.tensor(value) for name, value in values.items()}

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function by torch.compile; its traces alone where there is no GPU."""
        import torch

        return torch.compile(function, backend="eager" if self.dry else "inductor")

    def synchronize(self) -> None:
        """Wait for the device."""
        if not self.dry:
            import torch

            torch.cuda.synchronize()

    def lost(self) -> bool:
        """Whether an error has made the device useless to this process."""
        try:
            self.synchronize()
        except Exception:
            return True
        return False


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread after so many seconds."""

    def late(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def failure(error: BaseException, **more: Any) -> Record:
    """The line of something that did not work."""
    lines = str(error).strip().splitlines() or [""]
    text = "".join(traceback.format_exception(error))
    return {
        **more,
        "error": f"{type(error).__name__}: {' '.join(lines[:2])[:200]}",
        "traceback": text[-6000:],
    }


@dataclass(frozen=True)
class Candidate:
    """Something to be timed.

    Args:
        name: in the table.
        make: prepares it and returns what is run.
        count: units of work of one run.
    """

    name: str
    make: Callable[[], Callable[[], object]]
    count: int = 1


def paired(machine: Machine, candidates: Sequence[Candidate], base: str) -> list[Record]:
    """Median times of a unit of work, and medians of the ratios to the base's in the same round.

    Candidates run in turn. One that raises is a line of its own; the others go on.
    """
    records: list[Record] = []
    runs: dict[str, tuple[Callable[[], object], int, int]] = {}
    for candidate in candidates:
        if machine.without and machine.without in candidate.name and candidate.name != base:
            continue
        try:
            with within(machine.first):
                run = candidate.make()
                for _ in range(1 if machine.dry else 3):
                    run()
                machine.synchronize()
                repeat = 1 if machine.dry else _repetitions(machine, run)
            runs[candidate.name] = run, repeat, candidate.count
        except Exception as error:
            records.append(failure(error, what=candidate.name))
            if machine.lost():
                return records
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + machine.seconds
    for _ in range(machine.rounds):
        for name in list(runs):
            run, repeat, count = runs[name]
            try:
                times[name].append(_timed(machine, run, repeat) / count)
            except Exception as error:
                records.append(failure(error, what=name))
                del runs[name]
        if time.perf_counter() > end:
            break
    done = [name for name in runs if times[name]]
    return [_record(name, times, base if base in done else None) for name in done] + records


def _timed(machine: Machine, run: Callable[[], object], repeat: int) -> float:
    """Seconds of a run, the device's work included."""
    machine.synchronize()
    start = time.perf_counter()
    for _ in range(repeat):
        run()
    machine.synchronize()
    return (time.perf_counter() - start) / repeat


def _repetitions(machine: Machine, run: Callable[[], object]) -> int:
    """Runs of a measurement."""
    return int(min(200, max(1, _MEASURED / max(_timed(machine, run, 1), 1e-7))))


def _record(name: str, times: Mapping[str, Sequence[float]], base: str | None) -> Record:
    own = times[name]
    record: Record = {"what": name, "seconds": statistics.median(own), "rounds": len(own)}
    if base is not None:
        ratios = [one / other for one, other in zip(own, times[base], strict=False)]
        record |= {
            "ratio": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
            "base": base,
        }
    return record


def simulated() -> None:
    """Set the environment in which Numba simulates a GPU, before it is imported."""
    os.environ |= {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}


def take_turns() -> None:
    """Let the simulator's threads take turns often only where they wait for each other."""
    sys.path.insert(0, str(ROOT / "tests" / "backends"))
    from cuda_simulated import taking_turns

    taking_turns()
