"""What grouped_newton.py measures besides losses: the cost of a step, and where H̄ has its mass."""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare import baseline, generated
from numpy.typing import NDArray

import sifrc
from sifrc.data import load_dataset
from sifrc.training import SummaryLog, sample_order
from sifrc.training.adapters import Trainable, is_periodic
from sifrc.training.baselines import adam
from sifrc.training.periodic import Periodic
from sifrc.training.sampling import CurvatureSampler

PARTITIONS = ("trivial", "weights-biases", "blocks-2", "alternate-2", "blocks-4", "alternate-4", "canonical")
"""In the order of GN3, Table 5."""


Records = NDArray[np.bool_] | Sequence[int]
"""Which records of a log."""


@dataclass(frozen=True)
class Cost:
    """Of the first few steps, on one thread.

    Args:
        groups: of the summary; 0 without.
        first: seconds of the processor for the first step, which has a summary.
        later: seconds of a step without.
        megabytes: the most memory that the process had, less what it had before the first step.
        before: the training loss at the start.
        after: the same after the steps.
    """

    groups: int
    first: float
    later: float
    megabytes: float
    before: float
    after: float


def cost_of(spec: sifrc.Spec, name: str, arguments: argparse.Namespace) -> Cost:
    """Measure a few steps of Adam, or of grouped Newton, in a process of its own.

    Args:
        spec: of network and training.
        name: ``Adam``, a partition, or anything else for the spec's own partition.
        arguments: of the command line.
    """
    settings = {"lr": arguments.steps[0], "internal_damping": arguments.dampings[0]}
    options = (name, arguments.backend or spec.target.backend, settings, arguments.seed)
    task = (sifrc.spec.spec_to_dict(spec), options, arguments.data_path, arguments.train_count)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, task)


def measured(
    content: Mapping[str, Any],
    options: tuple[str, str, Mapping[str, float], int],
    path: Path | None,
    count: int | None,
) -> Cost:
    """The body of :func:`cost_of`, in the other process."""
    torch.set_num_threads(1)
    name, backend, settings, seed = options
    spec = sifrc.build_spec(content)
    training = spec.training
    count = count or max(training.curvature_batch, 4 * training.batch)
    data = load_dataset(training.data, path=path, train_count=count, test_count=1, pad=training.pad)
    inputs, targets = data.train_inputs, data.train_targets
    initial = sifrc.compile(spec, backend="torch", method="none", operators=()).initialize(seed)
    start = {key: value.numpy() for key, value in initial.items()}
    if name == "Adam":
        trainable: Trainable = baseline(spec, adam)(start, seed, lr=1e-5)
    else:
        chosen = {"partition": name} if name in PARTITIONS else {}
        trainable = generated(spec, "grouped_newton", backend, **chosen)(start, seed, **settings)
    periodic = Periodic(CurvatureSampler(count, seed=seed, size=training.curvature_batch), None)
    trainable.warm_up(inputs, targets, 1)  # for the compiler

    def seconds(order: NDArray[np.int64]) -> float:
        begin = time.process_time()
        if is_periodic(trainable):
            trainable.train_periodic(inputs, targets, order, training.batch, periodic)
        else:
            trainable.train_chunk(inputs, targets, order, training.batch)
        return time.process_time() - begin

    before, memory = trainable.loss(inputs, targets), Memory()
    order = sample_order(count, seed=seed, epoch=0)[: 4 * training.batch]
    first = seconds(order[: training.batch])
    rest = order[training.batch :]
    later = seconds(rest) / -(-len(rest) // training.batch)
    groups = len(trainable.groups) if is_periodic(trainable) else 0
    return Cost(groups, first, later, memory.peak(), before, trainable.loss(inputs, targets))


class Memory:
    """Growth of this process from now on, as Linux counts it; not a number elsewhere."""

    def __init__(self) -> None:
        """Forget earlier peaks."""
        self._known = _STATUS.is_file()
        if self._known:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self._before = self._megabytes("VmRSS")

    def peak(self) -> float:
        """The most that the process had since then, less what it had at the start, in MB."""
        return self._megabytes("VmHWM") - self._before if self._known else math.nan

    def _megabytes(self, key: str) -> float:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


_STATUS = Path("/proc/self/status")


def distant(log: SummaryLog) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Pairs of groups in chunks that are not neighbours, (S, S), and which groups are of biases, (S,).

    Args:
        log: with a group of weights and a group of biases for every chunk, in the order of the network.
    """
    kinds = np.array([tensors[0].endswith(".bias") for tensors in log.groups.values()], np.int64)
    chunks = np.array([int((kinds[:s] == kinds[s]).sum()) for s in range(len(kinds))])
    return np.abs(chunks[:, None] - chunks[None, :]) > 1, kinds


def distant_shares(log: SummaryLog, chosen: Records, *, inverse: bool = False) -> list[float]:
    """The part of Σ|H̄_st| with s and t in chunks that are not neighbours, the mean over records.

    A tridiagonal matrix, in the sense of GN3, Appendix H, has none.

    Args:
        log: as for :func:`distant`.
        chosen: which records.
        inverse: of H̄⁻¹ in place of H̄.

    Returns:
        Of the whole matrix, and of its parts weights–weights, weights–biases and biases–biases.
    """
    far, kinds = distant(log)
    sums = kinds[:, None] + kinds[None, :]
    parts = [np.ones_like(far), *(sums == kind for kind in range(3))]
    found = []
    for matrix in log.summary_h[chosen]:
        sizes = np.abs(np.linalg.inv(matrix) if inverse else matrix)
        found.append([sizes[part & far].sum() / (sizes[part].sum() or 1.0) for part in parts])
    return [float(value) for value in np.mean(found, axis=0)]


def distant_median(log: SummaryLog, chosen: Records) -> float:
    """The median of |H̄_st| / √|H̄_ss H̄_tt| over the same pairs and the records.

    Unlike the shares it does not depend on the scale of u in each group.
    """
    matrices = np.abs(log.summary_h[chosen])
    scales = np.sqrt(np.diagonal(matrices, axis1=1, axis2=2))
    return float(np.median((matrices / (scales[:, :, None] * scales[:, None, :]))[:, distant(log)[0]]))
