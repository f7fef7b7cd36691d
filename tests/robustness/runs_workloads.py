"""Small runs for the harness: specs, data, compiled modules, and what two runs must agree in."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np

import sifrc
from sifrc.data import Dataset
from sifrc.errors import SifrcError, TrainingError
from sifrc.training import Plateau, SummaryLog, train
from sifrc.training.checkpoint import load_checkpoint
from sifrc.training.state import encode_state

SPEC = {
    "sifrc": 1,
    "name": "life",
    "network": {
        "input": {"size": 5},
        "layers": [
            {"name": "fc1", "type": "dense", "units": 4, "activation": "tanh"},
            {"name": "fc2", "type": "dense", "units": 3},
        ],
    },
    "loss": "cross_entropy",
    "regularization": {"state": 0.01},
    "dtype": "float64",
}


def toy(count: int, *, noise: float, dtype: str, vectors: bool) -> Dataset:
    """Three classes in five dimensions, which noise of 0.1 leaves apart; targets as classes or as vectors."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((3, 5))

    def part(samples: int) -> tuple[Any, Any]:
        labels = rng.integers(0, 3, samples)
        inputs = (centres[labels] + noise * rng.standard_normal((samples, 5))).astype(dtype)
        return inputs, np.eye(3, dtype=dtype)[labels] if vectors else labels

    return Dataset("toy", "made for the harness", *part(count), *part(60), classes=3)


@contextmanager
def without_compiler(backend: str) -> Iterator[None]:
    """Numba's modules as plain Python: its compiler takes longer than these runs."""
    if backend != "numba":
        yield
        return
    import numba

    before, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, True
    try:
        yield
    finally:
        numba.config.DISABLE_JIT = before


@dataclass(frozen=True)
class Workload:
    """A run that can be made again.

    Args:
        name: for the table.
        backend: of the module.
        method: of the module.
        samples: of the training part.
        options: of the method.
        settings: of the run.
        changes: of the spec.
        noise: of the data.
    """

    name: str
    backend: str
    method: str
    samples: int = 520
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    noise: float = 0.7

    def spec(self) -> dict[str, Any]:
        """The spec."""
        return {**deepcopy(SPEC), **self.changes}

    def compile(self, folder: Path) -> ModuleType:
        """The module; Numba's in plain Python."""
        with without_compiler(self.backend):
            return sifrc.compile(
                self.spec(), self.backend, method=self.method, operators=(), cache=folder, **self.options
            )

    def run(
        self, module: ModuleType, directory: Path | None, *, pictures: bool = False, **settings: Any
    ) -> None:
        """Train; what is given goes over the settings of the workload. Pictures take longer than the runs."""
        spec = self.spec()
        vectors = spec["loss"] == "squared_error"
        data = toy(self.samples, noise=self.noise, dtype=spec["dtype"], vectors=vectors)
        chosen = {"epochs": 2, "batch": 20, "seed": 7, "progress": False, **self.settings, **settings}
        with nullcontext() if pictures else patch("sifrc.training.run.Run.draw", lambda run: None):
            train(module, self.backend, data, directory=directory, **chosen)


GROUPED = MappingProxyType(
    {"curvature_batch": 70, "plateau": Plateau(patience=0, factor=0.5, threshold=0.6), "summaries": 5}
)
WORKLOADS = (
    Workload("mk, torch", "torch", "mk"),
    Workload("ea_cg, torch", "torch", "ea_cg", options={"kind": "pch1", "momentum": 0.5}),
    Workload("grouped_newton, torch", "torch", "grouped_newton", options={"period": 4}, settings=GROUPED),
    Workload("mk, numba", "numba", "mk", samples=300),
    Workload("grouped_newton, numba", "numba", "grouped_newton", 300, {"period": 4}, GROUPED),
)


def differences(whole: Path, other: Path) -> list[str]:
    """In what two runs differ, bit by bit; the seconds on the clock do not count."""
    try:
        a, b = load_checkpoint(whole / "checkpoint.npz"), load_checkpoint(other / "checkpoint.npz")
    except TrainingError as error:
        return [str(error)]
    found = []
    if {k: v.tobytes() for k, v in a.parameters.items()} != {k: v.tobytes() for k, v in b.parameters.items()}:
        found.append("parameters")
    for name in ("state", "extra"):
        (text, arrays), (text2, arrays2) = (encode_state(getattr(c, name)) for c in (a, b))
        if text != text2 or [x.tobytes() for x in arrays] != [y.tobytes() for y in arrays2]:
            found.append(name)
    if (a.position.epoch, a.position.sample) != (b.position.epoch, b.position.sample):
        found.append("position")
    rows = [np.delete(c.history.array(), 1, axis=1).tobytes() for c in (a, b)]
    if rows[0] != rows[1]:
        found.append("history")
    if (whole / "summaries.npz").exists():
        try:
            logs = [SummaryLog.load(folder / "summaries.npz").digest() for folder in (whole, other)]
        except TrainingError as error:
            return [*found, str(error)]
        if logs[0] != logs[1]:
            found.append("summaries")
    left = sorted(path.name for path in other.iterdir() if path.name.endswith(".part"))
    return found + left


def outcome_of(work: Any) -> tuple[str, str]:
    """What became of a call: ``complete``, ``interrupted``, ``error`` (a clear one) or ``raw``; its text."""
    import traceback

    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            work()
        return "complete", "; ".join(str(item.message) for item in seen)
    except KeyboardInterrupt as error:  # TrainingInterrupted says how far it is
        return "interrupted", str(error)
    except SifrcError as error:
        usual = (SifrcError, ArithmeticError, MemoryError, OSError, ValueError, type(None))
        return ("error" if isinstance(error.__cause__, usual) else "raw"), str(error)
    except BaseException:
        return "raw", traceback.format_exc()
